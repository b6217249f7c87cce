//! Request/reply over NATS: the SDK with all its features, stock async-nats, and the limit of nats-server itself.
//!
//! `cargo bench -p sdk --bench request_reply [-- SECONDS ROUNDS]`. Every worker and every caller is a separate process,
//! as in the fleet. The variants alternate, and ratios are taken within a round. Payload: 256 bytes each way.
//!
//! With `--features count-allocations` it also counts allocations, and the other figures are not comparable.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::env;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use proto::ai::llm::v1::{
    InferRequest, InferResponse, InferStreamRequest, InferStreamResponse, Llm, LlmClient, LlmServer,
};
use sdk::testing::{Account, NatsServer, User};
use sdk::{ConnectionSettings, Error, Fleet, Material, Settings, Shutdown, Stream};

#[cfg(feature = "count-allocations")]
#[global_allocator]
static COUNTING: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

const PAYLOAD: usize = 256;
const CONCURRENCIES: [usize; 3] = [1, 64, 256];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    match arguments.first().map(String::as_str) {
        Some("worker") => worker(&arguments[1], connection(&arguments[2..])),
        Some("caller") => {
            caller(&arguments[1], number(&arguments[2]), number(&arguments[3]), connection(&arguments[4..]));
        }
        _ => compare(arguments.first().map_or(3, |text| number(text)), arguments.get(1).map_or(5, |text| number(text))),
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a whole number")
}

/// The connection as arguments of a child process: URL, and for TLS the folder of the certificates, user and password.
fn connection(arguments: &[String]) -> ConnectionSettings {
    let mut connection = ConnectionSettings { urls: vec![arguments[0].clone()], ..ConnectionSettings::default() };
    if let [_, authority, certificate, key, user, password] = arguments {
        let file = |path: &String| Material::File(path.into());
        connection.ca = Some(file(authority));
        connection.client_certificate = Some((file(certificate), file(key)));
        connection.user = Some((user.clone(), password.clone()));
    }
    connection
}

fn arguments(connection: &ConnectionSettings) -> Vec<String> {
    let mut arguments = connection.urls.clone();
    if let (Some(authority), Some((certificate, key)), Some((user, password))) =
        (&connection.ca, &connection.client_certificate, &connection.user)
    {
        arguments.extend([authority, certificate, key].map(|file| path(file).display().to_string()));
        arguments.extend([user.clone(), password.clone()]);
    }
    arguments
}

fn path(material: &Material) -> &PathBuf {
    material.file().expect("benchmark servers use files")
}

// ---------------------------------------------------------------------------------------------- variants

struct Echo;

impl Llm for Echo {
    async fn infer(&self, request: InferRequest) -> Result<InferResponse, Error> {
        Ok(InferResponse { text: request.prompt, ..InferResponse::default() })
    }
    async fn infer_stream(&self, _: InferStreamRequest) -> Result<Stream<InferStreamResponse>, Error> {
        Err(Error::invalid("unused"))
    }
}

/// Allocations of this process so far, and their bytes; zero if they are not counted.
fn allocated() -> [usize; 2] {
    #[cfg(feature = "count-allocations")]
    {
        let stats = COUNTING.stats();
        [stats.allocations + stats.reallocations, stats.bytes_allocated]
    }
    #[cfg(not(feature = "count-allocations"))]
    [0; 2]
}

/// The CPU time that a process has used so far, in microseconds; on Linux only.
fn cpu_time(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name of the program is in parentheses and may have spaces; user and system time are the 12th and 13th fields after it.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: f64 = fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    ticks * 10_000.0
}

/// Serves until it is killed. Prints its CPU time and what it has allocated when its standard input ends.
fn worker(variant: &str, connection: ConnectionSettings) {
    std::thread::spawn(|| {
        // Whatever ends it, the figures are asked for.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let [allocations, bytes] = allocated();
        println!("{} {allocations} {bytes}", cpu_time("self"));
    });
    match variant {
        "sdk" => current_thread().block_on(async {
            let fleet = Fleet::connect(Settings { concurrency: 1000, ..Settings::for_service("worker", connection) })
                .await
                .expect("NATS");
            let (_trigger, shutdown) = Shutdown::new();
            sdk::serve(&fleet, LlmServer(Echo), shutdown).await.expect("serving");
        }),
        "stock" => multi_thread().block_on(async {
            let client = stock(&connection).await;
            let mut requests = client.queue_subscribe("svc.ai.llm.v1.>", "workers".into()).await.expect("NATS");
            while let Some(request) = requests.next().await {
                if let Some(reply) = request.reply {
                    client.publish(reply, request.payload).await.expect("NATS");
                }
            }
        }),
        _ => raw_worker(&connection),
    }
}

