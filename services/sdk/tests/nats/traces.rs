//! Collectors that hang, refuse, or are not there: they cost spans, which are counted, and never a request.

use std::net::TcpListener as StdListener;

use sdk::testing::{start_tracing, stop_tracing};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// What a collector does with one request.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// This response.
    With(&'static str),
    /// None.
    Hang,
}

/// A collector that answers in this order, the last answer from then on. The receiver gets when each request came.
async fn collector(answers: &'static [Answer]) -> (String, mpsc::UnboundedReceiver<Instant>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::unbounded_channel();
    let number = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(answer_all(connection, answers, Arc::clone(&number), sender.clone()));
        }
    });
    (url, requests)
}

async fn answer_all(
    mut connection: TcpStream,
    answers: &[Answer],
    number: Arc<AtomicUsize>,
    requests: mpsc::UnboundedSender<Instant>,
) {
    let mut received = Vec::new();
    loop {
        let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            match connection.read_buf(&mut received).await {
                Ok(0) | Err(_) => return,
                Ok(_) => continue,
            }
        };
        let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse::<usize>().unwrap();
        while received.len() < end + 4 + length {
            if connection.read_buf(&mut received).await.unwrap_or(0) == 0 {
                return;
            }
        }
        received.drain(..end + 4 + length);
        let _ = requests.send(Instant::now());
        let number = number.fetch_add(1, Ordering::SeqCst);
        match answers[number.min(answers.len() - 1)] {
            Answer::With(response) => connection.write_all(response.as_bytes()).await.unwrap(),
            Answer::Hang => pending().await,
        }
    }
}

/// Exports every span, with these variables besides.
fn export_to(url: &str, variables: &[(&str, &str)]) {
    let task = Settings::for_service("caller", ConnectionSettings::default());
    let usual = [("OTEL_EXPORTER_OTLP_ENDPOINT", url), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
    start_tracing(&task, &[variables, &usual].concat());
}

/// A client of something that answers and is no part of the SDK: each call is one span.
async fn client_of_an_echo(server: &NatsServer) -> LlmClient {
    let echo = plain(&server.connection()).await;
    let mut requests = echo.subscribe("svc.ai.llm.v1.infer").await.unwrap();
    echo.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            echo.publish(request.reply.unwrap(), Bytes::new()).await.unwrap();
        }
    });
    caller(server).await.client()
}

/// Calls it, and returns how long that took.
async fn call(client: &LlmClient) -> Duration {
    let began = Instant::now();
    client.infer(prompt("")).await.unwrap();
    began.elapsed()
}

/// The value of a metric of the exporter.
fn metric(name: &str) -> u64 {
    let text = sdk::metrics_text();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no `{name}` in {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Waits until the metric has the value.
async fn until(name: &str, value: u64) {
    let reached = async {
        while metric(name) != value {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, reached).await.unwrap_or_else(|_| panic!("{name} is {}", metric(name)));
}

#[tokio::test]
async fn a_request_waits_for_no_collector_and_what_does_not_fit_is_counted() {
    let server = NatsServer::start();
    let (url, mut requests) = collector(&[Answer::Hang]).await;
    export_to(&url, &[("OTEL_BSP_MAX_QUEUE_SIZE", "10"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5")]);
    let client = client_of_an_echo(&server).await;
    call(&client).await;
    timeout(SOON, requests.recv()).await.unwrap();
    // One span is on its way, and ten find room.
    for _ in 0..30 {
        assert!(call(&client).await < Duration::from_secs(5));
    }
    until("spans_dropped_total{reason=\"queue_full\"}", 20).await;

    // The task ends in time all the same, and counts the rest.
    let began = Instant::now();
    stop_tracing(Duration::from_millis(300)).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(metric("spans_dropped_total{reason=\"export_failed\"}"), 11);
    assert_eq!(metric("spans_exported_total"), 0);
    call(&client).await;
    assert_eq!(metric("spans_dropped_total{reason=\"shutdown\"}"), 1);
}

#[tokio::test]
async fn an_export_is_repeated_when_the_collector_asks_for_it() {
    let server = NatsServer::start();
    let busy = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
    let away = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\naway";
    let answers = Box::leak(Box::new([Answer::With(busy), Answer::With(away), Answer::With(OK)]));
    let (url, mut requests) = collector(answers).await;
    export_to(&url, &[]);
    call(&client_of_an_echo(&server).await).await;
    let mut times = Vec::new();
    for _ in 0..3 {
        times.push(timeout(SOON, requests.recv()).await.unwrap().unwrap());
    }
    assert!(times[1] - times[0] >= Duration::from_secs(1), "{:?}", times[1] - times[0]);
    until("spans_exported_total", 1).await;
    assert_eq!(metric("span_export_failures_total"), 2);
    assert_eq!(metric("spans_dropped_total{reason=\"export_failed\"}"), 0);
}

#[tokio::test]
async fn what_the_collector_refuses_is_counted_and_the_next_spans_are_exported() {
    let server = NatsServer::start();
    let answers = Box::leak(Box::new([
        Answer::With("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"),
        Answer::With("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"),
        // `ExportTraceServiceResponse { partial_success: { rejected_spans: 1 } }`
        Answer::With("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\n\u{2}\u{8}\u{1}"),
        Answer::With("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok?"),
    ]));
    let (url, _requests) = collector(answers).await;
    export_to(&url, &[]);
    let client = client_of_an_echo(&server).await;
    for (reason, count) in [("export_failed", 1), ("export_failed", 2), ("rejected", 1)] {
        call(&client).await;
        until(&format!("spans_dropped_total{{reason=\"{reason}\"}}"), count).await;
    }
    call(&client).await;
    until("spans_exported_total", 1).await;
    assert_eq!(metric("span_export_failures_total"), 2);
}

#[tokio::test]
async fn a_collector_that_comes_later_gets_the_spans() {
    let server = NatsServer::start();
    // Nobody listens on the port yet.
    let reserved = StdListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    export_to(&format!("http://{address}"), &[]);
    call(&client_of_an_echo(&server).await).await;
    until("span_export_failures_total", 1).await;
    let listener = TcpListener::bind(address).await.unwrap();
    let (connection, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    let (sender, _requests) = mpsc::unbounded_channel();
    tokio::spawn(answer_all(connection, &[Answer::With(OK)], Arc::default(), sender));
    until("spans_exported_total", 1).await;
}

#[tokio::test]
async fn the_last_spans_are_exported_when_the_task_ends() {
    let server = NatsServer::start();
    let (url, _requests) = collector(&[Answer::With(OK)]).await;
    export_to(&url, &[("OTEL_BSP_SCHEDULE_DELAY", "600000")]);
    let client = client_of_an_echo(&server).await;
    for _ in 0..3 {
        call(&client).await;
    }
    assert_eq!(metric("spans_exported_total"), 0);
    stop_tracing(SOON).await;
    assert_eq!(metric("spans_exported_total"), 3);
}
