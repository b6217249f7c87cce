//! The variables of OpenTelemetry that say whether, where and how spans are exported. As its specification asks, a value
//! that cannot be used is named in the log and otherwise ignored: traces must not keep a service from starting.

use std::env::VarError;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::sampler::{Choice, Sampler};
use crate::settings::Settings;

/// Where a collector on the same machine listens.
const DEFAULT_ENDPOINT: &str = "http://localhost:4318";
/// The timeout of one request, in milliseconds.
const REQUEST_TIMEOUT_MS: u64 = 10_000;
const TRACES_PATH: &str = "/v1/traces";

/// How spans are exported.
#[derive(Clone, Debug)]
pub(crate) struct ExportSettings {
    pub(crate) collector: Collector,
    pub(crate) sampler: Sampler,
    pub(crate) batches: Batches,
    /// What the spans of this task have in common: `service.name` and so on.
    pub(crate) resource: Vec<(String, String)>,
}

/// Where spans are sent.
#[derive(Clone, Debug)]
pub(crate) struct Collector {
    pub(crate) url: Uri,
    /// Marked as sensitive: they hold keys.
    pub(crate) headers: HeaderMap,
    /// Of one request.
    pub(crate) timeout: Duration,
    /// Certificates to trust instead of the system's.
    pub(crate) certificates: Option<PathBuf>,
}

/// How many spans are sent together, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batches {
    pub(crate) queue: usize,
    pub(crate) size: usize,
    /// The longest time that a span waits for others.
    pub(crate) delay: Duration,
    /// Of one batch, its repetitions included.
    pub(crate) timeout: Duration,
}

/// Reads the variables. `None` if nothing is to be exported; and what is wrong with the variables.
pub(crate) fn read(
    variable: &dyn Fn(&str) -> Result<String, VarError>,
    task: &Settings,
) -> (Option<ExportSettings>, Vec<String>) {
    let mut variables = Variables { variable, problems: Vec::new() };
    let settings = variables.export(task);
    (settings, variables.problems)
}

struct Variables<'a> {
    variable: &'a dyn Fn(&str) -> Result<String, VarError>,
    problems: Vec<String>,
}

