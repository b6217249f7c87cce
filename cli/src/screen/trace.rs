//! A trace as text: a tree of its spans, with what they took.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::model::trace::{Branch, Span, SpanKind, tree};
use crate::problem::counted;

/// Columns of the bars that show when a span ran, where the terminal has room for them.
const BAR: usize = 40;
/// The narrowest terminal with bars.
const WITH_BARS: usize = 130;
/// The fewest columns for names.
const MIN_NAME: usize = 20;

/// A trace for a terminal of `width` columns; nothing is cut off if that is not known.
pub(crate) fn trace(id: &str, spans: &[Span], width: Option<usize>) -> String {
    let start = spans.iter().map(|span| span.start_ns).min().unwrap_or_default();
    let end = spans.iter().map(|span| span.start_ns.saturating_add(span.duration_ns)).max().unwrap_or_default();
    let services: BTreeSet<&str> = spans.iter().map(|span| span.service.as_str()).collect();
    let failed = spans.iter().filter(|span| span.error.is_some()).count();
    let mut facts = vec![
        format!("{} of {}", counted(spans.len(), "span"), counted(services.len(), "service")),
        milliseconds(end - start),
        if failed == 0 { "no error".to_owned() } else { counted(failed, "error") },
    ];
    if let Ok(started) = Timestamp::from_nanosecond(start.into()) {
        facts.push(format!("{started:.3}"));
    }
    let rows = tree(spans);
    let service_width = services.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    let offset = |span: &Span| milliseconds(span.start_ns - start);
    let offsets = spans.iter().map(|span| offset(span).len()).max().unwrap_or_default();
    let durations = spans.iter().map(|span| milliseconds(span.duration_ns).len()).max().unwrap_or_default();
    let bars = width.is_some_and(|width| width >= WITH_BARS);
    let fixed = offsets + durations + service_width + 7 + if bars { BAR + 2 } else { 0 };
    let name_width = width.map(|width| width.saturating_sub(fixed).max(MIN_NAME));

    let mut out = format!("trace {id}\n{}\n\n", facts.join(", "));
    for branch in &rows {
        let span = branch.span;
        let took = milliseconds(span.duration_ns);
        let mut line = format!("+{:>offsets$}  {took:>durations$}  {:<service_width$}  ", offset(span), span.service);
        if bars {
            line.push_str(&bar(span, start, end));
            line.push_str("  ");
        }
        line.push_str(&cut(&format!("{}{}", lines(branch), title(span)), name_width));
        out.push_str(line.trim_end());
        out.push('\n');
        if let Some(error) = &span.error {
            let indent = " ".repeat(fixed);
            let text = format!("{}error: {error}", lines(&Branch { depth: branch.depth + 1, ..*branch }));
            out.push_str(&format!("{indent}{}\n", cut(&text, name_width)));
        }
    }
    out
}

/// Its name, and for what both sides have a span, which side it is.
fn title(span: &Span) -> String {
    match span.kind {
        SpanKind::Client => format!("→ {}", span.name),
        SpanKind::Server | SpanKind::Producer | SpanKind::Consumer | SpanKind::Internal => span.name.clone(),
    }
}

/// The lines of the tree before a span.
fn lines(branch: &Branch<'_>) -> String {
    let follows = |level: usize| branch.more >> level.min(127) & 1 == 1;
    let above = (1..branch.depth).map(|level| if follows(level) { "│ " } else { "  " });
    let own = (branch.depth > 0).then(|| if follows(branch.depth) { "├ " } else { "└ " });
    above.chain(own).collect()
}

/// When it ran, within the whole trace.
fn bar(span: &Span, start: u64, end: u64) -> String {
    let whole = (end - start).max(1) as f64;
    let place = |time: u64| ((time - start) as f64 / whole * BAR as f64) as usize;
    let from = place(span.start_ns).min(BAR - 1);
    let to = place(span.start_ns.saturating_add(span.duration_ns)).clamp(from + 1, BAR);
    format!("{}{}{}", "·".repeat(from), "█".repeat(to - from), "·".repeat(BAR - to))
}

/// The text, or what fits of it.
fn cut(text: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if text.chars().count() > width => {
            text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
        }
        _ => text.to_owned(),
    }
}

/// Milliseconds with three figures or so.
fn milliseconds(nanoseconds: u64) -> String {
    let value = nanoseconds as f64 / 1e6;
    match value {
        value if value < 9.995 => format!("{value:.2} ms"),
        value if value < 99.95 => format!("{value:.1} ms"),
        value => format!("{value:.0} ms"),
    }
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
