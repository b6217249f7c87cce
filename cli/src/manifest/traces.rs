//! What an environment says of traces: whether tasks could send spans there, and a browser open a trace.

use super::links::Document;
use crate::model::trace::LINK_PLACEHOLDER;
use crate::problem::Problem;

/// What is wrong with the key `traces` of an environment's manifest.
pub(super) fn environment(document: &Document) -> Vec<Problem> {
    let text = |key| document.root.find(&["traces", key]).and_then(|node| Some((node, node.text()?)));
    let problem = |(node, _): (&_, &str), message: String, hint: &str| document.problem(node, message).hint(hint);
    let mut problems = Vec::new();
    if let Some(endpoint) = text("endpoint")
        && let Err(reason) = check_url(endpoint.1)
    {
        let hint = "write the base URL of an OTLP collector, for example `http://collector.internal:4318`";
        problems.push(problem(endpoint, format!("`traces.endpoint` {reason}"), hint));
    }
    if let Some(link) = text("link") {
        let hint = "for example `https://traces.example.com/trace/{trace_id}`";
        let (before, after) = link.1.split_once(LINK_PLACEHOLDER).unwrap_or((link.1, "{"));
        if let Err(reason) = check_url(&link.1.replace(LINK_PLACEHOLDER, "0")) {
            problems.push(problem(link, format!("`traces.link` {reason}"), hint));
        } else if [before, after].iter().any(|part| part.contains(['{', '}'])) {
            let message = format!("`traces.link` must contain `{LINK_PLACEHOLDER}` once, and no other braces");
            problems.push(problem(link, message, hint));
        }
    }
    problems
}

/// Whether a text is an HTTP URL that shows no secret.
fn check_url(text: &str) -> Result<(), &'static str> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let rest = rest.ok_or("is not a URL with `http://` or `https://`")?;
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() || text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        return Err("is not a URL");
    }
    if host.contains('@') {
        return Err(
            "contains a user: secrets belong into `OTEL_EXPORTER_OTLP_HEADERS`, among the `secrets` of a service",
        );
    }
    Ok(())
}
