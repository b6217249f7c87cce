//! What a task is told about its caches.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::material::Material;

/// The shortest and longest lifetimes that a manifest may set.
const TTL_MS: std::ops::RangeInclusive<u64> = 30_000..=300_000;

/// One cache, as the manifest of the service declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// How long a value may be used at most.
    pub ttl: Duration,
    /// How much the values in the process may take, in bytes.
    pub max_bytes: u64,
}

/// How to connect to Redis, always with TLS.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// `REDIS_URLS`, separated by commas, for example `rediss://cache.example:6379`: nodes of the cluster that are asked
    /// for all others.
    pub urls: Vec<String>,
    /// `REDIS_CA` or `REDIS_CA_FILE`: the CA certificate of the nodes; the system's roots if absent.
    pub ca: Option<Material>,
    /// `REDIS_USERNAME` or `REDIS_USERNAME_FILE`: the user; `default` if absent.
    pub username: Option<Material>,
    /// `REDIS_PASSWORD` or `REDIS_PASSWORD_FILE`. A file is read for every connection, so a new password needs no restart.
    pub password: Option<Material>,
}

impl RedisSettings {
    /// The nodes that `REDIS_URLS` names.
    pub(crate) fn parse_urls(text: &str) -> Result<Vec<String>, String> {
        let urls: Vec<String> =
            text.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned).collect();
        // A URL could contain a misplaced password, so errors do not show it.
        for url in &urls {
            let rest = url.strip_prefix("rediss://").ok_or("`REDIS_URLS` must name nodes as `rediss://host:port`")?;
            if rest.contains('@') {
                return Err(
                    "`REDIS_URLS` must not contain credentials: set `REDIS_USERNAME` and `REDIS_PASSWORD`".to_owned()
                );
            }
        }
        Ok(urls)
    }
}

/// The caches that `SERVICE_CACHES` declares, by name: JSON such as `{"completions":{"ttl_ms":60000,"max_bytes":1048576}}`.
pub(crate) fn parse_caches(text: &str) -> Result<BTreeMap<String, CacheSettings>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Declared {
        ttl_ms: u64,
        max_bytes: u64,
    }
    let declared: BTreeMap<String, Declared> =
        serde_json::from_str(text).map_err(|error| format!("environment variable `SERVICE_CACHES`: {error}"))?;
    let one = |(name, Declared { ttl_ms, max_bytes }): (String, Declared)| {
        if !TTL_MS.contains(&ttl_ms) {
            let (least, most) = (TTL_MS.start(), TTL_MS.end());
            return Err(format!(
                "environment variable `SERVICE_CACHES`: `ttl_ms` of `{name}` must be from {least} to {most}, not {ttl_ms}"
            ));
        }
        Ok((name, CacheSettings { ttl: Duration::from_millis(ttl_ms), max_bytes }))
    };
    declared.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_caches_are_read() {
        let caches = parse_caches(r#"{"completions": {"ttl_ms": 60000, "max_bytes": 1048576}}"#).unwrap();
        let expected = CacheSettings { ttl: Duration::from_secs(60), max_bytes: 1 << 20 };
        assert_eq!(caches, BTreeMap::from([("completions".to_owned(), expected)]));
    }

    #[test]
    fn wrong_declarations_are_refused() {
        let check = |text: &str, because: &str| {
            let error = parse_caches(text).unwrap_err();
            assert!(error.contains("`SERVICE_CACHES`") && error.contains(because), "{error}");
        };
        check("no", "expected");
        check(r#"{"a": {"ttl_ms": 60000}}"#, "missing field `max_bytes`");
        check(r#"{"a": {"ttl_ms": 60000, "max_bytes": 1, "x": 2}}"#, "unknown field `x`");
        check(r#"{"a": {"ttl_ms": 29999, "max_bytes": 1}}"#, "`ttl_ms` of `a` must be from 30000 to 300000, not 29999");
    }

    #[test]
    fn redis_without_tls_or_with_credentials_in_the_url_is_refused() {
        let check = |text: &str, because: &str| {
            let error = RedisSettings::parse_urls(text).unwrap_err();
            assert!(error.contains(because) && !error.contains("secret"), "{error}");
        };
        check("redis://host:6379", "`rediss://host:port`");
        check("rediss://one:1, two:2", "`rediss://host:port`");
        check("rediss://user:secret@host:6379", "must not contain credentials");
        assert_eq!(RedisSettings::parse_urls("rediss://a:1, rediss://b:2,").unwrap(), ["rediss://a:1", "rediss://b:2"]);
    }
}