/// Prints requests per second, median and 99th percentile in microseconds; then the number of all requests, and
/// the CPU time, allocations and allocated bytes of this process.
fn caller(variant: &str, concurrency: usize, seconds: usize, connection: ConnectionSettings) {
    let time = Duration::from_secs(seconds as u64);
    if variant != "raw" {
        current_thread().block_on(wait_for_worker(&connection));
    }
    let before = allocated();
    let Load { mut latencies, requests } = match variant {
        "sdk" => current_thread().block_on(async {
            let fleet = Fleet::connect(Settings::for_service("caller", connection)).await.expect("NATS");
            let client: LlmClient = fleet.client();
            let request = InferRequest { prompt: "x".repeat(PAYLOAD), ..InferRequest::default() };
            drive(concurrency, time, move || {
                let (client, request) = (client.clone(), request.clone());
                async move { client.infer(request).await.is_ok() }
            })
            .await
        }),
        "stock" => multi_thread().block_on(async {
            let client = stock(&connection).await;
            let payload = Bytes::from(vec![b'x'; PAYLOAD]);
            drive(concurrency, time, move || {
                let (client, payload) = (client.clone(), payload.clone());
                async move { client.request("svc.ai.llm.v1.infer", payload).await.is_ok() }
            })
            .await
        }),
        _ => raw_caller(&connection, concurrency, time),
    };
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    let [allocations, bytes] = [0, 1].map(|index| allocated()[index] - before[index]);
    let per_second = latencies.len() as f64 / time.as_secs_f64();
    println!("{per_second} {} {} {requests} {} {allocations} {bytes}", at(0.5), at(0.99), cpu_time("self"));
}

/// Waits with the stock client: the SDK's circuit breaker would count a worker that has not started yet as failed.
async fn wait_for_worker(connection: &ConnectionSettings) {
    let client = stock(connection).await;
    while client.request("svc.ai.llm.v1.infer", Bytes::new()).await.is_err() {}
}

async fn stock(connection: &ConnectionSettings) -> async_nats::Client {
    let mut options = async_nats::ConnectOptions::new();
    if let (Some(authority), Some((certificate, key)), Some((user, password))) =
        (&connection.ca, &connection.client_certificate, &connection.user)
    {
        // Like the SDK: the process has one TLS provider.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        options = options
            .add_root_certificates(path(authority).clone())
            .add_client_certificate(path(certificate).clone(), path(key).clone())
            .require_tls(true);
        options =
            options.user_and_password(user.clone(), password.clone()).custom_inbox_prefix(format!("_INBOX_{user}"));
    }
    options.connect(connection.urls.as_slice()).await.expect("NATS")
}

/// What a caller did.
#[derive(Default)]
struct Load {
    /// In microseconds, of the requests after a short warm-up.
    latencies: Vec<u32>,
    /// All requests.
    requests: usize,
}

/// Keeps `concurrency` requests running.
async fn drive<F: Future<Output = bool> + Send + 'static>(
    concurrency: usize,
    time: Duration,
    call: impl Fn() -> F + Clone + Send + 'static,
) -> Load {
    let warm = Instant::now() + Duration::from_millis(300);
    let end = warm + time;
    let loops: Vec<_> = (0..concurrency)
        .map(|_| {
            let call = call.clone();
            tokio::spawn(async move {
                let mut load = Load::default();
                loop {
                    let begin = Instant::now();
                    if begin >= end {
                        return load;
                    }
                    assert!(call().await, "a request failed");
                    load.requests += 1;
                    if begin >= warm {
                        load.latencies.push(u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX));
                    }
                }
            })
        })
        .collect();
    let mut all = Load::default();
    for one in loops {
        let one = one.await.expect("a caller");
        all.latencies.extend(one.latencies);
        all.requests += one.requests;
    }
    all
}

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn multi_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

// ---------------------------------------------------------------------------------------------- raw protocol

/// Implements just enough of the NATS protocol to measure the server: requests are written and replies counted in
/// batches.
struct Raw {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Raw {
    fn connect(connection: &ConnectionSettings, subject: &str) -> Self {
        let address = connection.urls[0].trim_start_matches("nats://");
        let stream = TcpStream::connect(address).expect("NATS");
        stream.set_nodelay(true).expect("a TCP socket");
        let mut raw = Self { stream, buffer: Vec::new() };
        raw.stream
            .write_all(format!("CONNECT {{\"verbose\":false,\"headers\":true}}\r\nSUB {subject} 1\r\n").as_bytes())
            .expect("NATS");
        raw
    }

