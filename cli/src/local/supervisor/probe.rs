//! Liveness and readiness probes: the smallest HTTP client that can read a status line.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::model::desired;

/// Interval of the probes of a task that has not been ready yet.
const STARTUP_INTERVAL: Duration = Duration::from_millis(50);

/// How many bytes of a response are read.
const MAX_RESPONSE: u64 = 4096;

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

/// `Err` says what happened instead of a 200, to follow the name of the endpoint in a sentence.
pub(in crate::local) async fn get(port: u16, path: &str, limit: Duration) -> Result<(), String> {
    match timeout(limit, request(port, path)).await {
        Ok(Ok(response)) => status_of(&response),
        Ok(Err(error)) => Err(format!("failed: {error}")),
        Err(_) => Err(format!("was not answered within {limit:?}")),
    }
}

async fn request(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    stream.take(MAX_RESPONSE).read_to_end(&mut response).await?;
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
    fn another_status_is_quoted_with_its_body() {
        check(
            "HTTP/1.1 503 Service Unavailable\r\n\r\nnats: down\n",
            Err("answered 503 Service Unavailable nats: down"),
        );
        check("SSH-2.0\r\n", Err("got an answer that is not HTTP"));
        check("", Err("got an answer that is not HTTP"));
    }
}
