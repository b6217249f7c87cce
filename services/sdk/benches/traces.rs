//! What traces cost a request over NATS: not exported, and exported with 0, 1 and 100 % of them sampled. Processor time
//! is that of caller and worker, exporters included; it says more than requests/s where other programs run.
//!
//! `cargo bench -p sdk --bench traces [-- SECONDS ROUNDS]`. Worker, caller and collector share the machine. The variants
//! alternate, and ratios are taken within a round. Payload: 256 bytes each way, 64 requests at a time.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::env;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proto::ai::llm::v1::{
    InferRequest, InferResponse, InferStreamRequest, InferStreamResponse, Llm, LlmClient, LlmServer,
};
use sdk::testing::{NatsServer, start_tracing};
use sdk::{ConnectionSettings, Error, Fleet, Settings, Shutdown, Stream};

const PAYLOAD: usize = 256;
const CONCURRENCY: usize = 64;
/// The share of traces that is sampled; `off`: there is no exporter.
const VARIANTS: [&str; 4] = ["off", "0", "0.01", "1"];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["worker", ratio, collector, url] => run(worker(settings("worker", url, ratio, collector))),
        ["caller", ratio, collector, url, seconds] => {
            run(caller(settings("caller", url, ratio, collector), number(seconds)));
        }
        [] => compare(3, 7),
        [seconds, rounds] => compare(number(seconds), number(rounds)),
        other => panic!("`{other:?}` is not SECONDS ROUNDS"),
    }
}

fn number(text: &str) -> u64 {
    text.parse().expect("a whole number")
}

fn run(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work);
}

fn settings(name: &str, url: &str, ratio: &str, collector: &str) -> Settings {
    let connection = ConnectionSettings { urls: vec![url.to_owned()], ..ConnectionSettings::default() };
    let settings = Settings { concurrency: 1000, ..Settings::for_service(name, connection) };
    if ratio == "off" {
        // A task has several threads in any case, and memory is allocated faster where there is only one.
        std::thread::spawn(std::thread::park);
    } else {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", ratio),
        ];
        start_tracing(&settings, &variables);
    }
    settings
}

struct Echo;

impl Llm for Echo {
    async fn infer(&self, request: InferRequest) -> Result<InferResponse, Error> {
        Ok(InferResponse { text: request.prompt, ..InferResponse::default() })
    }
    async fn infer_stream(&self, _: InferStreamRequest) -> Result<Stream<InferStreamResponse>, Error> {
        Err(Error::invalid("unused"))
    }
}

async fn worker(settings: Settings) {
    let fleet = Fleet::connect(settings).await.expect("NATS");
    let (_trigger, shutdown) = Shutdown::new();
    sdk::serve(&fleet, LlmServer(Echo), shutdown).await.expect("serving");
}

/// Prints requests per second and the 99th percentile in microseconds, and stays until it is killed, so that its
/// processor time can be read.
async fn caller(settings: Settings, seconds: u64) {
    let stock = async_nats::connect(settings.connection.urls.as_slice()).await.expect("NATS");
    // The circuit breaker would count a worker that has not started yet as failed.
    while stock.request("svc.ai.llm.v1.infer", "".into()).await.is_err() {}
    let client: LlmClient = Fleet::connect(settings).await.expect("NATS").client();
    let warm = Instant::now() + Duration::from_millis(300);
    let end = warm + Duration::from_secs(seconds);
    let loops: Vec<_> = (0..CONCURRENCY)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let request = InferRequest { prompt: "x".repeat(PAYLOAD), ..InferRequest::default() };
                let mut latencies = Vec::new();
                loop {
                    let begin = Instant::now();
                    if begin >= end {
                        return latencies;
                    }
                    client.infer(request.clone()).await.expect("a response");
                    if begin >= warm {
                        latencies.push(begin.elapsed().as_micros());
                    }
                }
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for one in loops {
        latencies.extend(one.await.expect("a caller"));
    }
    latencies.sort_unstable();
    println!("{} {}", latencies.len() as f64 / seconds as f64, latencies[latencies.len() * 99 / 100]);
    std::future::pending::<()>().await;
}

/// A collector that accepts everything and looks at nothing.
fn collect() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            std::thread::spawn(move || accept_all(&connection));
        }
    });
    format!("http://{address}")
}

fn accept_all(connection: &std::net::TcpStream) {
    let mut reader = BufReader::new(connection);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = number(value.trim());
            }
            if line == "\r\n" {
                break;
            }
        }
        let _ = std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink());
        let mut writer = connection;
        if writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(arguments: &[&str]) -> Process {
    let program = env::current_exe().expect("this program");
    Process(Command::new(program).args(arguments).stdout(Stdio::piped()).spawn().expect("a process"))
}

/// The processor time of a process, in milliseconds: fields 14 and 15 of `/proc/<pid>/stat`, in hundredths of a second.
fn processor_time(process: &Process) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.0.id())).expect("a process");
    let (_, after_name) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks = after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().expect("ticks"));
    ticks.sum::<f64>() * 10.0
}

fn compare(seconds: u64, rounds: u64) {
    println!("medians of {rounds} rounds of {seconds} s; ratios are medians of ratios within a round");
    let server = NatsServer::start();
    let (url, collector) = (server.connection().urls[0].clone(), collect());
    let mut figures = VARIANTS.map(|_| Vec::new());
    for _ in 0..rounds {
        for (variant, figures) in VARIANTS.iter().zip(&mut figures) {
            let worker = spawn(&["worker", variant, &collector, &url]);
            let mut caller = spawn(&["caller", variant, &collector, &url, &seconds.to_string()]);
            let mut line = String::new();
            BufReader::new(caller.0.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
            let mut measured: Vec<f64> = line.split_whitespace().map(|word| word.parse().expect("a figure")).collect();
            // The warm-up is a part of the processor time, the same of each variant.
            let processor = processor_time(&worker) + processor_time(&caller);
            measured.push(processor * 1_000.0 / (measured[0] * (seconds as f64 + 0.3)));
            figures.push(measured);
        }
    }
    println!(
        "{:>8} {:>12} {:>8} {:>10} {:>13} {:>10}",
        "sampled", "requests/s", "p99 µs", "× off", "processor µs", "× off"
    );
    for (variant, own) in VARIANTS.iter().zip(&figures) {
        let column = |column: usize| median(own.iter().map(|round| round[column]).collect());
        let ratio =
            |column: usize| median(own.iter().zip(&figures[0]).map(|(own, off)| own[column] / off[column]).collect());
        println!(
            "{variant:>8} {:>12.0} {:>8.0} {:>10.3} {:>13.2} {:>10.3}",
            column(0),
            column(1),
            ratio(0),
            column(2),
            ratio(2)
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
