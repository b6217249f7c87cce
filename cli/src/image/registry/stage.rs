//! A real registry for tests, on a port that the system picks, and a proxy in front of it that fails on
//! request.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

const PATIENCE: Duration = Duration::from_secs(30);
/// `htpasswd -Bbn me secret`
const PASSWORDS: &str = "me:$2y$05$8WuisMn9AdT5q0LBjnSBQu062wSAFVkJj5z1mNc4FzvVtYpl0X64m\n";

/// Debian's `docker-registry`, or CNCF's distribution by its other name; killed when dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    _process: Child,
    _home: TempDir,
}

impl Server {
    /// A registry that everybody may push to. `None`, said on the terminal, if the machine has none.
    pub(super) async fn open() -> Option<Self> {
        Self::start("").await
    }

    /// A registry for `me`, whose password is `secret`.
    pub(super) async fn with_password() -> Option<Self> {
        Self::start("auth: {htpasswd: {realm: tests, path: HOME/passwords}}\n").await
    }

    #[allow(clippy::print_stderr, reason = "tests say what they skip")]
    async fn start(auth: &str) -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().display().to_string();
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: \
             '127.0.0.1:0'}}\n{}",
            auth.replace("HOME", &folder)
        );
        std::fs::write(home.path().join("config.yml"), config).unwrap();
        std::fs::write(home.path().join("passwords"), PASSWORDS).unwrap();
        let start = |program: &str| {
            Command::new(program)
                .arg("serve")
                .arg(home.path().join("config.yml"))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
        };
        let Ok(mut process) = start("docker-registry").or_else(|_| start("registry")) else {
            eprintln!("skipped: docker-registry is not installed (Debian: apt-get install docker-registry)");
            return None;
        };
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = async {
            while let Some(line) = log.next_line().await.unwrap() {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    return rest.split(['"', ',']).next().unwrap().parse().unwrap();
                }
            }
            panic!("the registry ended");
        };
        let address = tokio::time::timeout(PATIENCE, address).await.unwrap();
        // The log must be drained, or the registry stops at a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Some(Self { address, _process: process, _home: home })
    }
}

/// The beginning of a request.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) authorization: Option<String>,
    /// Bytes of the contents.
    pub(super) length: usize,
    /// How many there were before.
    pub(super) number: usize,
}

/// What the proxy does with a request.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Pass,
    /// To another path.
    PassTo(String),
    /// An answer of its own; the registry is not asked.
    Answer(String),
    /// The registry does what it is asked, and its answer is replaced.
    Replace(String),
    /// The registry does what it is asked, and the answer is lost.
    Lose,
    /// Of the contents, only so many bytes reach the registry.
    Cut(usize),
}

type Rule = Arc<dyn Fn(&Head) -> Act + Send + Sync>;

/// Stands between natsctl and a registry. One request per connection, so that it need not know where an answer ends.
pub(super) struct Proxy {
    pub(super) host: String,
    seen: Arc<Mutex<Vec<Head>>>,
}

impl Proxy {
    pub(super) async fn new(registry: SocketAddr, rule: impl Fn(&Head) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (seen, rule): (Arc<Mutex<Vec<Head>>>, Rule) = (Arc::default(), Arc::new(rule));
        let heads = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (heads, rule) = (Arc::clone(&heads), Arc::clone(&rule));
                // A connection that breaks is what this is for.
                tokio::spawn(async move { serve(client, registry, &heads, &*rule).await });
            }
        });
        Self { host, seen }
    }

    /// `METHOD /path` of all requests so far.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|head| format!("{} {}", head.method, head.path)).collect()
    }
}

