//! The configuration file of one nats-server. Equal values give equal text, because a node is restarted when the digest
//! of its file without the accounts has changed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::identity::{AccountToken, Identities};
use super::pki::Tls;

/// Everything that is configured of a server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Name of the server; it must never change for a store directory.
    pub name: String,
    /// Where clients connect.
    pub client: SocketAddr,
    /// Where its health and metrics are served, without TLS.
    pub monitor: SocketAddr,
    /// What the paths of health and metrics begin with, for example `/metrics-of-nats`. A path that cannot be guessed keeps
    /// `/connz?auth=1`, which shows the JWTs of users, from other users of the machine.
    pub monitor_path: Option<String>,
    /// The certificate that it presents to clients, and the authority that signs theirs.
    pub tls: Tls,
    /// Digest of its certificates, so that a renewed one is a change: a server reads them when it starts.
    pub certificates: String,
    /// Its peers; a single server has none.
    pub cluster: Option<ClusterConfig>,
    /// What it stores.
    pub store: JetStreamConfig,
    /// Largest message in bytes.
    pub max_payload: u64,
    /// Whose JWTs it trusts.
    pub trust: Trust,
    /// How long it spreads the disconnection of its clients over in lame duck mode; at least 30 s.
    pub lame_duck: Duration,
}

/// A server's place in its cluster.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Name of the cluster.
    pub name: String,
    /// Where other servers connect.
    pub listen: SocketAddr,
    /// `host:port` of the other servers.
    pub peers: Vec<String>,
    /// The certificate that it presents to other servers, and the authority that signs theirs.
    pub tls: Tls,
}

/// JetStream's share of the machine.
#[derive(Clone, Debug)]
pub struct JetStreamConfig {
    /// Where streams are kept.
    pub directory: PathBuf,
    /// Most bytes on disk.
    pub max_file: u64,
    /// Most bytes in memory.
    pub max_memory: u64,
}

/// The operator and the accounts whose users may connect.
#[derive(Clone, Debug)]
pub struct Trust {
    /// JWT of the operator.
    pub operator: String,
    /// The account in which servers answer questions about themselves.
    pub system: AccountToken,
    /// The other accounts.
    pub accounts: Vec<AccountToken>,
}

impl From<&Identities> for Trust {
    fn from(identities: &Identities) -> Self {
        Self {
            operator: identities.operator.clone(),
            system: identities.system.clone(),
            accounts: identities.accounts.values().cloned().collect(),
        }
    }
}

impl ServerConfig {
    /// SHA-256 of all that takes a restart, in hexadecimal: of everything but the accounts.
    pub fn digest(&self) -> String {
        let trust = Trust { accounts: Vec::new(), ..self.trust.clone() };
        data_encoding::HEXLOWER.encode(&Sha256::digest(Self { trust, ..self.clone() }.render()))
    }

    /// The text of the file.
    pub fn render(&self) -> String {
        let mut text = self.without_accounts();
        text.accounts(&self.trust);
        text.done
    }

    /// The same as two files: the configuration, which logs to a file and includes `accounts` from its own folder, and the
    /// accounts, which are large, the same on every server, and change more often.
    pub fn render_parts(&self, log: &LogFile, accounts: &str) -> Parts {
        let mut text = self.without_accounts();
        text.path("log_file", &log.path);
        text.value("logfile_size_limit", log.max_size);
        text.value("logfile_max_num", log.files);
        text.line(format_args!("include {}", quoted(accounts.as_bytes())));
        let mut preload = Text::default();
        preload.comment("Written by natsctl; changes are overwritten.");
        preload.accounts(&self.trust);
        Parts { config: text.done, accounts: preload.done }
    }

    fn without_accounts(&self) -> Text {
        let mut text = Text::default();
        text.comment("Written by natsctl; changes are overwritten.");
        text.comment(&format!("certificates: {}", self.certificates));
        text.string("server_name", &self.name);
        text.string("listen", &self.client.to_string());
        text.string("http", &self.monitor.to_string());
        if let Some(path) = &self.monitor_path {
            text.string("http_base_path", path);
        }
        text.value("max_payload", self.max_payload);
        // A user's JWT is one line of the protocol, and that of the gateway names every subject of the fleet.
        text.value("max_control_line", 64 * 1024);
        text.string("ping_interval", "20s");
        text.value("ping_max", 3);
        text.string("write_deadline", "10s");
        text.string("lame_duck_duration", &format!("{}s", self.lame_duck.as_secs()));
        // Longer than the SDK takes to move, so that no client is cut off that is about to leave.
        text.string("lame_duck_grace_period", "10s");
        text.tls(&self.tls);
        text.block("jetstream", |text| {
            text.path("store_dir", &self.store.directory);
            text.value("max_file_store", self.store.max_file);
            text.value("max_memory_store", self.store.max_memory);
        });
        if let Some(cluster) = &self.cluster {
            text.cluster(cluster);
        }
        text.trust(&self.trust);
        text
    }
}

