//! HTTP backends against a local server whose responses the tests define byte by byte.

use futures::TryStreamExt as _;
use proto::ai::llm::v1::FinishReason;
use proto::common::v1::TokenUsage;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::*;

const KEY: &str = "sk-very-secret";

/// A server that answers one request with these bytes, closes the connection, and returns the request.
async fn backend(answer: String) -> (Arc<Endpoint>, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !complete(&request) {
            let mut buffer = [0; 4096];
            let count = socket.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the client closed the connection");
            request.extend_from_slice(&buffer[..count]);
        }
        socket.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    });
    let names = BTreeMap::from([("llama".to_owned(), "meta/Llama-3".to_owned())]);
    let endpoint = Endpoint::new("remote", &url, Some(KEY.to_owned()), names).unwrap();
    (Arc::new(endpoint), serving)
}

fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.unwrap().parse().unwrap()
}

fn whole(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A chunked response with these events, without the final chunk.
fn unfinished(events: &[&str]) -> String {
    let chunks: String = events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .map(|event| format!("{:x}\r\n{event}\r\n", event.len()))
        .collect();
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{chunks}")
}

fn streamed(events: &[&str]) -> String {
    unfinished(events) + "0\r\n\r\n"
}

fn job() -> Job {
    Job {
        prompt: "Who goes there?".to_owned(),
        max_tokens: 9,
        temperature: Some(0.5),
        stop: vec!["!".to_owned()],
        seed: Some(u64::MAX),
    }
}

fn shown(error: &Error) -> String {
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains(KEY), "{shown}");
    shown
}

const ANSWER: &str = r#"{"id": "1", "choices": [{"index": 0, "message": {"role": "assistant", "content": "A friend"},
    "finish_reason": "stop", "stop_reason": "!"}], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}"#;

#[tokio::test]
async fn a_unary_response_is_read() {
    let (endpoint, serving) = backend(whole("200 OK", ANSWER)).await;
    let completion = endpoint.complete("llama", &job()).await.unwrap();
    assert_eq!((completion.text.as_str(), completion.ending.finish), ("A friend", FinishReason::Stop));
    let usage = TokenUsage { prompt_tokens: 5, completion_tokens: 2, total_tokens: 7 };
    assert_eq!(completion.ending.usage, Some(usage));

    let request = serving.await.unwrap();
    assert!(request.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("authorization: Bearer {KEY}\r\n")), "{request}");
    let body: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    let expected = json!({
        "model": "meta/Llama-3", "messages": [{"role": "user", "content": "Who goes there?"}], "max_tokens": 9,
        "temperature": 0.5, "stop": ["!"], "seed": i64::MAX, "stream": false
    });
    assert_eq!(body, expected);
}

async fn pieces(answer: String) -> Result<Vec<Piece>, Error> {
    let (endpoint, _) = backend(answer).await;
    endpoint.stream("other", &job()).await?.try_collect().await
}

fn text(text: &str) -> Piece {
    Piece::Text(text.to_owned())
}

#[tokio::test]
async fn a_stream_is_read_to_its_end() {
    let answer = streamed(&[
        r#"{"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": null}]}"#,
        r#"{"choices": [{"delta": {"content": "A"}, "finish_reason": null}], "usage": null}"#,
        r#"{"choices": [{"delta": {"content": " friend"}}]}"#,
        r#"{"choices": [{"delta": {}, "finish_reason": "length"}]}"#,
        r#"{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}"#,
        "[DONE]",
    ]);
    let usage = TokenUsage { prompt_tokens: 5, completion_tokens: 2, total_tokens: 7 };
    let end = Ending { finish: FinishReason::Length, usage: Some(usage) };
    assert_eq!(pieces(answer).await.unwrap(), [text("A"), text(" friend"), Piece::End(end)]);
}

const FIRST: &str = r#"{"choices": [{"delta": {"content": "A"}}]}"#;

#[tokio::test]
async fn a_stream_requests_its_usage() {
    let (endpoint, serving) = backend(streamed(&[FIRST, "[DONE]"])).await;
    let generation = endpoint.stream("other", &job()).await.unwrap();
    assert_eq!(generation.try_collect::<Vec<_>>().await.unwrap().len(), 2);
    let request = serving.await.unwrap();
    let body: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&body["model"], &body["stream"]), (&json!("other"), &json!(true)));
    assert_eq!(body["stream_options"], json!({"include_usage": true}));
}

#[tokio::test]
async fn a_stream_without_its_end_marker_is_data_loss() {
    let last = r#"{"choices": [{"delta": {}, "finish_reason": "stop"}]}"#;
    for answer in [
        streamed(&[FIRST]),
        streamed(&[FIRST, last]),
        unfinished(&[FIRST]),
        unfinished(&[FIRST]) + "ff\r\ndata: {\"cho",
        streamed(&[]),
    ] {
        let error = pieces(answer.clone()).await.unwrap_err();
        assert_eq!(error.code(), Code::DataLoss, "{answer}: {error}");
        assert!(shown(&error).contains("backend `remote` ended its stream early"), "{error}");
    }
}

