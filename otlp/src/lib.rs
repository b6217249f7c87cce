//! OTLP, the protocol by which tasks export spans to a collector: the messages, generated from the files of
//! <https://github.com/open-telemetry/opentelemetry-proto> (version 1.10.0) in `opentelemetry/`, which are copied
//! unchanged. The crates of OpenTelemetry generate the same ones, but bring its whole SDK.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::all,
    rustdoc::all,
    reason = "generated; the .proto files document it"
)]

mod generated {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}

pub use generated::opentelemetry::proto::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
pub use generated::opentelemetry::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
pub use generated::opentelemetry::proto::resource::v1::Resource;
pub use generated::opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span, status};
