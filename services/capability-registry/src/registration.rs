//! Registrations and their leases.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use proto::capability::v1::{Capability, Provider, RegisterRequest};
use sdk::{Error, Id, check_count, check_id, check_range, check_text, reason};
use semver::{Version, VersionReq};

/// Bytes of an id and of a name.
const MAX_NAME: usize = 64;
const MAX_ENDPOINT: usize = 256;
const MAX_CAPABILITIES: usize = 32;
/// Bytes of a version and of a requirement.
const MAX_VERSION: usize = 128;
const DEFAULT_LEASE_MS: u32 = 30_000;

/// The key of a provider.
pub(crate) fn key(provider_id: &str) -> Result<Id, Error> {
    Id::new("provider", provider_id, MAX_NAME)
}

/// The registration that a request asks for.
pub(crate) fn registered(request: RegisterRequest, lease_id: &str, now: SystemTime) -> Result<Provider, Error> {
    if !request.endpoint.is_empty() {
        check_text("endpoint", &request.endpoint, MAX_ENDPOINT)?;
    }
    if request.capabilities.is_empty() {
        return Err(Error::invalid("a provider needs at least one capability"));
    }
    check_count("capabilities", request.capabilities.len(), MAX_CAPABILITIES)?;
    let mut names = BTreeSet::new();
    for Capability { name, version } in &request.capabilities {
        check_name(name)?;
        parse_version(name, version)?;
        if !names.insert(name) {
            return Err(Error::invalid(format_args!("capability `{name}` is given twice")));
        }
    }
    let lease_ms = match request.lease_ms {
        0 => DEFAULT_LEASE_MS,
        lease_ms => check_range("lease_ms", lease_ms, 1_000..=3_600_000)?,
    };
    let provider = Provider {
        id: request.provider_id,
        endpoint: request.endpoint,
        capabilities: request.capabilities,
        lease_id: lease_id.to_owned(),
        lease_ms,
        ..Provider::default()
    };
    Ok(renewed(provider, now))
}

/// The registration with a lease that begins now.
pub(crate) fn renewed(mut provider: Provider, now: SystemTime) -> Provider {
    provider.expires_at = Some((now + Duration::from_millis(provider.lease_ms.into())).into());
    provider
}

/// Whether its lease lasts.
pub(crate) fn is_alive(provider: &Provider, now: SystemTime) -> bool {
    let end = provider.expires_at.and_then(|end| SystemTime::try_from(end).ok());
    end.is_some_and(|end| now < end)
}

/// The registration that this lease is of.
///
/// # Errors
/// FAILED_PRECONDITION with the reason `lease_lost` if it has ended or is another's.
pub(crate) fn of_lease(current: Option<&Provider>, lease_id: &str, now: SystemTime) -> Result<Provider, Error> {
    let current = current.filter(|provider| provider.lease_id == lease_id && is_alive(provider, now));
    current.cloned().ok_or_else(|| {
        Error::failed_precondition("the lease has ended: register again").with_detail(reason::KEY, "lease_lost")
    })
}

pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    check_id("capability name", name, MAX_NAME)
}

fn parse_version(name: &str, text: &str) -> Result<Version, Error> {
    check_text("version", text, MAX_VERSION)?;
    let refused = |error| {
        let text = text.escape_debug();
        Error::invalid(format_args!("version `{text}` of capability `{name}` is no semantic version: {error}"))
    };
    Version::parse(text).map_err(refused)
}

/// The versions that are accepted.
pub(crate) fn requirement(text: &str) -> Result<VersionReq, Error> {
    if text.is_empty() {
        return Ok(VersionReq::STAR);
    }
    check_text("requirement", text, MAX_VERSION)?;
    let refused = |error| {
        let text = text.escape_debug();
        Error::invalid(format_args!("requirement `{text}` is none: {error}; for example `^1.2` or `>=1.2, <3`"))
    };
    VersionReq::parse(text).map_err(refused)
}

/// The version in which a provider has a capability.
pub(crate) fn version_of(provider: &Provider, name: &str) -> Option<Version> {
    let capability = provider.capabilities.iter().find(|capability| capability.name == name)?;
    Version::parse(&capability.version).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn request(capabilities: &[(&str, &str)]) -> RegisterRequest {
        let capability = |&(name, version): &(&str, &str)| Capability { name: name.into(), version: version.into() };
        let capabilities = capabilities.iter().map(capability).collect();
        RegisterRequest { provider_id: "p".to_owned(), capabilities, ..RegisterRequest::default() }
    }

    #[track_caller]
    fn refused(request: RegisterRequest, because: &str) {
        let error = registered(request, "l", NOW).unwrap_err();
        assert!(error.message().contains(because), "{error}");
    }

    #[test]
    fn registrations_are_checked() {
        refused(request(&[]), "at least one capability");
        refused(request(&[("a", "1.0.0"), ("a", "2.0.0")]), "`a` is given twice");
        refused(request(&[("a", "1.0")]), "version `1.0` of capability `a` is no semantic version");
        refused(request(&[("a.b", "1.0.0")]), "capability name must be");
        refused(request(&[("a", "1.0.0"); 33]), "at most 32");
        refused(RegisterRequest { lease_ms: 999, ..request(&[("a", "1.0.0")]) }, "it must be 1000 to 3600000");
        assert!(requirement("1 2").unwrap_err().message().contains("for example `^1.2`"));
    }

    #[test]
    fn a_lease_lasts_as_long_as_it_says_unless_it_is_renewed() {
        let at = |milliseconds| NOW + Duration::from_millis(milliseconds);
        let provider = registered(request(&[("a", "1.0.0")]), "l", NOW).unwrap();
        assert!(is_alive(&provider, at(29_999)) && !is_alive(&provider, at(30_000)));
        let later = renewed(of_lease(Some(&provider), "l", at(29_000)).unwrap(), at(29_000));
        assert!(is_alive(&later, at(58_999)));
        for (lease, at) in [("l", at(30_000)), ("other", at(1))] {
            let error = of_lease(Some(&provider), lease, at).unwrap_err();
            assert_eq!(error.detail(reason::KEY), Some("lease_lost"));
        }
    }
}
