//! What the variables of OpenTelemetry mean, and what is said of those that cannot be used.

use super::*;
use crate::settings::ConnectionSettings;

fn read(set: &[(&str, &str)]) -> (Option<ExportSettings>, Vec<String>) {
    let task = Settings::for_service("quest-system", ConnectionSettings::default());
    super::read(
        &|name| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned()).ok_or(VarError::NotPresent)
        },
        &task,
    )
}

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

#[track_caller]
fn exported(set: &[(&str, &str)]) -> ExportSettings {
    let (settings, problems) = read(set);
    assert_eq!(problems, Vec::<String>::new());
    settings.expect("it exports")
}

#[test]
fn nothing_is_exported_unless_the_variables_say_so() {
    #[track_caller]
    fn check(set: &[(&str, &str)], url: Option<&str>) {
        let (settings, problems) = read(set);
        assert_eq!(settings.map(|settings| settings.collector.url.to_string()).as_deref(), url, "{set:?}");
        assert_eq!(problems, Vec::<String>::new(), "{set:?}");
    }
    let (of_all, of_traces) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    check(&[], None);
    check(&[(of_all, "")], None);
    check(&[("OTEL_TRACES_EXPORTER", "otlp")], Some("http://localhost:4318/v1/traces"));
    check(&[(of_all, "http://c:4318")], Some("http://c:4318/v1/traces"));
    check(&[(of_all, "https://c/otlp/")], Some("https://c/otlp/v1/traces"));
    check(&[(of_all, "http://c:4318"), (of_traces, "https://t/x")], Some("https://t/x"));
    check(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")], None);
    check(&[ENDPOINT, ("OTEL_SDK_DISABLED", "no")], Some("http://127.0.0.1:4318/v1/traces"));
    check(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")], None);
}

#[test]
fn the_defaults_are_those_of_the_specification() {
    let settings = exported(&[ENDPOINT]);
    assert_eq!(settings.sampler, Sampler { parent_based: true, choice: Choice::All });
    let (delay, timeout) = (Duration::from_secs(5), Duration::from_secs(30));
    assert_eq!(settings.batches, Batches { queue: 2_048, size: 512, delay, timeout });
    assert_eq!(settings.collector.timeout, Duration::from_secs(10));
    assert_eq!(settings.resource[0], ("service.name".to_owned(), "quest-system".to_owned()));
}

#[test]
fn headers_and_resources_are_lists_of_percent_encoded_values() {
    let settings = exported(&[
        ENDPOINT,
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b%3D , x-team = games"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=production,service.name=other,note=a%2Cb"),
        ("OTEL_SERVICE_NAME", "quests"),
    ]);
    let header = |name: &str| settings.collector.headers.get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!((header("api-key"), header("x-team")), ("a b=".to_owned(), "games".to_owned()));
    assert!(!format!("{settings:?}").contains("a b="), "headers are secrets");
    let resource = |name: &str| settings.resource.iter().find(|(key, _)| key == name).unwrap().1.as_str();
    assert_eq!(resource("service.name"), "quests");
    assert_eq!(resource("deployment.environment.name"), "production");
    assert_eq!(resource("note"), "a,b");
}

#[test]
fn what_is_of_traces_goes_first() {
    let settings = exported(&[
        ENDPOINT,
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "7"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "9"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/all.pem"),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/traces.pem"),
    ]);
    assert_eq!(settings.collector.timeout, Duration::from_millis(9));
    assert_eq!(settings.collector.headers.len(), 1);
    assert_eq!(settings.collector.certificates, Some(PathBuf::from("/traces.pem")));
}

#[test]
fn a_value_that_cannot_be_used_is_named_and_ignored() {
    #[track_caller]
    fn check(name: &str, value: &str, problem: &str) {
        let (settings, problems) = read(&[ENDPOINT, (name, value), ("OTEL_TRACES_SAMPLER_ARG", "0.5")]);
        assert_eq!(problems, [problem]);
        let expected = exported(&[ENDPOINT]);
        let settings = settings.expect("it exports all the same");
        assert_eq!((settings.batches, settings.sampler), (expected.batches, expected.sampler), "{name}");
        assert_eq!(settings.collector.timeout, expected.collector.timeout, "{name}");
    }
    check(
        "OTEL_BSP_SCHEDULE_DELAY",
        "5s",
        "environment variable `OTEL_BSP_SCHEDULE_DELAY` is `5s`: invalid digit found in string; it is ignored",
    );
    check(
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "0",
        "environment variable `OTEL_BSP_MAX_QUEUE_SIZE` is `0`: it must be above 0; 2048 is used",
    );
    check(
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "-1",
        "environment variable `OTEL_EXPORTER_OTLP_TIMEOUT` is `-1`: invalid digit found in string; it is ignored",
    );
    check(
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "grpc",
        "environment variable `OTEL_EXPORTER_OTLP_PROTOCOL` is `grpc`: only `http/protobuf` is supported, and is used",
    );
    check(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "secret",
        "entry 1 of environment variable `OTEL_EXPORTER_OTLP_HEADERS` is not `name=value` of an HTTP header; it is ignored",
    );
    check(
        "OTEL_RESOURCE_ATTRIBUTES",
        "a=%zz",
        "`a` in environment variable `OTEL_RESOURCE_ATTRIBUTES` is not `name=value`; it is ignored",
    );
    let (settings, problems) =
        read(&[ENDPOINT, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")]);
    assert_eq!(settings.unwrap().sampler, Sampler { parent_based: false, choice: Choice::Ratio(1.0) });
    assert_eq!(
        problems,
        ["environment variable `OTEL_TRACES_SAMPLER_ARG` is `2`: it is not between 0 and 1; 1 is used"]
    );
    let (_, problems) = read(&[ENDPOINT, ("OTEL_TRACES_SAMPLER", "sometimes")]);
    assert!(
        problems[0].starts_with("environment variable `OTEL_TRACES_SAMPLER` is `sometimes`: known are `always_on`")
    );
}

#[test]
fn an_endpoint_that_is_no_url_exports_nothing_and_is_not_shown() {
    #[track_caller]
    fn check(endpoint: &str, problem: &str) {
        let (settings, problems) = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)]);
        assert!(settings.is_none(), "{endpoint}");
        assert_eq!(
            problems,
            [format!("environment variable `OTEL_EXPORTER_OTLP_ENDPOINT` {problem}; nothing is exported")]
        );
    }
    check("collector:4318", "is not a URL like `http://127.0.0.1:4318`");
    check("grpc://collector:4317", "is not a URL like `http://127.0.0.1:4318`");
    check("http://a b", "is not a URL like `http://127.0.0.1:4318`");
    check("https://user:secret@c", "contains a user: pass secrets in `OTEL_EXPORTER_OTLP_HEADERS`");
    let (settings, problems) = read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "console")]);
    assert!(settings.is_none() && problems[0].contains("only `otlp` and `none` are supported"), "{problems:?}");
}
