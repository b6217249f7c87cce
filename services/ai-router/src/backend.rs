//! Descriptions of backends.

use proto::ai::router::v1::{Backend, RouteRequest};
use sdk::{Error, Id, check_count, check_id, check_range};

/// Bytes of an id and of a name.
const MAX_NAME: usize = 64;
const MAX_CAPABILITIES: usize = 32;
const MAX_EXCLUDED: usize = 16;
/// Milliseconds that a request takes at most.
pub(crate) const MAX_LATENCY_MS: u32 = 600_000;

/// The key of a backend, and of what was measured of it.
pub(crate) fn key(backend_id: &str) -> Result<Id, Error> {
    Id::new("backend", backend_id, MAX_NAME)
}

/// The description as it is stored.
pub(crate) fn normalized(mut backend: Backend) -> Result<Backend, Error> {
    if backend.capabilities.is_empty() {
        return Err(Error::invalid("a backend needs at least one capability"));
    }
    check_count("capabilities", backend.capabilities.len(), MAX_CAPABILITIES)?;
    for capability in &backend.capabilities {
        check_id("capability", capability, MAX_NAME)?;
    }
    check_range("expected_latency_ms", backend.expected_latency_ms, 1..=MAX_LATENCY_MS)?;
    backend.capabilities.sort_unstable();
    backend.capabilities.dedup();
    backend.revision = 0;
    Ok(backend)
}

/// Refuses a request to route that cannot be understood.
pub(crate) fn check_route(request: &RouteRequest) -> Result<(), Error> {
    check_id("capability", &request.capability, MAX_NAME)?;
    check_count("excluded backends", request.exclude.len(), MAX_EXCLUDED)
}
