//! A client of HTTP that keeps its connection for as long as the gateway does, and never tries twice.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::fleet::PATIENCE;

pub(crate) struct Http {
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Http {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, connection: None }
    }

    /// Another client of the same gateway.
    pub(crate) fn another(&self) -> Self {
        Self::new(self.address)
    }

    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> io::Result<Answer> {
        self.post_with(path, "", body).await
    }

    /// With more headers, each of which ends its line.
    pub(crate) async fn post_with(&mut self, path: &str, headers: &str, body: &Value) -> io::Result<Answer> {
        let body = body.to_string();
        let head = format!("POST {path} HTTP/1.1\r\nhost: fleet\r\ncontent-type: application/json\r\n{headers}");
        let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        timeout(PATIENCE, self.exchange(request.as_bytes())).await.map_err(|_| ErrorKind::TimedOut)?
    }

    pub(crate) async fn get(&mut self, path: &str) -> io::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: fleet\r\n\r\n");
        timeout(PATIENCE, self.exchange(request.as_bytes())).await.map_err(|_| ErrorKind::TimedOut)?
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => BufReader::new(TcpStream::connect(self.address).await?),
        };
        connection.write_all(request).await?;
        let status = line(&mut connection).await?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(ErrorKind::InvalidData)?;
        let (mut length, mut chunked, mut keep) = (0, false, true);
        loop {
            let header = line(&mut connection).await?;
            let field = header.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value));
            match field.as_ref().map(|(name, value)| (&**name, *value)) {
                Some(("content-length", value)) => length = value.parse().map_err(|_| ErrorKind::InvalidData)?,
                Some(("transfer-encoding", _)) => chunked = true,
                Some(("connection", "close")) => keep = false,
                Some(_) => {}
                None => break,
            }
        }
        let mut body = Vec::new();
        if chunked {
            loop {
                let size = line(&mut connection).await?;
                let size = usize::from_str_radix(&size, 16).map_err(|_| ErrorKind::InvalidData)?;
                let before = body.len();
                body.resize(before + size + 2, 0);
                connection.read_exact(&mut body[before..]).await?;
                body.truncate(before + size);
                if size == 0 {
                    break;
                }
            }
        } else {
            body.resize(length, 0);
            connection.read_exact(&mut body).await?;
        }
        self.connection = keep.then_some(connection);
        Ok(Answer { status, body: String::from_utf8(body).map_err(|_| ErrorKind::InvalidData)? })
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

async fn line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    match connection.read_line(&mut line).await? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}
