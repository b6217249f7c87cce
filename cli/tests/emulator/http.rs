//! As much HTTP/1.1 as a proxy on one machine needs: whole messages, read and written by threads.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// No answer on this machine takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

impl Response {
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![("content-type".into(), content_type.into())], body: body.into() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// What a handler does with a connection after a request.
pub(crate) enum Reaction {
    Answer(Response),
    /// The connection is cut without a word.
    Cut,
}

/// A request whose body is still to be read: a handler may read a part of it and cut.
pub(crate) struct Incoming<'a> {
    pub(crate) head: Request,
    reader: &'a mut BufReader<TcpStream>,
    read: bool,
}

impl Incoming<'_> {
    pub(crate) fn whole(&mut self) -> io::Result<Request> {
        if !self.read {
            self.read = true;
            if self.head.header("expect").is_some() {
                self.reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            self.head.body = read_body(self.reader, &self.head.headers, false)?;
        }
        Ok(self.head.clone())
    }

    /// Reads no more than so many bytes of the body.
    pub(crate) fn part(&mut self, bytes: u64) -> io::Result<()> {
        self.read = true;
        io::copy(&mut self.reader.by_ref().take(bytes), &mut io::sink())?;
        Ok(())
    }
}

/// A server on a port that the system picked; stops accepting when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&mut Incoming<'_>) -> io::Result<Reaction> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let (handler, ended) = (Arc::new(handler), Arc::clone(&over));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), handler) = (stream, Arc::clone(&handler)) else { continue };
                std::thread::spawn(move || serve(stream, &*handler));
            }
        });
        Self { address, over }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

/// Answers one request after the other, until the client goes or the handler cuts.
fn serve(stream: TcpStream, handler: &dyn Fn(&mut Incoming<'_>) -> io::Result<Reaction>) {
    let _ = stream.set_nodelay(true);
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Ok(Some(head)) = read_request_head(&mut reader) {
        let last = head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let method = head.method.clone();
        let mut incoming = Incoming { head, reader: &mut reader, read: false };
        match handler(&mut incoming) {
            Ok(Reaction::Answer(response)) if incoming.read => {
                if write_response(&mut writer, &method, &response).is_err() || last {
                    break;
                }
            }
            // An answer before the request was read: nothing more can be read here.
            Ok(Reaction::Answer(response)) => {
                let _ = write_response(&mut writer, &method, &response);
                break;
            }
            Ok(Reaction::Cut) | Err(_) => break,
        }
    }
    let _ = writer.shutdown(std::net::Shutdown::Both);
}

fn read_request_head(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let Some(line) = read_line(reader)? else { return Ok(None) };
    let mut words = line.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let target = origin_form(target).to_owned();
    let headers = read_headers(reader)?;
    Ok(Some(Request { method: method.to_owned(), target, headers, body: Vec::new() }))
}

/// The path of a target: a client that knows this server as its proxy sends the whole URL.
fn origin_form(target: &str) -> &str {
    let Some(rest) = target.strip_prefix("http://") else { return target };
    rest.find('/').map_or("/", |path| &rest[path..])
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end().to_owned()))
}

fn read_headers(reader: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    while let Some(line) = read_line(reader)?.filter(|line| !line.is_empty()) {
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
    Ok(headers)
}

fn read_body(reader: &mut impl BufRead, headers: &[(String, String)], until_end: bool) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if find(headers, "transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        loop {
            let size = read_line(reader)?.unwrap_or_default();
            let size = u64::from_str_radix(size.split(';').next().unwrap_or_default(), 16).unwrap_or(0);
            reader.by_ref().take(size).read_to_end(&mut body)?;
            read_line(reader)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = find(headers, "content-length").and_then(|value| value.parse().ok()) {
        reader.by_ref().take(length).read_to_end(&mut body)?;
        if (body.len() as u64) < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    } else if until_end {
        reader.read_to_end(&mut body)?;
    }
    Ok(body)
}

fn write_response(writer: &mut impl Write, method: &str, response: &Response) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {} {}\r\n", response.status, reason(response.status));
    let length = response.header("content-length").map(str::to_owned);
    for (name, value) in &response.headers {
        if !["content-length", "connection", "transfer-encoding"].contains(&name.to_ascii_lowercase().as_str()) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    let length = length.filter(|_| method == "HEAD").unwrap_or_else(|| response.body.len().to_string());
    if response.status != 204 {
        text.push_str(&format!("content-length: {length}\r\n"));
    }
    text.push_str("\r\n");
    let mut message = text.into_bytes();
    if method != "HEAD" {
        message.extend_from_slice(&response.body);
    }
    writer.write_all(&message)?;
    writer.flush()
}

fn reason(status: u16) -> &'static str {
    match status {
        200..300 => "OK",
        300..400 => "See Other",
        400..500 => "Client Error",
        _ => "Server Error",
    }
}

/// Sends a request and reads the whole answer, on a connection of its own.
pub(crate) fn send(address: SocketAddr, request: &Request) -> io::Result<Response> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    for (name, value) in &request.headers {
        let lower = name.to_ascii_lowercase();
        if !["connection", "content-length", "transfer-encoding", "expect"].contains(&lower.as_str()) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if request.header("host").is_none() {
        text.push_str(&format!("host: {address}\r\n"));
    }
    text.push_str(&format!("connection: close\r\ncontent-length: {}\r\n\r\n", request.body.len()));
    let mut message = text.into_bytes();
    message.extend_from_slice(&request.body);
    stream.write_all(&message)?;

    let mut reader = BufReader::new(stream);
    let line = read_line(&mut reader)?.unwrap_or_default();
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status: u16 = status.ok_or_else(|| io::Error::other(format!("no HTTP status: {line:?}")))?;
    let headers = read_headers(&mut reader)?;
    let empty = request.method == "HEAD" || status == 204 || status == 304;
    let body = if empty { Vec::new() } else { read_body(&mut reader, &headers, true)? };
    Ok(Response { status, headers, body })
}
