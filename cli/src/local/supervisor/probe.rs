//! Asks a task how it is: the smallest HTTP client that can read a status line.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::service::Health;
use crate::model::desired;

/// Between two checks of a task that has not been ready yet.
const EAGER: Duration = Duration::from_millis(50);

/// No more of an answer is read.
const LONGEST_ANSWER: u64 = 4096;

/// Checks until it is dropped: often while the task starts, then at the interval.
pub(super) async fn watch(port: u16, health: desired::Health, report: impl Fn(Health)) {
    let mut has_been_ready = false;
    loop {
        let ready = get(port, "/readyz", health.timeout).await;
        has_been_ready |= ready.is_ok();
        let live = if has_been_ready { get(port, "/livez", health.timeout).await } else { Ok(()) };
        report(Health { live, ready });
        tokio::time::sleep(if has_been_ready { health.interval } else { EAGER.min(health.interval) }).await;
    }
}

/// `Err` says what happened instead of a 200, to follow the name of the check.
pub(in crate::local) async fn get(port: u16, path: &str, limit: Duration) -> Result<(), String> {
    match timeout(limit, answer(port, path)).await {
        Ok(Ok(answer)) => judge(&answer),
        Ok(Err(error)) => Err(format!("failed: {error}")),
        Err(_) => Err(format!("was not answered within {limit:?}")),
    }
}

async fn answer(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn judge(answer: &str) -> Result<(), String> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
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

    fn check(answer: &str, expected: Result<(), &str>) {
        assert_eq!(judge(answer), expected.map_err(str::to_owned));
    }

    #[test]
    fn only_200_is_healthy() {
        check("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Ok(()));
        check("HTTP/1.0 200\r\n\r\n", Ok(()));
        check("HTTP/1.1 204 No Content\r\n\r\n", Err("answered 204 No Content"));
    }

    #[test]
    fn a_refusal_is_quoted() {
        check(
            "HTTP/1.1 503 Service Unavailable\r\n\r\nnats: down\n",
            Err("answered 503 Service Unavailable nats: down"),
        );
        check("SSH-2.0\r\n", Err("got an answer that is not HTTP"));
        check("", Err("got an answer that is not HTTP"));
    }
}