/// A log that a server writes and rotates by itself.
#[derive(Clone, Debug)]
pub struct LogFile {
    /// Where it is; older ones are beside it, with the time in their names.
    pub path: PathBuf,
    /// Bytes after which the next one begins.
    pub max_size: u64,
    /// Most files that are kept.
    pub files: u32,
}

/// A configuration in two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// What is read first.
    pub config: String,
    /// What it includes.
    pub accounts: String,
}

/// The file so far, in the format of nats-server.
#[derive(Default)]
struct Text {
    done: String,
    depth: usize,
}

impl Text {
    fn cluster(&mut self, cluster: &ClusterConfig) {
        self.block("cluster", |text| {
            text.string("name", &cluster.name);
            text.string("listen", &cluster.listen.to_string());
            // Clients use the addresses that they are configured with, not those that servers advertise.
            text.value("no_advertise", true);
            text.tls(&cluster.tls);
            text.list("routes", cluster.peers.iter().map(|peer| format!("tls://{peer}")));
        });
    }

    fn trust(&mut self, trust: &Trust) {
        self.string("operator", &trust.operator);
        self.string("system_account", &trust.system.id);
        self.value("resolver", "MEMORY");
    }

    fn accounts(&mut self, trust: &Trust) {
        let accounts = trust.accounts.iter().chain([&trust.system]);
        let accounts: BTreeMap<&str, &str> = accounts.map(|account| (&*account.id, &*account.jwt)).collect();
        self.block("resolver_preload", |text| {
            for (id, jwt) in accounts {
                text.string(id, jwt);
            }
        });
    }

    fn tls(&mut self, tls: &Tls) {
        self.block("tls", |text| {
            text.path("ca_file", &tls.authority);
            text.path("cert_file", &tls.certificate);
            text.path("key_file", &tls.key);
            text.value("verify", true);
            text.value("timeout", 5);
        });
    }

    fn block(&mut self, name: &str, contents: impl FnOnce(&mut Self)) {
        self.line(format_args!("{name} {{"));
        self.depth += 1;
        contents(self);
        self.depth -= 1;
        self.line(format_args!("}}"));
    }

    fn list(&mut self, name: &str, values: impl Iterator<Item = String>) {
        self.line(format_args!("{name}: ["));
        self.depth += 1;
        for value in values {
            self.line(format_args!("{}", quoted(value.as_bytes())));
        }
        self.depth -= 1;
        self.line(format_args!("]"));
    }

    fn path(&mut self, name: &str, path: &Path) {
        self.value(name, quoted(path.as_os_str().as_bytes()));
    }

    fn string(&mut self, name: &str, value: &str) {
        self.value(name, quoted(value.as_bytes()));
    }

    fn value(&mut self, name: &str, value: impl std::fmt::Display) {
        self.line(format_args!("{name}: {value}"));
    }

