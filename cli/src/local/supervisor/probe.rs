//! Liveness and readiness probes: the smallest HTTP client that can read a status line.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::local::protocol::Monitor;
use crate::model::desired;

/// Interval of the probes of a task that has not been ready yet.
const STARTUP_INTERVAL: Duration = Duration::from_millis(50);

/// How many bytes of a response are read of which little matters.
const MAX_RESPONSE: u64 = 4096;
/// How many bytes of a response are read of which all matters.
const MAX_BODY: u64 = 16 << 20;

/// What the health endpoints of a task answered. An error follows the name of the endpoint in a sentence.
#[derive(Clone, Debug)]
pub(super) struct ProbeResult {
    pub(super) liveness: Result<(), String>,
    pub(super) readiness: Result<(), String>,
}

/// Probes until it is dropped: often while the task starts, then at the interval.
pub(super) async fn watch(port: u16, health: desired::Health, report: impl Fn(ProbeResult)) {
    let mut has_been_ready = false;
    loop {
        let readiness = get(port, "/readyz", health.timeout).await;
        has_been_ready |= readiness.is_ok();
        let liveness = if has_been_ready { get(port, "/livez", health.timeout).await } else { Ok(()) };
        report(ProbeResult { liveness, readiness });
        tokio::time::sleep(if has_been_ready { health.interval } else { STARTUP_INTERVAL.min(health.interval) }).await;
    }
}

/// Interval of the checks of a NATS server.
const NODE_INTERVAL: Duration = Duration::from_secs(2);

/// The same of a server that has not been healthy yet.
const NODE_STARTUP_INTERVAL: Duration = Duration::from_millis(250);

/// Why a NATS server is not healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::local) enum Unhealthy {
    /// It does not answer.
    Silent,
    /// It says so itself.
    Says(String),
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("does not answer"),
            Self::Says(reason) => f.write_str(reason),
        }
    }
}

/// Checks a NATS server until it is dropped.
pub(super) async fn watch_node(monitor: Monitor, report: impl Fn(Result<(), Unhealthy>)) {
    let mut has_been_healthy = false;
    loop {
        tokio::time::sleep(if has_been_healthy { NODE_INTERVAL } else { NODE_STARTUP_INTERVAL }).await;
        let health = healthz(&monitor, NODE_INTERVAL).await;
        has_been_healthy |= health.is_ok();
        report(health);
    }
}

/// From lame duck until the server has told its clients: it first moves what it leads, and stops its JetStream.
const NOTICE: Duration = Duration::from_millis(1_500);
/// How often a NATS server in lame duck is asked who is left.
const LEAVING_INTERVAL: Duration = Duration::from_millis(100);

/// Returns when a NATS server in lame duck has no clients left. One that does not answer is ending, or is killed in time.
pub(super) async fn until_left(monitor: &Monitor) {
    #[derive(Deserialize)]
    struct Connections {
        total: u64,
    }
    let path = format!("{}/connz?limit=1", monitor.path);
    tokio::time::sleep(NOTICE).await;
    loop {
        let answer = timeout(NODE_INTERVAL, request(monitor.port, &path)).await;
        let body = answer.ok().and_then(Result::ok).and_then(|text| Some(text.split_once("\r\n\r\n")?.1.to_owned()));
        if body.is_some_and(|body| serde_json::from_str(&body).is_ok_and(|Connections { total }| total == 0)) {
            return;
        }
        tokio::time::sleep(LEAVING_INTERVAL).await;
    }
}

/// How soon a NATS server is asked again that had no time to look at itself.
const AGAIN: Duration = Duration::from_millis(20);

/// What a NATS server says of itself and of everything that it stores. It gives itself a millisecond to look at its listeners;
/// if the machine does not run it within that millisecond, its answer names none of them and says nothing about its health.
pub(in crate::local) async fn healthz(monitor: &Monitor, limit: Duration) -> Result<(), Unhealthy> {
    let path = format!("{}/healthz", monitor.path);
    let asked = async {
        loop {
            match request(monitor.port, &path).await {
                Ok(response) if has_not_looked(&response) => tokio::time::sleep(AGAIN).await,
                Ok(response) => return health_of(&response),
                Err(_) => return Err(Unhealthy::Silent),
            }
        }
    };
    timeout(limit, asked).await.unwrap_or(Err(Unhealthy::Silent))
}

/// Whether the answer is `failed to be ready for connections after 1ms: ` without the name of a listener.
fn has_not_looked(response: &str) -> bool {
    matches!(health_of(response), Err(Unhealthy::Says(reason))
        if reason.starts_with("failed to be ready for connections") && reason.trim_end().ends_with(':'))
}

fn health_of(response: &str) -> Result<(), Unhealthy> {
    #[derive(Deserialize)]
    struct Health {
        status: String,
        #[serde(default)]
        error: Option<String>,
    }
    let (_, body) = response.split_once("\r\n\r\n").unwrap_or((response, ""));
    match serde_json::from_str(body) {
        Ok(Health { status, .. }) if status == "ok" => Ok(()),
        Ok(Health { error: Some(error), .. }) => Err(Unhealthy::Says(error)),
        Ok(Health { status, error: None }) => Err(Unhealthy::Says(status)),
        // A process that is killed while it answers.
        Err(_) if response.is_empty() => Err(Unhealthy::Silent),
        Err(_) => status_of(response).map_err(|got| Unhealthy::Says(format!("`/healthz` {got}"))),
    }
}

