//! The identity of this task: from environment variables, or else from the ECS task metadata endpoint.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

/// The timeout of one request to the endpoint.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the task metadata is retried before the task starts without it.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);
/// The delay between two requests.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// The longest response that is read. Task metadata is a few KiB.
const MAX_RESPONSE_BYTES: u64 = 1 << 20;

/// What a task reports about itself in discovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskIdentity {
    pub(crate) task: Option<String>,
    pub(crate) revision: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TaskMetadata {
    #[serde(rename = "TaskARN")]
    task_arn: String,
    revision: String,
}

impl TaskIdentity {
    /// Fills in what is missing from the endpoint that ECS sets in `ECS_CONTAINER_METADATA_URI_V4`.
    pub(crate) fn complete(self, endpoint: Option<&str>) -> Self {
        let Some(endpoint) = endpoint.filter(|_| self.task.is_none() || self.revision.is_none()) else {
            return self;
        };
        match query_with_retry(endpoint, Instant::now() + GIVE_UP_AFTER) {
            Ok(found) => Self { task: self.task.or(found.task), revision: self.revision.or(found.revision) },
            Err(error) => {
                tracing::warn!(%error, endpoint, "failed to read the task metadata of ECS");
                // Tasks in containers may have the same process id; in discovery their ids must differ.
                Self { task: self.task.or_else(|| Some(format!("unknown-{:08x}", fastrand::u32(..)))), ..self }
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "there is no event: the endpoint may not be there yet")]
fn query_with_retry(endpoint: &str, deadline: Instant) -> io::Result<TaskIdentity> {
    loop {
        match query(endpoint) {
            Err(_) if Instant::now() + RETRY_DELAY < deadline => thread::sleep(RETRY_DELAY),
            outcome => return outcome,
        }
    }
}

/// Uses HTTP 1.0, so that the response is not chunked and ends with the connection.
fn query(endpoint: &str) -> io::Result<TaskIdentity> {
    let unusable = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let rest = endpoint.strip_prefix("http://").ok_or_else(|| unusable("the endpoint is not an HTTP URL"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address = address.to_socket_addrs()?.next().ok_or_else(|| unusable("the endpoint has no address"))?;

    let mut connection = TcpStream::connect_timeout(&address, REQUEST_TIMEOUT)?;
    connection.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    connection.set_write_timeout(Some(REQUEST_TIMEOUT))?;
    write!(connection, "GET /{}/task HTTP/1.0\r\nhost: {host}\r\n\r\n", path.trim_end_matches('/'))?;
    let mut answer = String::new();
    connection.take(MAX_RESPONSE_BYTES).read_to_string(&mut answer)?;

    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| unusable("the response is not HTTP"))?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        return Err(unusable(&format!("the response has status {status}")));
    }
    let metadata: TaskMetadata = serde_json::from_str(body)?;
    let task = metadata.task_arn.rsplit('/').next().map(str::to_owned);
    Ok(TaskIdentity { task, revision: Some(metadata.revision) })
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;
    use std::net::TcpListener;

    use super::*;

    /// A server that sends these responses, one for each connection, and returns the request lines that it received.
    fn answering(answers: Vec<String>) -> (String, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v4/abc", listener.local_addr().unwrap());
        let requests = thread::spawn(move || {
            let answer = |answer: String| {
                let (mut connection, _) = listener.accept().unwrap();
                let mut lines = io::BufReader::new(connection.try_clone().unwrap()).lines();
                let request_line = lines.next().unwrap().unwrap();
                // A socket with unread bytes would be reset.
                while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                connection.write_all(answer.as_bytes()).unwrap();
                request_line
            };
            answers.into_iter().map(answer).collect()
        });
        (endpoint, requests)
    }

    fn metadata() -> String {
        let body = r#"{"Cluster":"c","TaskARN":"arn:aws:ecs:us-east-1:1:task/c/0123abcd","Family":"f","Revision":"7"}"#;
        format!("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{body}")
    }

    fn is(task: &str, revision: &str) -> TaskIdentity {
        TaskIdentity { task: Some(task.to_owned()), revision: Some(revision.to_owned()) }
    }

    #[test]
    fn a_task_on_ecs_reads_its_identity_from_the_endpoint() {
        let (endpoint, requests) = answering(vec![metadata()]);
        assert_eq!(TaskIdentity::default().complete(Some(&endpoint)), is("0123abcd", "7"));
        assert_eq!(requests.join().unwrap(), ["GET /v4/abc/task HTTP/1.0"]);
    }

    #[test]
    fn failed_requests_are_retried() {
        let (endpoint, requests) =
            answering(vec!["HTTP/1.0 500 no\r\n\r\n".to_owned(), "nonsense".to_owned(), metadata()]);
        assert_eq!(TaskIdentity::default().complete(Some(&endpoint)), is("0123abcd", "7"));
        assert_eq!(requests.join().unwrap().len(), 3);
    }

    #[test]
    fn variables_take_precedence() {
        assert_eq!(is("mine", "3").complete(Some("http://127.0.0.1:1/nobody")), is("mine", "3"));
        assert_eq!(TaskIdentity::default().complete(None), TaskIdentity::default());
        let (endpoint, _requests) = answering(vec![metadata()]);
        let from_variables = TaskIdentity { revision: Some("3".to_owned()), ..TaskIdentity::default() };
        assert_eq!(from_variables.complete(Some(&endpoint)), is("0123abcd", "3"));
    }

    #[test]
    fn an_unreachable_endpoint_is_an_error() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let endpoint = format!("http://{closed}/v4/abc");
        assert!(query_with_retry(&endpoint, Instant::now()).is_err());
        assert!(query("ftp://nowhere").is_err());
    }
}