    fn comment(&mut self, text: &str) {
        for line in text.lines() {
            self.line(format_args!("# {line}"));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let indent = 2 * self.depth;
        // Writing to a `String` cannot fail.
        let _ = writeln!(self.done, "{:indent$}{line}", "");
    }
}

/// A string of the configuration language, which stands for exactly these bytes: what is not printable is escaped, also a byte
/// that is no UTF-8, as a path may have one.
fn quoted(value: &[u8]) -> String {
    let mut quoted = String::from('"');
    let escape = |text: &mut String, bytes: &[u8]| {
        for byte in bytes {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "\\x{byte:02X}");
        }
    };
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => quoted.push_str("\\\""),
                '\\' => quoted.push_str("\\\\"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                control if control.is_control() => escape(&mut quoted, control.encode_utf8(&mut [0; 4]).as_bytes()),
                other => quoted.push(other),
            }
        }
        escape(&mut quoted, chunk.invalid());
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(cluster: bool) -> ServerConfig {
        let tls = |folder: &str| Tls {
            authority: format!("{folder}/ca.crt").into(),
            certificate: format!("{folder}/nats-1.crt").into(),
            key: format!("{folder}/nats-1.key").into(),
        };
        let account = |id: &str| AccountToken { id: id.to_owned(), jwt: format!("jwt-{id}") };
        ServerConfig {
            name: "nats-1".to_owned(),
            client: ([127, 0, 0, 1], 4222).into(),
            monitor: ([127, 0, 0, 1], 8222).into(),
            monitor_path: None,
            tls: tls("servers"),
            certificates: "0123".to_owned(),
            cluster: cluster.then(|| ClusterConfig {
                name: "local".to_owned(),
                listen: ([127, 0, 0, 1], 6222).into(),
                peers: vec!["127.0.0.1:6223".to_owned(), "127.0.0.1:6224".to_owned()],
                tls: tls("routes"),
            }),
            store: JetStreamConfig { directory: "jetstream/nats-1".into(), max_file: 1 << 30, max_memory: 1 << 28 },
            max_payload: 1 << 20,
            trust: Trust { operator: "jwt-O".to_owned(), system: account("AS"), accounts: vec![account("AF")] },
            lame_duck: Duration::from_secs(30),
        }
    }

    #[test]
    fn a_server_of_a_cluster_is_told_everything() {
        snapbox::assert_data_eq!(
            config(true).render(),
            snapbox::str![[r##"
# Written by natsctl; changes are overwritten.
# certificates: 0123
server_name: "nats-1"
listen: "127.0.0.1:4222"
http: "127.0.0.1:8222"
max_payload: 1048576
max_control_line: 65536
ping_interval: "20s"
ping_max: 3
write_deadline: "10s"
lame_duck_duration: "30s"
lame_duck_grace_period: "10s"
tls {
  ca_file: "servers/ca.crt"
  cert_file: "servers/nats-1.crt"
  key_file: "servers/nats-1.key"
  verify: true
  timeout: 5
}
jetstream {
  store_dir: "jetstream/nats-1"
  max_file_store: 1073741824
  max_memory_store: 268435456
}
cluster {
  name: "local"
  listen: "127.0.0.1:6222"
  no_advertise: true
  tls {
    ca_file: "routes/ca.crt"
    cert_file: "routes/nats-1.crt"
    key_file: "routes/nats-1.key"
    verify: true
    timeout: 5
  }
  routes: [
    "tls://127.0.0.1:6223"
    "tls://127.0.0.1:6224"
  ]
}
operator: "jwt-O"
system_account: "AS"
resolver: MEMORY
resolver_preload {
  AF: "jwt-AF"
  AS: "jwt-AS"
}

"##]]
        );
    }

    #[test]
    fn any_path_can_be_said() {
        assert_eq!(quoted(br#"C:\a "b""#), r#""C:\\a \"b\"""#);
        assert_eq!(quoted("a\n\r\tb\u{1b}\u{9b}ä".as_bytes()), r#""a\n\r\tb\x1B\xC2\x9Bä""#);
        assert_eq!(quoted(b"a\xffb"), r#""a\xFFb""#);
    }

    proptest::proptest! {
        #[test]
        fn what_is_quoted_is_read_as_the_same_bytes(value in proptest::collection::vec(1_u8.., 0..40)) {
            proptest::prop_assert_eq!(unquoted(&quoted(&value)), value);
        }
    }

    /// As the lexer of nats-server reads a string in double quotes (`conf/lex.go`).
    fn unquoted(text: &str) -> Vec<u8> {
        let mut rest = text.as_bytes().iter().copied().skip(1);
        let mut value = Vec::new();
        while let Some(byte) = rest.next() {
            match byte {
                b'"' => break,
                b'\\' => value.push(match rest.next().unwrap() {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'x' => {
                        let digits = [rest.next().unwrap(), rest.next().unwrap()];
                        u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                    }
                    escaped => {
                        assert!(b"\\\"".contains(&escaped), "no escape: {escaped}");
                        escaped
                    }
                }),
                other => value.push(other),
            }
        }
        assert_eq!(rest.next(), None, "the string ends early");
        value
    }

    #[test]
    fn a_single_server_has_no_routes() {
        assert!(!config(false).render().contains("cluster"));
    }

    #[test]
    fn a_renewed_certificate_is_a_change() {
        let renewed = ServerConfig { certificates: "4567".to_owned(), ..config(true) };
        assert_ne!(renewed.digest(), config(true).digest());
        assert_eq!(config(true).digest(), config(true).digest());
    }

    #[test]
    fn other_accounts_take_no_restart() {
        let mut other = config(true);
        other.trust.accounts.clear();
        assert_ne!(other.render(), config(true).render());
        assert_eq!(other.digest(), config(true).digest());
    }
}