/// `Err` says what happened instead of a 200, to follow the name of the endpoint in a sentence.
pub(in crate::local) async fn get(port: u16, path: &str, limit: Duration) -> Result<(), String> {
    match timeout(limit, request(port, path)).await {
        Ok(Ok(response)) => status_of(&response),
        Ok(Err(error)) => Err(format!("failed: {error}")),
        Err(_) => Err(format!("was not answered within {limit:?}")),
    }
}

/// All that is answered with a 200. `Err` as of [`get`].
pub(in crate::local) async fn body(port: u16, path: &str, limit: Duration) -> Result<String, String> {
    match timeout(limit, request_up_to(port, path, MAX_BODY)).await {
        Ok(Ok(response)) => status_of(&response).and_then(|()| whole_body(&response).map(str::to_owned)),
        Ok(Err(error)) => Err(format!("failed: {error}")),
        Err(_) => Err(format!("was not answered within {limit:?}")),
    }
}

/// The body, if it is as long as the head says.
fn whole_body(response: &str) -> Result<&str, String> {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((response, ""));
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|(_, length)| length.trim().parse::<usize>().ok());
    if length == Some(body.len()) { Ok(body) } else { Err("was answered in part".to_owned()) }
}

async fn request(port: u16, path: &str) -> std::io::Result<String> {
    request_up_to(port, path, MAX_RESPONSE).await
}

async fn request_up_to(port: u16, path: &str, most: u64) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    stream.take(most).read_to_end(&mut response).await?;
    Ok(String::from_utf8_lossy(&response).into_owned())
}

fn status_of(response: &str) -> Result<(), String> {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((response, ""));
    let status = head.lines().next().and_then(|line| line.strip_prefix("HTTP/1.")?.split_once(' '));
    match status.map(|(_, status)| status) {
        Some(status) if status.starts_with("200") => Ok(()),
        Some(status) => Err(format!("answered {status} {}", body.trim()).trim_end().to_owned()),
        None => Err("got an answer that is not HTTP".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(response: &str, expected: Result<(), &str>) {
        assert_eq!(status_of(response), expected.map_err(str::to_owned));
    }

    #[test]
    fn only_200_is_healthy() {
        check("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Ok(()));
        check("HTTP/1.0 200\r\n\r\n", Ok(()));
        check("HTTP/1.1 204 No Content\r\n\r\n", Err("answered 204 No Content"));
    }

    #[test]
    fn a_body_that_is_cut_off_is_none() {
        let check = |response: &str, expected: Result<&str, &str>| {
            assert_eq!(whole_body(response), expected.map_err(str::to_owned), "{response}");
        };
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na 1", Ok("a 1"));
        check("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\na 1", Err("was answered in part"));
        check("HTTP/1.1 200 OK\r\n\r\na 1", Err("was answered in part"));
    }

    #[test]
    fn a_server_says_what_is_wrong_with_it() {
        let check = |response: &str, expected| assert_eq!(health_of(response), expected, "{response}");
        let says = |text: &str| Err(Unhealthy::Says(text.to_owned()));
        check("HTTP/1.1 200 OK\r\n\r\n{\"status\":\"ok\"}", Ok(()));
        check(
            "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"status\":\"unavailable\",\"error\":\"JetStream not enabled\"}",
            says("JetStream not enabled"),
        );
        check("HTTP/1.1 500 No\r\n\r\n{\"status\":\"error\"}", says("error"));
        check("HTTP/1.1 404 Not Found\r\n\r\nnope", says("`/healthz` answered 404 Not Found nope"));
        check("", Err(Unhealthy::Silent));
    }

    #[test]
    fn an_answer_that_names_no_listener_is_none() {
        let check = |error: &str, expected| {
            let response =
                format!("HTTP/1.1 503 Service Unavailable\r\n\r\n{{\"status\":\"unavailable\",\"error\":\"{error}\"}}");
            assert_eq!(has_not_looked(&response), expected, "{error}");
        };
        check("failed to be ready for connections after 1ms: ", true);
        check("failed to be ready for connections after 1ms: server", false);
        check("failed to be ready for connections after 1ms: leafnode, websocket, server", false);
        check("JetStream has not established contact with a meta leader", false);
    }

    #[tokio::test]
    async fn a_server_that_had_no_time_to_look_is_asked_again() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let monitor = Monitor { port: listener.local_addr().unwrap().port(), path: "/secret".to_owned() };
        let unlucky = r#"{"status":"unavailable","error":"failed to be ready for connections after 1ms: "}"#;
        let server = async {
            for body in [unlucky, unlucky, r#"{"status":"ok"}"#] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 512];
                let length = stream.read(&mut request).await.unwrap();
                assert!(request[..length].starts_with(b"GET /secret/healthz "));
                stream.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{body}").as_bytes()).await.unwrap();
            }
        };
        let (health, ()) = tokio::join!(healthz(&monitor, Duration::from_secs(10)), server);
        assert_eq!(health, Ok(()));
    }

    #[test]
    fn another_status_is_quoted_with_its_body() {
        check(
            "HTTP/1.1 503 Service Unavailable\r\n\r\nnats: down\n",
            Err("answered 503 Service Unavailable nats: down"),
        );
        check("SSH-2.0\r\n", Err("got an answer that is not HTTP"));
        check("", Err("got an answer that is not HTTP"));
    }
}