impl Variables<'_> {
    fn export(&mut self, task: &Settings) -> Option<ExportSettings> {
        if self.text("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return None;
        }
        let url = self.url()?;
        self.check_protocol();
        let timeout = self.of_traces("TIMEOUT", |this, name| this.number(name, REQUEST_TIMEOUT_MS));
        Some(ExportSettings {
            collector: Collector {
                url,
                headers: self.headers(),
                timeout: Duration::from_millis(timeout.unwrap_or(REQUEST_TIMEOUT_MS)),
                certificates: self.of_traces("CERTIFICATE", |this, name| this.text(name).map(PathBuf::from)),
            },
            sampler: self.sampler(),
            batches: self.batches(),
            resource: self.resource(task),
        })
    }

    /// Spans are exported if the variables say where to, or that they are.
    fn url(&mut self) -> Option<Uri> {
        let exporter = self.text("OTEL_TRACES_EXPORTER");
        match exporter.as_deref() {
            None | Some("otlp") => {}
            Some("none") => return None,
            Some(other) => {
                self.problem(
                    "OTEL_TRACES_EXPORTER",
                    &other,
                    "only `otlp` and `none` are supported; nothing is exported",
                );
                return None;
            }
        }
        let (of_traces, of_all) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
        let (name, text) = match (self.text(of_traces), self.text(of_all)) {
            (Some(url), _) => (of_traces, url),
            (None, Some(base)) => (of_all, format!("{}{TRACES_PATH}", base.trim_end_matches('/'))),
            (None, None) => (of_all, format!("{}{TRACES_PATH}", exporter.map(|_| DEFAULT_ENDPOINT)?)),
        };
        // Without the value: a URL may contain a password.
        let problem = |problem| format!("environment variable `{name}` {problem}; nothing is exported");
        parse_url(&text).map_err(|reason| self.problems.push(problem(reason))).ok()
    }

    fn check_protocol(&mut self) {
        for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            if let Some(other) = self.text(name).filter(|protocol| protocol != "http/protobuf") {
                self.problem(name, &other, "only `http/protobuf` is supported, and is used");
            }
        }
        for name in ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"] {
            if let Some(other) = self.text(name).filter(|compression| compression != "none") {
                self.problem(name, &other, "only `none` is supported, and is used");
            }
        }
    }

    fn headers(&mut self) -> HeaderMap {
        self.of_traces("HEADERS", |this, name| {
            let text = this.text(name)?;
            let mut headers = HeaderMap::new();
            for (number, (key, value)) in pairs(&text).enumerate() {
                let parsed = value.and_then(|value| Some((HeaderName::try_from(key).ok()?, HeaderValue::try_from(value).ok()?)));
                match parsed {
                    Some((key, mut value)) => {
                        value.set_sensitive(true);
                        headers.append(key, value);
                    }
                    // Without the text: it may be a key.
                    None => this.problems.push(format!(
                        "entry {} of environment variable `{name}` is not `name=value` of an HTTP header; it is ignored",
                        number + 1
                    )),
                }
            }
            Some(headers)
        })
        .unwrap_or_default()
    }

    fn sampler(&mut self) -> Sampler {
        let default = Sampler { parent_based: true, choice: Choice::All };
        let Some(name) = self.text("OTEL_TRACES_SAMPLER") else { return default };
        let ratio = match self.parsed::<f64>("OTEL_TRACES_SAMPLER_ARG") {
            Some(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
            Some(ratio) => {
                self.problem("OTEL_TRACES_SAMPLER_ARG", &ratio, "it is not between 0 and 1; 1 is used");
                1.0
            }
            None => 1.0,
        };
        Sampler::named(&name, ratio).unwrap_or_else(|| {
            self.problem(
                "OTEL_TRACES_SAMPLER",
                &name,
                "known are `always_on`, `always_off`, `traceidratio`, and these with `parentbased_` before them; `parentbased_always_on` is used",
            );
            default
        })
    }

    fn batches(&mut self) -> Batches {
        let mut number = |name, default| self.number(name, default).unwrap_or(default);
        let queue = number("OTEL_BSP_MAX_QUEUE_SIZE", 2_048);
        let size = number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512);
        let delay = Duration::from_millis(number("OTEL_BSP_SCHEDULE_DELAY", 5_000));
        let timeout = Duration::from_millis(number("OTEL_BSP_EXPORT_TIMEOUT", 30_000));
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        if size > queue {
            let problem = format!("it is above `OTEL_BSP_MAX_QUEUE_SIZE`; {queue} is used");
            self.problem("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", &size, &problem);
        }
        Batches { queue: count(queue), size: count(size.min(queue)), delay, timeout }
    }

    fn resource(&mut self, task: &Settings) -> Vec<(String, String)> {
        let own = [
            ("service.name", task.service.as_str()),
            ("service.version", &task.version),
            ("service.instance.id", &task.task),
            ("telemetry.sdk.language", "rust"),
            ("telemetry.sdk.name", "natsctl"),
            ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        ];
        let mut resource: Vec<(String, String)> = Vec::new();
        let mut set = |key: &str, value: String| match resource.iter_mut().find(|(known, _)| known == key) {
            Some((_, known)) => *known = value,
            None => resource.push((key.to_owned(), value)),
        };
        for (key, value) in own {
            set(key, value.to_owned());
        }
        let text = self.text("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        for (key, value) in pairs(&text) {
            match value {
                Some(value) if !key.is_empty() => set(key, value),
                _ => {
                    let problem =
                        format!("`{key}` in environment variable `OTEL_RESOURCE_ATTRIBUTES` is not `name=value`");
                    self.problems.push(format!("{problem}; it is ignored"));
                }
            }
        }
        if let Some(name) = self.text("OTEL_SERVICE_NAME") {
            set("service.name", name);
        }
        resource
    }

    /// The variable of traces, or else that of everything that is exported.
    fn of_traces<T>(&mut self, suffix: &str, read: impl Fn(&mut Self, &str) -> Option<T>) -> Option<T> {
        let of_traces = read(self, &format!("OTEL_EXPORTER_OTLP_TRACES_{suffix}"));
        of_traces.or_else(|| read(self, &format!("OTEL_EXPORTER_OTLP_{suffix}")))
    }

    /// A whole number above 0.
    fn number(&mut self, name: &str, default: u64) -> Option<u64> {
        let number = self.parsed::<u64>(name)?;
        if number == 0 {
            self.problem(name, &number, &format!("it must be above 0; {default} is used"));
            return Some(default);
        }
        Some(number)
    }

    fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        let parsed = text.trim().parse::<T>();
        parsed.map_err(|error| self.problem(name, &text, &format!("{error}; it is ignored"))).ok()
    }

    /// An empty variable is one that is not set.
    fn text(&mut self, name: &str) -> Option<String> {
        match (self.variable)(name) {
            Ok(text) => Some(text).filter(|text| !text.trim().is_empty()),
            Err(VarError::NotPresent) => None,
            Err(VarError::NotUnicode(_)) => {
                self.problems.push(format!("environment variable `{name}` is not UTF-8; it is ignored"));
                None
            }
        }
    }

    fn problem(&mut self, name: &str, value: &dyn Display, problem: &str) {
        self.problems.push(format!("environment variable `{name}` is `{value}`: {problem}"));
    }
}

fn parse_url(text: &str) -> Result<Uri, &'static str> {
    let url: Uri = text.parse().map_err(|_| "is not a URL like `http://127.0.0.1:4318`")?;
    match (url.scheme_str(), url.authority()) {
        (Some("http" | "https"), Some(authority)) if !authority.as_str().contains('@') => Ok(url),
        (Some("http" | "https"), Some(_)) => Err("contains a user: pass secrets in `OTEL_EXPORTER_OTLP_HEADERS`"),
        _ => Err("is not a URL like `http://127.0.0.1:4318`"),
    }
}

/// The entries of `name=value,name=value`, whose values are percent-encoded (W3C baggage). `None`: it has no valid value.
fn pairs(text: &str) -> impl Iterator<Item = (&str, Option<String>)> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(|entry| match entry.split_once('=') {
        Some((key, value)) => (key.trim(), percent_decoded(value.trim())),
        None => (entry, None),
    })
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
