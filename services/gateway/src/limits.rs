//! Settings: the limits of sizes, concurrency and time, and the public methods.

use std::time::Duration;

use proto::rpc::Method;

/// The limits of the gateway.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The time limit of a request, from its head to the response; for a stream, to its first message.
    pub request: Duration,
    /// The time limit of a whole stream.
    pub stream: Duration,
    /// Concurrent requests to one route, in one worker.
    pub route_concurrency: usize,
    /// The maximum size of a body in bytes.
    pub body: usize,
    /// The time limit from the first byte of a request to the end of its head.
    pub head: Duration,
    /// The time limit between two frames of a body.
    pub body_timeout: Duration,
    /// The time limit between two requests on a connection.
    pub idle: Duration,
    /// The time limit of a blocked write. A client that reads nothing for this long is disconnected.
    pub write_timeout: Duration,
    /// The interval of heartbeats in a stream without messages.
    pub heartbeat: Duration,
    /// How long idle connections stay open during a shutdown.
    pub linger: Duration,
    /// How long requests and streams may continue during a shutdown.
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
            body_timeout: Duration::from_secs(10),
            // Above the idle timeout of load balancers (60 s): if the client closes first, no request is lost.
            idle: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            heartbeat: Duration::from_secs(15),
            linger: Duration::from_secs(2),
            drain: drain_within(Duration::from_secs(25)),
        }
    }
}

impl Limits {
    /// The defaults, overridden by environment variables of the manifest: `HTTP_TIMEOUT_MS`, `HTTP_STREAM_TIMEOUT_MS`,
    /// `HTTP_ROUTE_CONCURRENCY`; and by `STOP_TIMEOUT_MS`, which natsctl sets.
    ///
    /// # Errors
    /// A sentence that names the variable.
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

/// The drain time: shorter than the stop timeout, because interrupted requests still get a response.
fn drain_within(stop_timeout: Duration) -> Duration {
    stop_timeout.saturating_sub(Duration::from_millis(1500)).max(stop_timeout / 2)
}

/// The methods that clients outside may call. They are chosen one by one: a method that nobody named is not public.
#[derive(Clone, Debug, Default)]
pub struct PublicMethods(Vec<&'static Method>);

impl PublicMethods {
    /// The methods that the environment variable `GATEWAY_METHODS` names: full protobuf names with commas between them,
    /// for example `quest.v1.Quest/Generate,quest.v1.Quest/Get`. None if it is unset or empty.
    ///
    /// # Errors
    /// A sentence that names the variable and what is no method of a contract.
    pub fn from_settings(setting: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let value = setting(METHODS).unwrap_or_default();
        let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
        let mut methods: Vec<&Method> = names.map(find_method).collect::<Result<_, _>>()?;
        methods.sort_by_key(|method| method.full_name);
        methods.dedup_by_key(|method| method.full_name);
        Ok(Self(methods))
    }

    /// The methods, ordered by their full names.
    pub fn methods(&self) -> &[&'static Method] {
        &self.0
    }
}

const METHODS: &str = "GATEWAY_METHODS";

fn find_method(name: &str) -> Result<&'static Method, String> {
    let mut methods = proto::SERVICES.iter().flat_map(|service| service.methods);
    methods.find(|method| method.full_name == name).ok_or_else(|| {
        format!("environment variable `{METHODS}` names `{name}`, which is not a method of any contract")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(value: Option<&str>) -> Result<Vec<&'static str>, String> {
        let public =
            PublicMethods::from_settings(|name| value.filter(|_| name == "GATEWAY_METHODS").map(str::to_owned))?;
        Ok(public.methods().iter().map(|method| method.full_name).collect())
    }

    #[test]
    fn only_the_named_methods_are_public() {
        assert_eq!(public(None).unwrap(), Vec::<&str>::new());
        assert_eq!(public(Some("")).unwrap(), Vec::<&str>::new());
        let expected = ["ai.llm.v1.Llm/InferStream", "quest.v1.Quest/Generate"];
        assert_eq!(public(Some("quest.v1.Quest/Generate, ai.llm.v1.Llm/InferStream")).unwrap(), expected);
        assert_eq!(public(Some("quest.v1.Quest/Generate,quest.v1.Quest/Generate,")).unwrap(), expected[1..]);
    }

    #[test]
    fn a_public_method_that_no_contract_has_is_refused() {
        for name in ["quest.v1.Quest/*", "quest.v1.Quest/generate", "quest.v1.Quest", "*", "quest.v1.Quest.Generate"] {
            let error = public(Some(&format!("quest.v1.Quest/Get,{name}"))).unwrap_err();
            let expected =
                format!("environment variable `GATEWAY_METHODS` names `{name}`, which is not a method of any contract");
            assert_eq!(error, expected);
        }
    }

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
    fn invalid_variables_are_refused() {
        for value in ["0", "-1", "30s", "99999999999"] {
            let error =
                Limits::from_settings(|name| (name == "HTTP_TIMEOUT_MS").then(|| value.to_owned())).unwrap_err();
            assert!(error.contains("`HTTP_TIMEOUT_MS`") && error.contains(value), "{error}");
        }
    }
}
