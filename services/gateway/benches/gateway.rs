//! The gateway compared with HTTP: the same handler behind axum, behind an axum reverse proxy, and behind the gateway
//! and NATS.
//!
//! `cargo bench -p gateway [-- SECONDS ROUNDS CONNECTIONS]`. Every part is a separate process, as in the fleet. The
//! variants alternate, and ratios are taken within a round. JSON in both directions, about 350 bytes each.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::env;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::response::IntoResponse as _;
use axum::{Router, routing};
use gateway::{Gateway, Limits, Metrics, PublicMethods};
use http::uri::{Authority, Scheme};
use http::{StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use proto::ai::llm::v1::{
    FinishReason, InferRequest, InferResponse, InferStreamRequest, InferStreamResponse, Llm, LlmServer,
};
use proto::common::v1::TokenUsage;
use sdk::testing::NatsServer;
use sdk::{ConnectionSettings, Error, Fleet, Settings, Shutdown, Stream};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

const PATH: &str = "/api/ai/llm/v1/infer";
/// Threads of each process that serves HTTP.
const WORKERS: usize = 2;

fn main() {
    // `cargo bench` passes an additional option.
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let number = |index: usize, default: usize| {
        arguments.get(index).map_or(default, |text| text.parse().expect("a whole number"))
    };
    match arguments.first().map(String::as_str) {
        Some("axum") => axum_handler(),
        Some("proxy") => axum_proxy(&arguments[1]),
        Some("worker") => worker(&arguments[1]),
        Some("gateway") => gateway_task(&arguments[1]),
        Some("load") => load(&arguments[1], number(2, 32), number(3, 3)),
        _ => compare(number(0, 3), number(1, 5), number(2, 32)),
    }
}

// ---------------------------------------------------------------------------------------------- the handlers

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonRequest {
    prompt: String,
    model_id: String,
    sampling: JsonSampling,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonSampling {
    max_tokens: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonResponse {
    text: String,
    model_id: String,
    finish_reason: &'static str,
    usage: JsonUsage,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonUsage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
}

async fn infer(body: axum::body::Bytes) -> axum::response::Response {
    let Ok(request) = serde_json::from_slice::<JsonRequest>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let tokens = request.sampling.max_tokens;
    let response = JsonResponse {
        text: request.prompt,
        model_id: request.model_id,
        finish_reason: "FINISH_REASON_LENGTH",
        usage: JsonUsage { prompt_tokens: tokens, completion_tokens: tokens, total_tokens: 2 * tokens },
    };
    let json = serde_json::to_vec(&response).expect("serialises");
    ([("content-type", "application/json")], json).into_response()
}

struct Handler;

impl Llm for Handler {
    async fn infer(&self, request: InferRequest) -> Result<InferResponse, Error> {
        let tokens = request.sampling.and_then(|sampling| sampling.max_tokens).unwrap_or(0);
        Ok(InferResponse {
            error: None,
            text: request.prompt,
            model_id: request.model_id,
            finish_reason: FinishReason::Length.into(),
            usage: Some(TokenUsage { prompt_tokens: tokens, completion_tokens: tokens, total_tokens: 2 * tokens }),
        })
    }

    async fn infer_stream(&self, _: InferStreamRequest) -> Result<Stream<InferStreamResponse>, Error> {
        Err(Error::invalid("unused"))
    }
}

// ---------------------------------------------------------------------------------------------- processes

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build().expect("a runtime")
}

/// A socket on a free port, which is printed for the parent to read.
fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    println!("{}", listener.local_addr().expect("an address").port());
    listener
}

fn serve_axum(router: Router) {
    multi_thread().block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener()).expect("a socket");
        let listener = axum::serve::ListenerExt::tap_io(listener, |socket| {
            socket.set_nodelay(true).expect("a socket");
        });
        axum::serve(listener, router).await.expect("serving");
    });
}

fn axum_handler() {
    serve_axum(Router::new().route(PATH, routing::post(infer)));
}

#[derive(Clone)]
struct Backend {
    client: Client<HttpConnector, axum::body::Body>,
    authority: Authority,
}

fn axum_proxy(port: &str) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let backend = Backend {
        client: Client::builder(TokioExecutor::new()).build(connector),
        authority: format!("127.0.0.1:{port}").parse().expect("an authority"),
    };
    serve_axum(Router::new().fallback(forward).with_state(backend));
}