#[tokio::test]
async fn pieces_before_an_interruption_are_delivered_first() {
    let (endpoint, _) = backend(unfinished(&[FIRST])).await;
    let mut generation = endpoint.stream("other", &job()).await.unwrap();
    assert_eq!(generation.next().await, Some(Ok(text("A"))));
    assert_eq!(generation.next().await.unwrap().unwrap_err().code(), Code::DataLoss);
    assert_eq!(generation.next().await, None);
}

#[tokio::test]
async fn the_last_line_may_lack_its_line_break() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n".to_owned();
    let answer = answer + "data: " + FIRST + "\n\ndata: [DONE]";
    assert_eq!(pieces(answer).await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_error_in_a_stream_ends_it() {
    let failure = format!(r#"{{"error": {{"message": "overloaded, {KEY}"}}}}"#);
    let error = pieces(streamed(&[FIRST, &failure, "[DONE]"])).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(shown(&error).contains("overloaded, ***"), "{error}");
}

#[tokio::test]
async fn malformed_responses_are_data_loss() {
    for body in ["", "hello", "{", "{}", r#"{"choices": []}"#, r#"{"choices": [{"message": {"content": 7}}]}"#] {
        let (endpoint, _) = backend(whole("200 OK", body)).await;
        let error = endpoint.complete("a", &job()).await.unwrap_err();
        assert_eq!(error.code(), Code::DataLoss, "{body}: {error}");
    }
    let error = pieces(streamed(&["{\"choices\": [", "[DONE]"])).await.unwrap_err();
    assert_eq!(error.code(), Code::DataLoss);

    let cut = whole("200 OK", ANSWER);
    let (endpoint, _) = backend(cut[..cut.len() - 20].to_owned()).await;
    let error = endpoint.complete("a", &job()).await.unwrap_err();
    assert_eq!(error.code(), Code::DataLoss, "{error}");
}

#[tokio::test]
async fn a_filtered_response_is_an_error() {
    let body = ANSWER.replace(r#""stop","#, r#""content_filter","#);
    let (endpoint, _) = backend(whole("200 OK", &body)).await;
    let error = endpoint.complete("a", &job()).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
}

async fn refused(status: &str, code: Code) -> Error {
    let body = format!(r#"{{"error": {{"message": "no: {KEY}"}}}}"#);
    let (endpoint, _) = backend(whole(status, &body)).await;
    let error = endpoint.complete("a", &job()).await.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert!(shown(&error).contains("no: ***"), "{error}");
    let streamed = {
        let (endpoint, _) = backend(whole(status, &body)).await;
        endpoint.stream("a", &job()).await.map(drop).unwrap_err()
    };
    assert_eq!(streamed, error);
    error
}

#[tokio::test]
async fn statuses_become_codes_and_the_key_stays_secret() {
    refused("400 Bad Request", Code::InvalidArgument).await;
    refused("401 Unauthorized", Code::FailedPrecondition).await;
    refused("403 Forbidden", Code::FailedPrecondition).await;
    refused("404 Not Found", Code::FailedPrecondition).await;
    refused("302 Found\r\nlocation: /", Code::FailedPrecondition).await;
    refused("500 Internal Server Error", Code::Unavailable).await;
    refused("503 Service Unavailable", Code::Unavailable).await;
    let error = refused("429 Too Many Requests\r\nretry-after: 7", Code::ResourceExhausted).await;
    assert_eq!(error.detail(sdk::reason::RETRY_AFTER_MS), Some("7000"));
}

#[tokio::test]
async fn an_endpoint_with_an_untrusted_certificate_is_refused() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/v1", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            // A client that does not trust the certificate closes the connection.
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            let mut request = [0; 4096];
            assert!(socket.read(&mut request).await.unwrap() > 0);
            socket.write_all(whole("200 OK", ANSWER).as_bytes()).await.unwrap();
        }
    });

    let ask = async |trusted: RootCertStore| {
        let tls = tls_builder().with_root_certificates(trusted).with_no_client_auth();
        let url = completions_url(&url).unwrap();
        let endpoint = Endpoint::with_tls(tls, "remote", url, Some(KEY.to_owned()), BTreeMap::new()).unwrap();
        endpoint.complete("a", &job()).await
    };
    let error = ask(RootCertStore::empty()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let mut trusted = RootCertStore::empty();
    trusted.add(certificate.cert.der().clone()).unwrap();
    assert_eq!(ask(trusted).await.unwrap().text, "A friend");
}

#[tokio::test]
async fn an_unreachable_endpoint_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let endpoint = Endpoint::new("remote", &url, Some(KEY.to_owned()), BTreeMap::new()).unwrap();
    let error = endpoint.complete("a", &job()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(shown(&error).contains("cannot be reached"), "{error}");
    assert!(!format!("{endpoint:?}").contains(KEY));
}
