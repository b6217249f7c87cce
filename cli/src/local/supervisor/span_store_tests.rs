//! What exported spans become when they are looked at.

use otlp::{Resource, ResourceSpans, ScopeSpans, Status};

use super::*;

fn encoded(service: &str, trace: u128, name: &str) -> Bytes {
    let attribute = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }),
    };
    let span = otlp::Span {
        trace_id: trace.to_be_bytes().to_vec(),
        span_id: vec![1; 8],
        name: name.to_owned(),
        kind: otlp::span::SpanKind::Server.into(),
        start_time_unix_nano: 1_000,
        end_time_unix_nano: 3_000,
        attributes: vec![attribute("error.type", "UNAVAILABLE")],
        status: Some(Status { message: "no".to_owned(), code: otlp::status::StatusCode::Error.into() }),
        ..otlp::Span::default()
    };
    let resource = Resource { attributes: vec![attribute("service.name", service)] };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let spans = ResourceSpans { resource: Some(resource), scope_spans };
    ExportTraceServiceRequest { resource_spans: vec![spans] }.encode_to_vec().into()
}

fn found(store: &SpanStore, prefix: &str) -> FoundTraces {
    store.find(&prefix.parse().unwrap())
}

#[test]
fn a_trace_is_found_by_the_beginning_of_its_id() {
    let mut store = SpanStore::new(1 << 20);
    store.push(encoded("quest-system", 0xabcd << 112, "a")).unwrap();
    store.push(encoded("gateway", 0xabcd << 112, "b")).unwrap();
    store.push(encoded("gateway", 0xabce << 112, "c")).unwrap();
    let traces = found(&store, "abcd");
    assert_eq!((traces.matching, traces.stored, traces.since_ns), (1, 3, Some(1_000)));
    let spans: Vec<(&str, &str)> =
        traces.spans.iter().map(|span| (span.service.as_str(), span.name.as_str())).collect();
    assert_eq!(spans, [("quest-system", "a"), ("gateway", "b")]);
    let span = &traces.spans[0];
    assert_eq!((span.duration_ns, span.error.as_deref()), (2_000, Some("no (UNAVAILABLE)")));
    assert_eq!(span.parent_id, None);

    let none = found(&store, "1234");
    assert_eq!((none.matching, none.spans.len(), none.stored), (0, 0, 3));
}

#[test]
fn a_prefix_of_several_traces_names_them() {
    let mut store = SpanStore::new(1 << 20);
    for number in 0..20 {
        store.push(encoded("gateway", (0xabcd << 112) + number, "a")).unwrap();
    }
    let traces = found(&store, "abcd");
    assert_eq!((traces.matching, traces.ids.len(), traces.spans.len()), (20, MAX_IDS, 0));
}

#[test]
fn the_oldest_spans_make_room() {
    let one = encoded("gateway", 0xabcd << 112, "a").len();
    let mut store = SpanStore::new(one * 3);
    for number in 0..1_000 {
        store.push(encoded("gateway", (0xabcd << 112) + number, "a")).unwrap();
        assert!(store.bytes <= store.max_bytes);
    }
    assert_eq!(found(&store, "abcd").matching, 3);
    assert_eq!(found(&store, &format!("{:032x}", (0xabcd_u128 << 112) + 999)).matching, 1);
}

#[test]
fn what_is_no_export_is_refused() {
    let mut store = SpanStore::new(1 << 20);
    assert!(store.push(Bytes::from_static(b"\xff\xff")).is_err());
    assert_eq!(found(&store, "abcd").stored, 0);
}