async fn forward(State(backend): State<Backend>, mut request: Request) -> axum::response::Response {
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(backend.authority);
    *request.uri_mut() = Uri::from_parts(parts).expect("a URI");
    match backend.client.request(request).await {
        Ok(response) => response.map(axum::body::Body::new).into_response(),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

fn connection(url: &str) -> ConnectionSettings {
    ConnectionSettings { urls: vec![url.to_owned()], ..ConnectionSettings::default() }
}

fn worker(url: &str) {
    current_thread().block_on(async {
        let settings = Settings::for_service("ai-integration", connection(url));
        let fleet = Fleet::connect(settings).await.expect("NATS");
        let (_trigger, shutdown) = Shutdown::new();
        println!("0");
        sdk::serve(&fleet, LlmServer(Handler), shutdown).await.expect("serving");
    });
}

/// The same layout as `sdk::run_workers`: threads with a runtime and a connection each, behind one socket.
fn gateway_task(url: &str) {
    let listener = listener();
    let threads: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (listener, connection) = (listener.try_clone().expect("a socket"), connection(url));
            thread::spawn(move || {
                current_thread().block_on(async {
                    let fleet = Fleet::connect(Settings::for_service("gateway", connection)).await.expect("NATS");
                    let methods = |_: &str| Some("ai.llm.v1.Llm/Infer".to_owned());
                    let public = PublicMethods::from_settings(methods).expect("the contract");
                    let gateway =
                        Gateway::new(fleet, &public, Limits::default(), Metrics::default()).expect("the contract");
                    gateway::serve(listener, Arc::new(gateway), std::future::pending()).await.expect("serving");
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a worker");
    }
}

/// Prints requests per second, median and 99th percentile in microseconds.
fn load(port: &str, connections: usize, seconds: usize) {
    let address = format!("127.0.0.1:{port}");
    let body = format!(
        r#"{{"prompt":"{}","modelId":"small-1","sampling":{{"maxTokens":64,"temperature":0.7,"stop":["\n\n"]}}}}"#,
        "The road to the mill ".repeat(12)
    );
    let request = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut latencies = current_thread().block_on(async {
        let start_deadline = Instant::now() + Duration::from_secs(10);
        while !call(&mut connect(&address).await, request.as_bytes(), &mut Vec::new()).await {
            assert!(Instant::now() < start_deadline, "no response");
        }
        let warm = Instant::now() + Duration::from_millis(500);
        let end = warm + Duration::from_secs(seconds as u64);
        let loops: Vec<_> = (0..connections)
            .map(|_| {
                let (address, request) = (address.clone(), request.clone());
                tokio::spawn(async move {
                    let (mut connection, mut buffer) = (connect(&address).await, Vec::new());
                    let mut latencies = Vec::new();
                    loop {
                        let begin = Instant::now();
                        if begin >= end {
                            return latencies;
                        }
                        let answered = call(&mut connection, request.as_bytes(), &mut buffer).await;
                        assert!(answered, "{}", String::from_utf8_lossy(&buffer));
                        if begin >= warm {
                            latencies.push(u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX));
                        }
                    }
                })
            })
            .collect();
        let mut latencies = Vec::new();
        for one in loops {
            latencies.extend(one.await.expect("a connection"));
        }
        latencies
    });
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!("{} {} {}", latencies.len() / seconds, at(0.5), at(0.99));
}

async fn connect(address: &str) -> TcpStream {
    let socket = TcpStream::connect(address).await.expect("a listening server");
    socket.set_nodelay(true).expect("a socket");
    socket
}

/// Sends one request, and returns whether the response is 200. All variants send a content length.
async fn call(connection: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> bool {
    connection.write_all(request).await.expect("the request is taken");
    buffer.clear();
    loop {
        assert!(connection.read_buf(buffer).await.expect("an answer") > 0, "the connection was closed");
        let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let (_, length) = text.split_once("content-length: ").expect("a content length");
        let length: usize = length.lines().next().expect("a length").parse().expect("a number");
        if buffer.len() >= head + 4 + length {
            return buffer.starts_with(b"HTTP/1.1 200");
        }
    }
}

// ---------------------------------------------------------------------------------------------- comparison

/// A process of this benchmark. Killed when dropped.
struct Part {
    process: Child,
    port: String,
}

impl Part {
    fn start(arguments: &[&str]) -> Self {
        let mut process = spawn(arguments);
        let mut port = String::new();
        let output = process.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut port).expect("a port");
        Self { process, port: port.trim().to_owned() }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(arguments: &[&str]) -> Child {
    Command::new(env::current_exe().expect("this program"))
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process")
}

struct Figures {
    rate: f64,
    p50: f64,
    p99: f64,
}

fn measure(port: &str, connections: usize, seconds: usize) -> Figures {
    let load = spawn(&["load", port, &connections.to_string(), &seconds.to_string()]);
    let output = load.wait_with_output().expect("the load ends");
    assert!(output.status.success(), "the load failed");
    let text = String::from_utf8(output.stdout).expect("figures");
    let mut figures = text.split_whitespace().map(|word| word.parse().expect("a figure"));
    let mut next = || figures.next().expect("three figures");
    Figures { rate: next(), p50: next(), p99: next() }
}

fn compare(seconds: usize, rounds: usize, connections: usize) {
    let nats = NatsServer::start();
    let url = nats.connection().urls.remove(0);
    let axum = Part::start(&["axum"]);
    let proxy = Part::start(&["proxy", &axum.port]);
    let worker = Part::start(&["worker", &url]);
    let gateway = Part::start(&["gateway", &url]);
    let variants = [("axum", &axum), ("axum proxy", &proxy), ("gateway", &gateway)];
    println!("{connections} connections, {rounds} rounds of {seconds} s");
    let mut all: [Vec<Figures>; 3] = Default::default();
    for round in 1..=rounds {
        for ((name, part), figures) in variants.iter().zip(&mut all) {
            let figure = measure(&part.port, connections, seconds);
            println!(
                "{round}  {name:<12} {:>7.0} requests/s   p50 {:>6.0} µs   p99 {:>6.0} µs",
                figure.rate, figure.p50, figure.p99
            );
            figures.push(figure);
        }
    }
    drop(worker);
    println!("\nmedians");
    for ((name, _), figures) in variants.iter().zip(&all) {
        let of = |pick: fn(&Figures) -> f64| median(figures.iter().map(pick));
        println!(
            "   {name:<12} {:>7.0} requests/s   p50 {:>6.0} µs   p99 {:>6.0} µs",
            of(|figures| figures.rate),
            of(|figures| figures.p50),
            of(|figures| figures.p99)
        );
    }
    let [_, proxy, gateway] = &all;
    let ratio =
        |pick: fn(&Figures) -> f64| median(gateway.iter().zip(proxy).map(|(ours, theirs)| pick(ours) / pick(theirs)));
    println!(
        "\ngateway / axum proxy: requests/s {:.2}, p50 {:.2}, p99 {:.2}",
        ratio(|figures| figures.rate),
        ratio(|figures| figures.p50),
        ratio(|figures| figures.p99)
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
