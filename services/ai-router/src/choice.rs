//! The choice among backends: who is expected to have answered first.

use std::collections::BTreeMap;
use std::time::SystemTime;

use proto::ai::router::v1::{Backend, BreakerState, Candidate, Health, RouteRequest};
use sdk::{Error, Stored};

use crate::health::breaker;

/// The most that is assumed of failures: of a backend that fails always, some request succeeds in the end.
const MAX_FAILURE_RATE: f64 = 0.99;

/// All backends: those that may be chosen first, the best of them first.
pub(crate) fn ranked(
    backends: &BTreeMap<String, Stored<Backend>>,
    health: &BTreeMap<String, Stored<Health>>,
    request: &RouteRequest,
    now: SystemTime,
) -> Vec<Candidate> {
    let unknown = Health::default();
    let mut ranked: Vec<(Candidate, u64)> = Vec::with_capacity(backends.len());
    for Stored { value: backend, .. } in backends.values() {
        let health = health.get(&backend.id).map_or(&unknown, |stored| &stored.value);
        let candidate = Candidate {
            backend_id: backend.id.clone(),
            expected_ms: expected_ms(backend, health),
            excluded_by: excluded_by(backend, health, request, now).to_owned(),
        };
        ranked.push((candidate, backend.cost_per_1k_tokens_micros));
    }
    ranked.sort_by(|(a, cost_of_a), (b, cost_of_b)| {
        let is_out = |it: &Candidate| !it.excluded_by.is_empty();
        is_out(a)
            .cmp(&is_out(b))
            .then_with(|| a.expected_ms.total_cmp(&b.expected_ms))
            .then_with(|| cost_of_a.cmp(cost_of_b))
            .then_with(|| a.backend_id.cmp(&b.backend_id))
    });
    ranked.into_iter().map(|(candidate, _)| candidate).collect()
}

fn expected_ms(backend: &Backend, health: &Health) -> f64 {
    let latency = if health.latency_ms > 0.0 { health.latency_ms } else { f64::from(backend.expected_latency_ms) };
    latency / (1.0 - health.failure_rate.min(MAX_FAILURE_RATE))
}

/// The filter that excludes a backend; empty if none does.
fn excluded_by(backend: &Backend, health: &Health, request: &RouteRequest, now: SystemTime) -> &'static str {
    let ceiling = request.max_cost_per_1k_tokens_micros;
    if !backend.capabilities.contains(&request.capability) {
        return "capability";
    }
    if ceiling > 0 && backend.cost_per_1k_tokens_micros > ceiling {
        return "cost";
    }
    if request.exclude.contains(&backend.id) {
        return "excluded";
    }
    match breaker(health, now) {
        BreakerState::Open => "breaker",
        _ => "",
    }
}

/// Why the first one is chosen, in one sentence.
pub(crate) fn reason(candidates: &[Candidate]) -> String {
    let mut considered = candidates.iter().filter(|candidate| candidate.excluded_by.is_empty());
    let first = considered.next().map_or(0.0, |candidate| candidate.expected_ms);
    match considered.next() {
        Some(next) => {
            format!("expected to succeed after {first:.0} ms, `{}` after {:.0} ms", next.backend_id, next.expected_ms)
        }
        None => format!("the only backend that is left; expected to succeed after {first:.0} ms"),
    }
}

/// There is no backend: how many each filter excluded.
pub(crate) fn none(candidates: &[Candidate], request: &RouteRequest) -> Error {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for candidate in candidates {
        *counts.entry(&candidate.excluded_by).or_default() += 1;
    }
    let message = format_args!("no backend is left for capability `{}`", request.capability);
    let error = Error::failed_precondition(message).with_detail("backends", candidates.len());
    counts.into_iter().fold(error, |error, (filter, count)| error.with_detail(&format!("excluded_by_{filter}"), count))
}
