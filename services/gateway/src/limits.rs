//! How much a client may ask for, and how long anything may take.

use std::time::Duration;

/// The bounds of the gateway.
#[derive(Clone, Debug)]
pub struct Limits {
    /// For one request, from its head to the answer; of a stream, to its first message.
    pub request: Duration,
    /// For a whole stream.
    pub stream: Duration,
    /// Requests to one route at the same time, in one worker.
    pub route_concurrency: usize,
    /// Bytes of a body.
    pub body: usize,
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// Between two pieces of a body.
    pub body_pause: Duration,
    /// Between two requests on a connection.
    pub idle: Duration,
    /// A client that takes nothing for so long is gone.
    pub write_pause: Duration,
    /// Between two heartbeats of a stream that has nothing to say.
    pub heartbeat: Duration,
    /// How long idle connections still answer when the gateway stops.
    pub linger: Duration,
    /// How long after the order to stop requests and streams may go on.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            stream: Duration::from_secs(300),
            route_concurrency: 512,
            body: 1024 * 1024,
            head: Duration::from_secs(10),
            body_pause: Duration::from_secs(10),
            // Above the 60 s after which load balancers close: who closes first risks no request if it is the other side.
            idle: Duration::from_secs(75),
            write_pause: Duration::from_secs(30),
            heartbeat: Duration::from_secs(15),
            linger: Duration::from_secs(2),
            drain: drain_within(Duration::from_secs(25)),
        }
    }
}

impl Limits {
    /// The defaults, with what the manifest's environment says otherwise: `HTTP_TIMEOUT_MS`, `HTTP_STREAM_TIMEOUT_MS`,
    /// `HTTP_ROUTE_CONCURRENCY`, and natsctl's `STOP_TIMEOUT_MS`.
    ///
    /// # Errors
    /// One sentence that names the variable.
    pub fn from_settings(setting: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let number = |name: &str| match setting(name) {
            None => Ok(None),
            Some(value) => match value.parse::<u32>() {
                Ok(number) if number > 0 => Ok(Some(number)),
                _ => Err(format!("environment variable `{name}` is `{value}`, not a whole number above 0")),
            },
        };
        let time = |name: &str, default: Duration| {
            number(name).map(|found| found.map_or(default, |milliseconds| Duration::from_millis(milliseconds.into())))
        };
        let defaults = Self::default();
        Ok(Self {
            request: time("HTTP_TIMEOUT_MS", defaults.request)?,
            stream: time("HTTP_STREAM_TIMEOUT_MS", defaults.stream)?,
            route_concurrency: number("HTTP_ROUTE_CONCURRENCY")?
                .map_or(defaults.route_concurrency, |number| number as usize),
            drain: drain_within(time("STOP_TIMEOUT_MS", Duration::from_secs(25))?),
            ..defaults
        })
    }
}

/// What is cut short at the end still needs a moment to be told.
fn drain_within(stop_timeout: Duration) -> Duration {
    stop_timeout.saturating_sub(Duration::from_millis(1500)).max(stop_timeout / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_overrides_the_defaults() {
        let setting = |name: &str| match name {
            "HTTP_TIMEOUT_MS" => Some("1500".to_owned()),
            "STOP_TIMEOUT_MS" => Some("2000".to_owned()),
            _ => None,
        };
        let limits = Limits::from_settings(setting).unwrap();
        assert_eq!(limits.request, Duration::from_millis(1500));
        assert_eq!(limits.drain, Duration::from_secs(1));
        assert_eq!(limits.route_concurrency, 512);
    }

    #[test]
    fn nonsense_in_the_environment_is_refused() {
        for nonsense in ["0", "-1", "30s", "99999999999"] {
            let error =
                Limits::from_settings(|name| (name == "HTTP_TIMEOUT_MS").then(|| nonsense.to_owned())).unwrap_err();
            assert!(error.contains("`HTTP_TIMEOUT_MS`") && error.contains(nonsense), "{error}");
        }
    }
}
