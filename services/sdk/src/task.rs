//! Who this task is: whoever starts it says so in variables, and ECS answers when it is asked.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

/// How long one question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a task tries to learn who it is before it starts all the same.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// What ECS says of a task is a few KiB.
const MOST: u64 = 1 << 20;

/// What a task reports of itself on the bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) task: Option<String>,
    pub(crate) revision: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    #[serde(rename = "TaskARN")]
    task_arn: String,
    revision: String,
}

impl Identity {
    /// Fills in what is missing, by the endpoint that ECS names in `ECS_CONTAINER_METADATA_URI_V4`.
    pub(crate) fn complete(self, endpoint: Option<&str>) -> Self {
        let Some(endpoint) = endpoint.filter(|_| self.task.is_none() || self.revision.is_none()) else {
            return self;
        };
        match ask_patiently(endpoint, Instant::now() + PATIENCE) {
            Ok(found) => Self { task: self.task.or(found.task), revision: self.revision.or(found.revision) },
            Err(error) => {
                tracing::warn!(%error, endpoint, "ECS does not say which task this is");
                // Tasks in containers have the same process id; on the bus they must differ.
                Self { task: self.task.or_else(|| Some(format!("unknown-{:08x}", fastrand::u32(..)))), ..self }
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "there is no event: the endpoint may not be there yet")]
fn ask_patiently(endpoint: &str, deadline: Instant) -> io::Result<Identity> {
    loop {
        match ask(endpoint) {
            Err(_) if Instant::now() + PAUSE < deadline => thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
}

/// Asks in HTTP 1.0, so that the answer comes in one piece and ends with the connection.
fn ask(endpoint: &str) -> io::Result<Identity> {
    let unusable = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let rest = endpoint.strip_prefix("http://").ok_or_else(|| unusable("the endpoint is not one of HTTP"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address = address.to_socket_addrs()?.next().ok_or_else(|| unusable("the endpoint has no address"))?;

    let mut connection = TcpStream::connect_timeout(&address, ASK_TIMEOUT)?;
    connection.set_read_timeout(Some(ASK_TIMEOUT))?;
    connection.set_write_timeout(Some(ASK_TIMEOUT))?;
    write!(connection, "GET /{}/task HTTP/1.0\r\nhost: {host}\r\n\r\n", path.trim_end_matches('/'))?;
    let mut answer = String::new();
    connection.take(MOST).read_to_string(&mut answer)?;

    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| unusable("the answer is not one of HTTP"))?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        return Err(unusable(&format!("the answer has status {status}")));
    }
    let described: Described = serde_json::from_str(body)?;
    let task = described.task_arn.rsplit('/').next().map(str::to_owned);
    Ok(Identity { task, revision: Some(described.revision) })
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;
    use std::net::TcpListener;

    use super::*;

    /// A server that gives these answers, one for each connection, and the lines that it was asked with.
    fn answering(answers: Vec<String>) -> (String, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v4/abc", listener.local_addr().unwrap());
        let asked = thread::spawn(move || {
            let answer = |answer: String| {
                let (mut connection, _) = listener.accept().unwrap();
                let mut lines = io::BufReader::new(connection.try_clone().unwrap()).lines();
                let question = lines.next().unwrap().unwrap();
                // A socket with unread bytes would be reset.
                while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                connection.write_all(answer.as_bytes()).unwrap();
                question
            };
            answers.into_iter().map(answer).collect()
        });
        (endpoint, asked)
    }

    fn described() -> String {
        let body = r#"{"Cluster":"c","TaskARN":"arn:aws:ecs:us-east-1:1:task/c/0123abcd","Family":"f","Revision":"7"}"#;
        format!("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{body}")
    }

    fn is(task: &str, revision: &str) -> Identity {
        Identity { task: Some(task.to_owned()), revision: Some(revision.to_owned()) }
    }

    #[test]
    fn a_task_on_ecs_learns_who_it_is() {
        let (endpoint, asked) = answering(vec![described()]);
        assert_eq!(Identity::default().complete(Some(&endpoint)), is("0123abcd", "7"));
        assert_eq!(asked.join().unwrap(), ["GET /v4/abc/task HTTP/1.0"]);
    }

    #[test]
    fn it_asks_again() {
        let (endpoint, asked) =
            answering(vec!["HTTP/1.0 500 no\r\n\r\n".to_owned(), "nonsense".to_owned(), described()]);
        assert_eq!(Identity::default().complete(Some(&endpoint)), is("0123abcd", "7"));
        assert_eq!(asked.join().unwrap().len(), 3);
    }

    #[test]
    fn what_variables_say_stands() {
        assert_eq!(is("mine", "3").complete(Some("http://127.0.0.1:1/nobody")), is("mine", "3"));
        assert_eq!(Identity::default().complete(None), Identity::default());
        let (endpoint, _asked) = answering(vec![described()]);
        let told = Identity { revision: Some("3".to_owned()), ..Identity::default() };
        assert_eq!(told.complete(Some(&endpoint)), is("0123abcd", "3"));
    }

    #[test]
    fn an_endpoint_that_does_not_answer_is_given_up() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let endpoint = format!("http://{closed}/v4/abc");
        assert!(ask_patiently(&endpoint, Instant::now()).is_err());
        assert!(ask("ftp://nowhere").is_err());
    }
}