    /// Reads once, calls `each` with the reply subject of every message, and returns the number of messages.
    fn read(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        let mut chunk = [0; 65_536];
        let length = self.stream.read(&mut chunk).expect("NATS");
        self.buffer.extend_from_slice(&chunk[..length]);
        let (mut at, mut count) = (0, 0);
        while let Some(end) = self.buffer[at..].windows(2).position(|pair| pair == b"\r\n") {
            let line = &self.buffer[at..at + end];
            let mut next = at + end + 2;
            if line.starts_with(b"MSG ") {
                let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
                let size: usize = std::str::from_utf8(words[words.len() - 1]).expect("a size").parse().expect("a size");
                next += size + 2;
                if self.buffer.len() < next {
                    break;
                }
                each(if words.len() == 5 { words[3] } else { &[] });
                count += 1;
            } else if line.starts_with(b"PING") {
                self.stream.write_all(b"PONG\r\n").expect("NATS");
            }
            at = next;
        }
        self.buffer.drain(..at);
        count
    }
}

fn raw_worker(connection: &ConnectionSettings) {
    let mut raw = Raw::connect(connection, "svc.ai.llm.v1.infer");
    let body = "x".repeat(PAYLOAD);
    loop {
        let mut out = Vec::new();
        raw.read(|reply| {
            out.extend_from_slice(b"PUB ");
            out.extend_from_slice(reply);
            out.extend_from_slice(format!(" {PAYLOAD}\r\n{body}\r\n").as_bytes());
        });
        raw.stream.write_all(&out).expect("NATS");
    }
}

fn raw_caller(connection: &ConnectionSettings, concurrency: usize, time: Duration) -> Load {
    let mut raw = Raw::connect(connection, "_INBOX.raw");
    let request = format!("PUB svc.ai.llm.v1.infer _INBOX.raw {PAYLOAD}\r\n{}\r\n", "x".repeat(PAYLOAD));
    let mut sent = std::collections::VecDeque::new();
    let mut load = Load::default();
    let warm = Instant::now() + Duration::from_millis(300);
    let end = warm + time;
    let mut answered = concurrency;
    while Instant::now() < end {
        let now = Instant::now();
        sent.extend(std::iter::repeat_n(now, answered));
        raw.stream.write_all(request.repeat(answered).as_bytes()).expect("NATS");
        answered = 0;
        while answered == 0 {
            answered = raw.read(|_| {});
        }
        load.requests += answered;
        for begin in sent.drain(..answered) {
            if begin >= warm {
                load.latencies.push(u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
        }
    }
    load
}

// ---------------------------------------------------------------------------------------------- comparison

struct Process(Child);

impl Process {
    /// The figures in the line that it prints.
    fn figures<const COUNT: usize>(&mut self) -> [f64; COUNT] {
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let figures: Vec<f64> = line.split_whitespace().map(|word| word.parse().expect("a figure")).collect();
        figures.try_into().expect("as many figures")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(arguments: &[String]) -> Process {
    let program = env::current_exe().expect("this program");
    Process(
        Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a process"),
    )
}

/// One round of one variant.
struct Figures {
    requests_per_second: f64,
    /// Microseconds.
    p50: f64,
    /// Microseconds.
    p99: f64,
    /// CPU time of caller, worker and server for each request, in microseconds.
    cpu: [f64; 3],
    /// Allocations and their bytes for each request.
    caller_allocations: [f64; 2],
    worker_allocations: [f64; 2],
}

impl Figures {
    fn all_cpu(&self) -> f64 {
        self.cpu.iter().sum()
    }
}

fn measure(
    variant: &str,
    concurrency: usize,
    seconds: usize,
    server: &NatsServer,
    [worker, caller]: [&ConnectionSettings; 2],
) -> Figures {
    let server = server.process_id().to_string();
    let server_before = cpu_time(&server);
    let words = |role: &[String], connection: &ConnectionSettings| [role, &arguments(connection)].concat();
    let mut worker = spawn(&words(&["worker".into(), variant.into()], worker));
    if variant == "raw" {
        // The raw caller cannot detect that no worker is subscribed yet.
        std::thread::park_timeout(Duration::from_millis(300));
    }
    let mut caller =
        spawn(&words(&["caller".into(), variant.into(), concurrency.to_string(), seconds.to_string()], caller));
    let [requests_per_second, p50, p99, requests, caller_cpu, allocations, bytes] = caller.figures();
    let caller_allocations = [allocations / requests, bytes / requests];
    drop(worker.0.stdin.take());
    let [worker_cpu, allocations, bytes] = worker.figures();
    let worker_allocations = [allocations / requests, bytes / requests];
    let cpu = [caller_cpu, worker_cpu, cpu_time(&server) - server_before].map(|time| time / requests);
    Figures { requests_per_second, p50, p99, cpu, caller_allocations, worker_allocations }
}

fn compare(seconds: usize, rounds: usize) {
    println!(
        "medians of {rounds} rounds of {seconds} s; ratios are medians of ratios within a round, and the range of the middle half;"
    );
    println!(
        "CPU time per request of caller, worker and server; allocations of caller and worker, 0 if they are not counted"
    );
    let plain = NatsServer::start();
    table("plain", &["stock", "sdk", "raw"], seconds, rounds, &plain, [&plain.connection(), &plain.connection()]);
    drop(plain);
    let secured = NatsServer::with_accounts(&[WORKER, CALLER]);
    table(
        "mutual TLS, permissions, and an account for each service",
        &["stock", "sdk"],
        seconds,
        rounds,
        &secured,
        [&secured.connection_as("worker"), &secured.connection_as("caller")],
    );
}

/// As natsctl makes the account of a service that serves: calls come from accounts of callers, with their names.
const WORKER: Account<'_> = Account {
    user: User {
        name: "worker",
        publish: &["_INBOX_caller.>", "svc.ai.llm.v1._"],
        subscribe: &[
            "svc.ai.llm.v1.> svc-worker-workers",
            "svc.ai.llm.v1.> workers",
            "_INBOX_worker.>",
            "_STREAM_worker.>",
            "$SRV.>",
        ],
    },
    exports: &["_INBOX_caller.>"],
    imports: &[
        ("caller", "svc.ai.llm.v1.infer", "svc.ai.llm.v1.infer.caller"),
        ("caller", "svc.ai.llm.v1.infer_stream", "svc.ai.llm.v1.infer_stream.caller"),
        ("caller", "_STREAM_worker.>", "_STREAM_worker.>"),
    ],
};

const CALLER: Account<'_> = Account {
    user: User {
        name: "caller",
        publish: &["svc.ai.llm.v1.infer", "svc.ai.llm.v1.infer_stream", "_STREAM_worker.>"],
        subscribe: &["_INBOX_caller.>"],
    },
    exports: &["svc.ai.llm.v1.infer", "svc.ai.llm.v1.infer_stream", "_STREAM_worker.>"],
    imports: &[("worker", "_INBOX_caller.>", "_INBOX_caller.>")],
};

fn table(
    title: &str,
    variants: &[&str],
    seconds: usize,
    rounds: usize,
    server: &NatsServer,
    connections: [&ConnectionSettings; 2],
) {
    println!(
        "\n{title}\n{:>11} {:>6} {:>12} {:>8} {:>8} {:>18} {:>18} {:>18} {:>15} {:>21}",
        "concurrency",
        "",
        "requests/s",
        "p50 µs",
        "p99 µs",
        "× requests",
        "× p99",
        "× CPU",
        "CPU µs",
        "allocations (bytes)"
    );
    for concurrency in CONCURRENCIES {
        let mut rounds_of: Vec<Vec<Figures>> = variants.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (variant, rounds) in variants.iter().zip(&mut rounds_of) {
                rounds.push(measure(variant, concurrency, seconds, server, connections));
            }
        }
        for (variant, own) in variants.iter().zip(&rounds_of) {
            let middle = |figure: &dyn Fn(&Figures) -> f64| median(own.iter().map(figure).collect());
            let ratio = |figure: &dyn Fn(&Figures) -> f64| {
                let ratios = own.iter().zip(&rounds_of[0]).map(|(own, stock)| figure(own) / figure(stock));
                spread(ratios.collect())
            };
            println!(
                "{concurrency:>11} {variant:>6} {:>12.0} {:>8.0} {:>8.0} {:>18} {:>18} {:>18} {:>5.1}{:>5.1}{:>5.1} {:>4.1} ({:>4.0}) {:>3.1} ({:>4.0})",
                middle(&|round| round.requests_per_second),
                middle(&|round| round.p50),
                middle(&|round| round.p99),
                ratio(&|round| round.requests_per_second),
                ratio(&|round| round.p99),
                ratio(&Figures::all_cpu),
                middle(&|round| round.cpu[0]),
                middle(&|round| round.cpu[1]),
                middle(&|round| round.cpu[2]),
                middle(&|round| round.caller_allocations[0]),
                middle(&|round| round.caller_allocations[1]),
                middle(&|round| round.worker_allocations[0]),
                middle(&|round| round.worker_allocations[1]),
            );
        }
    }
}

/// The median, and between which values the middle half lies.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_unstable_by(f64::total_cmp);
    let quarter = values.len() / 4;
    let (low, high) = (values[quarter], values[values.len() - 1 - quarter]);
    format!("{:.2} ({low:.2}-{high:.2})", median(values))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
