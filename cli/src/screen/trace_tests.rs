//! Traces as people see them, at terminals of several widths.

use std::collections::BTreeMap;

use super::*;

fn span(name: &str, service: &str, kind: SpanKind, id: &str, parent: &str, start_us: u64, took_us: u64) -> Span {
    Span {
        service: service.to_owned(),
        task: "1".to_owned(),
        name: name.to_owned(),
        kind,
        span_id: id.to_owned(),
        parent_id: (!parent.is_empty()).then(|| parent.to_owned()),
        start_ns: 1_795_000_000_000_000_000 + start_us * 1_000,
        duration_ns: took_us * 1_000,
        error: None,
        attributes: BTreeMap::new(),
    }
}

fn spans() -> Vec<Span> {
    let mut failed = span("state.manager.v1.StateManager/Update", "quest-system", SpanKind::Client, "d", "c", 900, 500);
    failed.error = Some("`svc.state.manager.v1.update` did not answer in time (UNAVAILABLE)".to_owned());
    vec![
        span("POST /api/quest/v1/generate", "gateway", SpanKind::Server, "a", "", 0, 12_340),
        span("quest.v1.Quest/Generate", "gateway", SpanKind::Client, "b", "a", 100, 12_000),
        span("quest.v1.Quest/Generate", "quest-system", SpanKind::Server, "c", "b", 400, 11_500),
        failed,
        span("publish evt.quest.generated.v1", "quest-system", SpanKind::Producer, "e", "c", 9_000, 1_500),
    ]
}

#[test]
fn a_trace_is_a_tree_with_services_times_and_errors() {
    let text = trace("4bf92f3577b34da6a3ce929d0e0e4736", &spans(), None);
    let expected = "\
trace 4bf92f3577b34da6a3ce929d0e0e4736
5 spans of 2 services, 12.3 ms, 1 error, 2026-11-18T11:06:40.000Z

+0.00 ms  12.3 ms  gateway       POST /api/quest/v1/generate
+0.10 ms  12.0 ms  gateway       └ → quest.v1.Quest/Generate
+0.40 ms  11.5 ms  quest-system    └ quest.v1.Quest/Generate
+0.90 ms  0.50 ms  quest-system      ├ → state.manager.v1.StateManager/Update
                                     │ └ error: `svc.state.manager.v1.update` did not answer in time (UNAVAILABLE)
+9.00 ms  1.50 ms  quest-system      └ publish evt.quest.generated.v1
";
    assert_eq!(text, expected);
}

#[test]
fn it_fits_the_terminal() {
    for width in [80, 100, 130, 200] {
        let text = trace("4bf92f3577b34da6a3ce929d0e0e4736", &spans(), Some(width));
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= width, "{widest} of {width}:\n{text}");
        assert_eq!(text.contains('█'), width >= WITH_BARS, "{text}");
    }
    let wide = trace("4bf92f3577b34da6a3ce929d0e0e4736", &spans(), Some(200));
    let bars: Vec<&str> =
        wide.lines().skip(3).filter_map(|line| line.split("  ").find(|part| part.contains('█'))).collect();
    assert_eq!(bars[0].trim(), "█".repeat(BAR));
    assert_eq!(bars.len(), 5);
}

#[test]
fn a_trace_of_no_time_has_a_bar() {
    let text = trace("4bf9", &[span("a", "gateway", SpanKind::Server, "a", "", 0, 0)], Some(200));
    assert!(text.contains('█'), "{text}");
}
