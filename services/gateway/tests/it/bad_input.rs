//! Invalid requests: each error names the problem, its position, and a fix.

use gateway::Limits;
use serde_json::Value;

use crate::client::{Answer, Client, GENERATE};
use crate::fleet::{Fleet, Running};

fn gateway() -> Running {
    Fleet::silent().behind_a_gateway()
}

#[track_caller]
fn problem(answer: &Answer, status: u16, detail: &str) -> Value {
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem = answer.json();
    assert_eq!((answer.status, &problem["detail"]), (status, &Value::from(detail)), "{problem}");
    assert_eq!(problem["status"], status);
    assert_eq!(problem["type"], "about:blank");
    assert_eq!(problem["request_id"], answer.header("x-request-id"));
    assert_eq!(problem["trace_id"].as_str().unwrap().len(), 32);
    problem
}

async fn post(body: &str) -> Answer {
    let gateway = gateway();
    gateway.client().await.post(GENERATE, body).await
}

#[tokio::test]
async fn invalid_json_is_400_with_line_and_column() {
    let answer = post("{\n  \"level\": 3,\n  oops\n}").await;
    let problem = problem(&answer, 400, "line 3, column 3: expected a key in double quotes, but found `o`");
    assert_eq!(problem["code"], "INVALID_ARGUMENT");
    assert_eq!(problem["instance"], GENERATE);
    assert_eq!(problem["details"]["line"], "3");
    assert_eq!(problem["details"]["column"], "3");
}

