//! Trees of spans, and ids as they are typed.

use super::*;

fn span(id: &str, parent: &str, start_ns: u64) -> Span {
    Span {
        service: "s".to_owned(),
        task: "t".to_owned(),
        name: id.to_owned(),
        kind: SpanKind::Server,
        span_id: id.to_owned(),
        parent_id: (!parent.is_empty()).then(|| parent.to_owned()),
        start_ns,
        duration_ns: 1,
        error: None,
        attributes: BTreeMap::new(),
    }
}

/// Spans as `id<parent@start`, and the tree as indented ids.
#[track_caller]
fn check(spans: &[(&str, &str, u64)], expected: &[&str]) {
    let spans: Vec<Span> = spans.iter().map(|(id, parent, start)| span(id, parent, *start)).collect();
    let tree: Vec<String> =
        tree(&spans).iter().map(|branch| format!("{}{}", " ".repeat(branch.depth), branch.span.name)).collect();
    assert_eq!(tree, expected);
}

#[test]
fn spans_are_below_those_that_caused_them_in_the_order_of_their_start() {
    check(&[("c", "a", 3), ("d", "b", 4), ("a", "", 1), ("b", "a", 2), ("e", "a", 5)], &["a", " b", "  d", " c", " e"]);
}

#[test]
fn a_span_whose_parent_is_missing_is_a_root() {
    check(&[("b", "gone", 2), ("c", "b", 3), ("a", "", 1)], &["a", "b", " c"]);
    check(&[], &[]);
}

#[test]
fn no_span_is_lost_or_doubled_when_parents_form_a_circle() {
    check(&[("a", "b", 1), ("b", "a", 2), ("c", "c", 3)], &["c", "a", " b"]);
}

#[test]
fn more_spans_follow_on_each_level_until_the_last() {
    let spans = [span("a", "", 1), span("b", "a", 2), span("c", "b", 3), span("d", "a", 4)];
    let follows =
        |branch: &Branch<'_>| (1..=branch.depth).map(|level| branch.more >> level & 1 == 1).collect::<Vec<_>>();
    let tree = tree(&spans);
    let follows: Vec<Vec<bool>> = tree.iter().map(follows).collect();
    assert_eq!(follows, [vec![], vec![true], vec![true, false], vec![false]]);
}

#[test]
fn a_tree_of_any_depth_is_shown() {
    let ids: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
    let spans: Vec<Span> = (0..1_000)
        .map(|number| span(&ids[number], number.checked_sub(1).map_or("", |up| &ids[up]), number as u64))
        .collect();
    assert_eq!(tree(&spans).len(), 1_000);
    assert_eq!(tree(&spans).last().unwrap().depth, MAX_DEPTH);
}

#[test]
fn an_id_is_read_as_it_is_copied() {
    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(text.parse::<TracePrefix>().ok().as_ref().map(|prefix| prefix.0.as_str()), expected, "{text}");
    }
    let whole = "4bf92f3577b34da6a3ce929d0e0e4736";
    check(whole, Some(whole));
    check(&whole.to_uppercase(), Some(whole));
    check(&format!("00-{whole}-00f067aa0ba902b7-01\n"), Some(whole));
    check("4bf9", Some("4bf9"));
    check("4bf", None);
    check("", None);
    check("quest", None);
    check(&format!("{whole}0"), None);
    check("4bf9-2f35", None);
}
