//! An HTTP client that sends exactly the given bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fleet::DEADLINE;

pub(crate) const GENERATE: &str = "/api/quest/v1/generate";
pub(crate) const INFER_STREAM: &str = "/api/ai/llm/v1/infer_stream";

pub(crate) struct Client(BufReader<TcpStream>);

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header `{name}`: {self:?}"))
    }

    pub(crate) fn closes(&self) -> bool {
        self.headers.get("connection").is_some_and(|value| value == "close")
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(address).await.unwrap()))
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.0.get_mut().write_all(bytes.as_ref()).await
    }

    /// Closes the sending side.
    pub(crate) async fn end(&mut self) {
        self.0.get_mut().shutdown().await.unwrap();
    }

    /// Ends the connection as the system does for a process that is killed while it is being sent something.
    pub(crate) fn reset(self) {
        self.0.get_ref().set_zero_linger().unwrap();
    }

    pub(crate) async fn post(&mut self, path: &str, body: &str) -> Answer {
        self.post_with(path, "content-type: application/json\r\n", body).await
    }

    pub(crate) async fn post_with(&mut self, path: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref();
        let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\n{headers}content-length: {}\r\n\r\n", body.len());
        self.send(head).await.unwrap();
        self.send(body).await.unwrap();
        self.answer().await
    }

    pub(crate) async fn request(&mut self, method: &str, path: &str) -> Answer {
        self.send(format!("{method} {path} HTTP/1.1\r\nhost: test\r\n\r\n")).await.unwrap();
        self.answer().await
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("an answer")
    }

    /// The next response; `None` if the connection ends before it is complete.
    pub(crate) async fn try_answer(&mut self) -> Option<Answer> {
        timeout(DEADLINE, async {
            let mut answer = self.head().await?;
            if answer.headers.contains_key("transfer-encoding") {
                while let Some(chunk) = self.chunk().await? {
                    answer.body.push_str(&chunk);
                }
            } else if let Some(length) = answer.headers.get("content-length") {
                let mut body = vec![0; length.parse().unwrap()];
                self.0.read_exact(&mut body).await.ok()?;
                answer.body = String::from_utf8(body).unwrap();
            }
            Some(answer)
        })
        .await
        .expect("answers in time")
    }

    /// Status and headers, without the body.
    pub(crate) async fn head(&mut self) -> Option<Answer> {
        let status = self.line().await?;
        let status = status.split(' ').nth(1)?.parse().unwrap();
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").unwrap();
            headers.insert(name.to_owned(), value.to_owned());
        }
        Some(Answer { status, headers, body: String::new() })
    }

    /// The next chunk of a chunked body; `Some(None)` after the last chunk, `None` if the connection ends.
    pub(crate) async fn chunk(&mut self) -> Option<Option<String>> {
        let length = usize::from_str_radix(&self.line().await?, 16).unwrap();
        let mut chunk = vec![0; length + 2];
        self.0.read_exact(&mut chunk).await.ok()?;
        chunk.truncate(length);
        Some((length > 0).then(|| String::from_utf8(chunk).unwrap()))
    }

    /// Waits until the gateway closes the connection, and returns what it sent until then.
    pub(crate) async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let read = timeout(DEADLINE, self.0.read_to_end(&mut rest)).await;
        // A reset also ends the connection.
        let _ = read.expect("closes in time");
        String::from_utf8(rest).unwrap()
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(DEADLINE, self.0.read_line(&mut line)).await.expect("sends in time");
        read.ok().filter(|length| *length > 0)?;
        Some(line.trim_end().to_owned())
    }
}
