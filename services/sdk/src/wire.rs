//! What goes over NATS beside the protobuf messages: header names, and the parts that all requests and responses share.

use async_nats::{HeaderMap, HeaderName};
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;
use proto::common::v1 as common;
use proto::rpc::{Code, Error};

/// W3C trace context.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// ADR-32: why a request failed.
pub(crate) const ERROR: HeaderName = HeaderName::from_static("Nats-Service-Error");
/// ADR-32: the number of [`ERROR`].
pub(crate) const ERROR_CODE: HeaderName = HeaderName::from_static("Nats-Service-Error-Code");
/// Of a streaming request: how many messages the worker may send before it must wait for more credit.
pub(crate) const STREAM_CREDIT: HeaderName = HeaderName::from_static("Stream-Credit");
/// Of a stream's message: its number, from 0.
pub(crate) const STREAM_SEQUENCE: HeaderName = HeaderName::from_static("Stream-Seq");
/// Of a stream's last message: `ok` or `error`.
pub(crate) const STREAM_END: HeaderName = HeaderName::from_static("Stream-End");
/// Of a message that only says that the stream is alive.
pub(crate) const STREAM_HEARTBEAT: HeaderName = HeaderName::from_static("Stream-Heartbeat");

/// Every request, as far as the SDK needs it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RequestEnvelope {
    #[prost(message, optional, tag = "1")]
    pub(crate) meta: Option<common::Meta>,
}

/// Every response, as far as the SDK needs it.
#[derive(Clone, PartialEq, Message)]
struct ResponseEnvelope {
    #[prost(message, optional, tag = "1")]
    error: Option<common::Error>,
}

/// The request with `meta` in it: protobuf merges a field that comes twice, the later one winning.
pub(crate) fn with_meta(request: &[u8], meta: common::Meta) -> Bytes {
    let envelope = RequestEnvelope { meta: Some(meta) };
    let mut out = BytesMut::with_capacity(request.len() + envelope.encoded_len());
    out.put_slice(request);
    // The buffer grows as needed.
    let _ = envelope.encode(&mut out);
    out.freeze()
}

/// The response that carries nothing but `error`.
pub(crate) fn error_payload(error: &Error) -> Bytes {
    ResponseEnvelope { error: Some(error.clone().into()) }.encode_to_vec().into()
}

/// ADR-32's headers for `error`.
pub(crate) fn error_headers(error: &Error) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // A header is one line.
    headers.insert(ERROR, error.message().replace(['\r', '\n'], " "));
    headers.insert(ERROR_CODE, status(error.code()).to_string());
    headers
}

/// The error in a response that its headers say has one.
pub(crate) fn error_in(headers: Option<&HeaderMap>, payload: &Bytes) -> Option<Error> {
    let description = headers?.get(ERROR)?;
    let carried = ResponseEnvelope::decode(payload.clone()).ok().and_then(|envelope| envelope.error);
    Some(carried.map_or_else(|| Error::new(Code::Unknown, description.as_str().to_owned()), Error::from))
}

/// HTTP's number for a code: what ADR-32 tools expect to see.
fn status(code: Code) -> u16 {
    match code {
        Code::InvalidArgument | Code::OutOfRange => 400,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::FailedPrecondition => 422,
        Code::ResourceExhausted => 429,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_added_to_a_request_that_has_some_already() {
        let request = RequestEnvelope {
            meta: Some(common::Meta { idempotency_key: "k".into(), request_id: "old".into(), ..Default::default() }),
        };
        let added = common::Meta { request_id: "new".into(), timeout_ms: 5, ..Default::default() };
        let merged = RequestEnvelope::decode(with_meta(&request.encode_to_vec(), added)).unwrap().meta.unwrap();
        assert_eq!((merged.request_id.as_str(), merged.idempotency_key.as_str(), merged.timeout_ms), ("new", "k", 5));
    }

    #[test]
    fn an_error_survives_the_wire() {
        let error = Error::new(Code::Aborted, "two\nlines").with_detail("current_revision", 7);
        let headers = error_headers(&error);
        assert_eq!(headers.get(ERROR_CODE).unwrap().as_str(), "409");
        assert_eq!(error_in(Some(&headers), &error_payload(&error)), Some(error));
        assert_eq!(error_in(None, &Bytes::new()), None);
    }
}