async fn serve(
    mut client: TcpStream,
    registry: SocketAddr,
    heads: &Mutex<Vec<Head>>,
    rule: &(dyn Fn(&Head) -> Act + Send + Sync),
) -> std::io::Result<()> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if client.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    };
    let text = String::from_utf8_lossy(&read[..end]).into_owned();
    let mut words = text.split(' ');
    let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let authorization = header("authorization").map(str::to_owned);
    let length = header("content-length").map_or(0, |length| length.parse().unwrap());
    let act = {
        let mut heads = heads.lock().unwrap();
        let head = Head { method, path: path.clone(), authorization, length, number: heads.len() };
        heads.push(head.clone());
        rule(&head)
    };
    let (text, body) = match &act {
        Act::Answer(answer) => {
            // What is on its way is taken, or the client would see a broken connection instead of the answer.
            let answer = answer.clone();
            client.write_all(answer.as_bytes()).await?;
            client.shutdown().await?;
            while client.read_buf(&mut read).await? > 0 {}
            return Ok(());
        }
        Act::PassTo(other) => (text.replacen(&path, other, 1), &read[end..]),
        Act::Cut(length) => (text, &read[end..read.len().min(end + length)]),
        Act::Pass | Act::Replace(_) | Act::Lose => (text, &read[end..]),
    };
    let text = format!("{}\r\nconnection: close\r\n\r\n", text.trim_end());
    let mut upstream = TcpStream::connect(registry).await?;
    upstream.write_all(text.as_bytes()).await?;
    upstream.write_all(body).await?;
    match act {
        Act::Cut(_) => Ok(()),
        Act::Lose => drain(&mut client, &mut upstream).await,
        Act::Replace(answer) => {
            drain(&mut client, &mut upstream).await?;
            client.write_all(answer.as_bytes()).await?;
            client.shutdown().await
        }
        _ => copy_bidirectional(&mut client, &mut upstream).await.map(drop),
    }
}

/// The request reaches the registry, and the registry finishes with it; the answer goes nowhere.
async fn drain(client: &mut TcpStream, upstream: &mut TcpStream) -> std::io::Result<()> {
    let (mut answers, mut requests) = upstream.split();
    let mut answer = Vec::new();
    tokio::select! {
        _ = tokio::io::copy(client, &mut requests) => Ok(()),
        read = answers.read_to_end(&mut answer) => read.map(drop),
    }
}

/// An answer with these errors, as registries write them.
pub(super) fn refusal(status: &str, code: &str, message: &str) -> String {
    answer(status, "", &format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#))
}

/// `headers` are whole lines.
pub(super) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}", body.len())
}

/// A server that is called so, has a certificate of its own, and answers every request with its first two words; and the certificates
/// to trust.
pub(super) async fn registry_with_tls(name: &str) -> (SocketAddr, rustls::RootCertStore) {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let mut stream = BufReader::new(stream);
            let head = head(&mut stream).await;
            let said = head[0].rsplit_once(' ').map(|(said, _)| said.to_owned()).unwrap_or_default();
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{said}", said.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
            // The other side may be gone already.
            let _ = stream.shutdown().await;
        }
    });
    (address, roots)
}

/// The lines of a request before its empty one.
async fn head(stream: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        let read = stream.read_line(&mut line).await.unwrap_or(0);
        if read == 0 || line.trim_end().is_empty() {
            return lines;
        }
        lines.push(line.trim_end().to_owned());
    }
}

/// An HTTP proxy, all of whose tunnels lead to one address.
pub(super) struct TunnelProxy {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<TunnelState>>,
}

#[derive(Default)]
struct TunnelState {
    asked: Vec<String>,
    refuses: bool,
}

impl TunnelProxy {
    pub(super) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(TunnelState::default()));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let head = head(&mut stream).await;
                let refuses = {
                    let mut state = shared.lock().unwrap();
                    let is_login = |line: &&String| line.to_ascii_lowercase().starts_with("proxy-authorization:");
                    let asked = head[0].rsplit_once(' ').map(|(asked, _)| asked.to_owned()).unwrap_or_default();
                    let login = head.iter().find(is_login).map(|line| line.replacen("Proxy-A", "proxy-a", 1));
                    state.asked.extend([Some(asked), login].into_iter().flatten());
                    state.refuses
                };
                let answer = if refuses { "HTTP/1.1 403 Forbidden\r\n\r\n" } else { "HTTP/1.1 200 OK\r\n\r\n" };
                stream.write_all(answer.as_bytes()).await.unwrap();
                if refuses {
                    continue;
                }
                tokio::spawn(async move {
                    let mut target = TcpStream::connect(target).await.unwrap();
                    // Either side may end it.
                    let _ = copy_bidirectional(&mut stream, &mut target).await;
                });
            }
        });
        Self { address, state }
    }

    /// What it was asked for, with the credentials.
    pub(super) fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }

    /// From now on it makes no tunnels.
    pub(super) fn refuse(&self) {
        self.state.lock().unwrap().refuses = true;
    }
}