#[tokio::test]
async fn no_body_is_400() {
    let problem = problem(&post("").await, 400, "line 1, column 1: expected an object, but the text ends");
    assert_eq!(problem["hint"], "send at least `{}`");
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_400() {
    let gateway = gateway();
    let mut client = gateway.client().await;
    let answer = client.post_with(GENERATE, "content-type: application/json\r\n", b"{\"location\": \"\xff\"}").await;
    problem(&answer, 400, "line 1, column 15: text is not UTF-8");
}

#[tokio::test]
async fn an_unknown_field_is_400_with_the_nearest_one() {
    let answer = post(r#"{"plyer_id": "p1"}"#).await;
    let problem = problem(&answer, 400, "line 1, column 2: `plyer_id`: unknown field");
    assert_eq!(problem["details"]["field"], "plyer_id");
    assert_eq!(problem["hint"], "did you mean `player_id`?");
}

#[tokio::test]
async fn the_wrong_type_is_400_with_its_field() {
    let answer = post(r#"{"player_id": "p1", "level": "high"}"#).await;
    let detail = "line 1, column 30: `level`: expected a whole number from 0 to 4294967295, found `high`";
    assert_eq!(problem(&answer, 400, detail)["details"]["field"], "level");
}

#[tokio::test]
async fn meta_in_the_body_is_400_with_the_headers_to_use() {
    let answer = post(r#"{"meta": {"idempotency_key": "k"}}"#).await;
    let problem = problem(&answer, 400, "line 1, column 2: `meta`: set by the gateway, not by the caller");
    assert_eq!(problem["hint"], "use the headers `Idempotency-Key`, `X-Request-Id` and `traceparent`");
}

#[tokio::test]
async fn excessive_depth_is_400() {
    let gateway = gateway();
    let mut client = gateway.client().await;
    let deep = format!(r#"{{"merge": {}"#, r#"{"a":"#.repeat(150_000));
    let answer = client.post("/api/state/manager/v1/update", &deep).await;
    let detail = "objects and arrays are nested deeper than 64";
    assert!(problem_detail(&answer).ends_with(detail), "{answer:?}");
    assert_eq!(answer.status, 400);
}

fn problem_detail(answer: &Answer) -> String {
    answer.json()["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_unknown_route_is_404_with_the_nearest_ones() {
    let gateway = gateway();
    let mut client = gateway.client().await;
    let answer = client.post("/api/quest/v1/genarate", "{}").await;
    let not_found = problem(&answer, 404, "there is no route with this path");
    assert_eq!(not_found["hint"], "did you mean `/api/quest/v1/generate`?");
    assert_eq!(not_found["code"], "NOT_FOUND");
    let answer = client.request("GET", "/").await;
    assert_eq!(problem(&answer, 404, "there is no route with this path")["hint"], "`/openapi.json` lists all routes");
}

#[tokio::test]
async fn the_wrong_method_is_405_with_the_right_one() {
    let gateway = gateway();
    let mut client = gateway.client().await;
    let answer = client.request("GET", GENERATE).await;
    problem(&answer, 405, "method `GET` is not allowed");
    assert_eq!(answer.header("allow"), "POST");
    let answer = client.request("DELETE", "/openapi.json").await;
    problem(&answer, 405, "method `DELETE` is not allowed");
    assert_eq!(answer.header("allow"), "GET, HEAD");
}

#[tokio::test]
async fn another_content_type_is_415() {
    let gateway = gateway();
    let mut client = gateway.client().await;
    let answer = client.post_with(GENERATE, "content-type: text/xml\r\n", "<a/>").await;
    let refused = problem(&answer, 415, "the content type `text/xml` is not supported");
    assert_eq!(refused["hint"], "send JSON with the header `Content-Type: application/json`");
    let answer = client.post_with(GENERATE, "", "{}").await;
    problem(&answer, 415, "the body has no content type");
    let headers = "content-type: application/json\r\ncontent-encoding: gzip\r\n";
    let answer = client.post_with(GENERATE, headers, "{}").await;
    let refused = problem(&answer, 415, "the content encoding `gzip` is not supported");
    assert_eq!(refused["hint"], "send the body without a `Content-Encoding`");
    let answer = client.post_with(GENERATE, "content-type: application/json; charset=latin1\r\n", "{}").await;
    let refused = problem(&answer, 415, "the content type `application/json; charset=latin1` is not supported");
    assert_eq!(refused["hint"], "send the JSON as UTF-8, without a charset");
    let twice = "content-type: application/json\r\ncontent-type: text/plain\r\n";
    problem(&client.post_with(GENERATE, twice, "{}").await, 415, "header `Content-Type` occurs twice");
}

#[tokio::test]
async fn an_oversized_body_is_413_even_for_a_client_that_sends_all_of_it_first() {
    let gateway = gateway();
    let mut client = gateway.client().await;
    let answer = client.post(GENERATE, &"x".repeat(8 * 1024 * 1024)).await;
    problem(&answer, 413, "body is longer than 1048576 bytes");
    assert_eq!(client.request("GET", "/livez").await.status, 200);
}

#[tokio::test]
async fn an_oversized_body_in_chunks_is_413() {
    let limits = Limits { body: 1000, ..Limits::default() };
    let gateway = Fleet::silent().behind(limits);
    let mut client = gateway.client().await;
    let head = format!(
        "POST {GENERATE} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    client.send(head).await.unwrap();
    for _ in 0..30 {
        client.send(format!("64\r\n{}\r\n", "x".repeat(100))).await.unwrap();
    }
    client.send("0\r\n\r\n").await.unwrap();
    problem(&client.answer().await, 413, "body is longer than 1000 bytes");
}

#[tokio::test]
async fn an_oversized_body_is_refused_without_100_continue() {
    let gateway = gateway();
    let mut client = gateway.client().await;
    let head = format!(
        "POST {GENERATE} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 9999999\r\n\r\n"
    );
    client.send(head).await.unwrap();
    let answer = client.answer().await;
    problem(&answer, 413, "body is longer than 1048576 bytes");
    assert!(answer.closes());
}

#[tokio::test]
async fn a_wrong_idempotency_key_is_400() {
    let too_long = "k".repeat(256);
    for key in ["", "two words", "ü", &too_long] {
        let gateway = gateway();
        let mut client = gateway.client().await;
        let headers = format!("content-type: application/json\r\nidempotency-key: {key}\r\n");
        let answer = client.post_with(GENERATE, &headers, "{}").await;
        problem(&answer, 400, "header `Idempotency-Key` must be 1 to 255 visible ASCII characters");
    }
}

#[tokio::test]
async fn malformed_http_is_refused_and_the_gateway_keeps_serving() {
    let gateway = gateway();
    for bytes in ["\x16\x03\x01\x02\n\n", "GET\r\n\r\n", "POST / HTTPS/9.9\r\n\r\n"] {
        let mut client = Client::connect(gateway.address).await;
        client.send(bytes).await.unwrap();
        let rest = client.rest().await;
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 400"), "{rest}");
    }
    assert_eq!(gateway.client().await.request("GET", "/livez").await.status, 200);
}

#[tokio::test]
async fn a_key_that_occurs_twice_is_400_with_its_path() {
    let gateway = gateway();
    let mut client = gateway.client().await;
    let answer = client.post("/api/npc/behavior/v1/plan", r#"{"world": {"a": 0, "a": 1}}"#).await;
    let refused = problem(&answer, 400, "line 1, column 20: `world.a`: duplicate key");
    assert_eq!(refused["details"]["field"], "world.a");
}

#[tokio::test]
async fn a_number_that_would_be_changed_is_400_with_its_path() {
    let gateway = gateway();
    let mut client = gateway.client().await;
    let answer = client.post("/api/state/manager/v1/update", r#"{"merge": {"steam_id": 76561198000000001}}"#).await;
    let detail = "line 1, column 24: `merge.steam_id`: `76561198000000001` is not a double exactly, the nearest one is `7.6561198e16`";
    let refused = problem(&answer, 400, detail);
    assert_eq!(refused["details"]["field"], "merge.steam_id");
    assert_eq!(refused["hint"], "send it as a string, which holds every number");
}

#[tokio::test]
async fn codings_are_compared_without_regard_to_case() {
    let gateway = Fleet::quests().behind_a_gateway();
    let mut client = gateway.client().await;
    for coding in ["identity", "Identity", "IDENTITY, identity", ""] {
        let headers = format!("content-type: application/json\r\ncontent-encoding: {coding}\r\n");
        assert_eq!(client.post_with(GENERATE, &headers, "{}").await.status, 200, "{coding}");
    }
    let headers = "content-type: application/json\r\ncontent-encoding: identity, GZIP\r\n";
    problem(&client.post_with(GENERATE, headers, "{}").await, 415, "the content encoding `GZIP` is not supported");
}

#[tokio::test]
async fn a_request_without_its_one_host_is_400() {
    let gateway = Fleet::quests().behind_a_gateway();
    let mut client = gateway.client().await;
    for path in ["/livez", GENERATE, "/nowhere"] {
        client.send(format!("GET {path} HTTP/1.1\r\n\r\n")).await.unwrap();
        problem(&client.answer().await, 400, "header `Host` is missing");
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\nHost: a\r\n\r\n")).await.unwrap();
        problem(&client.answer().await, 400, "header `Host` occurs twice");
    }
    client.send("GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn a_malformed_head_is_answered_with_a_document() {
    let gateway = gateway();
    // Exactly the limit, and nothing after it: closing a socket with unread bytes would reset the connection.
    let mut large = "GET /livez HTTP/1.1\r\nhost: a\r\nx: ".to_owned();
    large.extend(std::iter::repeat_n('x', 64 * 1024 - large.len()));
    let invalid = "the head of the request is not valid HTTP/1.1";
    for (head, status, detail) in [
        ("GET\r\n\r\n", 400, invalid),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", 400, invalid),
        (&*large, 431, "the headers of the request are too large"),
    ] {
        let mut client = Client::connect(gateway.address).await;
        client.send(head).await.unwrap();
        let answer = client.answer().await;
        problem(&answer, status, detail);
        assert!(answer.closes());
    }
}

#[tokio::test]
async fn another_version_of_http_is_505_with_a_document() {
    let gateway = Fleet::quests().behind_a_gateway();
    for head in [
        "POST / HTTP/9.9\r\n\r\n",
        "GET /livez HTTP/3\r\nhost: a\r\n\r\n",
        "GET /livez HTTP/1.2\r\nhost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut client = Client::connect(gateway.address).await;
        client.send(head).await.unwrap();
        let answer = client.answer().await;
        let refused = problem(&answer, 505, "only HTTP/1.1 and HTTP/1.0 are supported");
        assert_eq!(
            (&refused["title"], &refused["code"]),
            (&"HTTP Version Not Supported".into(), &"UNIMPLEMENTED".into())
        );
        assert!(answer.closes());
    }
    // After a request with an answer, too.
    let mut client = gateway.client().await;
    assert_eq!(client.post(GENERATE, "{}").await.status, 200);
    client.send("GET /livez HTTP/2\r\n\r\n").await.unwrap();
    problem(&client.answer().await, 505, "only HTTP/1.1 and HTTP/1.0 are supported");
}
