//! Clients that occupy a connection without using it.

use std::time::{Duration, Instant};

use gateway::Limits;

use crate::client::GENERATE;
use crate::fleet::Fleet;

#[tokio::test]
async fn an_incomplete_head_closes_the_connection() {
    let limits = Limits { head: Duration::from_millis(100), ..Limits::default() };
    let gateway = Fleet::silent().behind(limits);
    let mut client = gateway.client().await;
    assert_eq!(client.request("GET", "/livez").await.status, 200);
    client.send("GET /livez HTTP/1.1\r\nhost: te").await.unwrap();
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn slow_bytes_do_not_extend_the_deadline_of_a_head() {
    let limits = Limits { head: Duration::from_millis(200), ..Limits::default() };
    let gateway = Fleet::silent().behind(limits);
    let mut client = gateway.client().await;
    let started = Instant::now();
    client.send("GET /livez HTTP/1.1\r\n").await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    while client.send("x: y\r\n").await.is_ok() {
        assert!(started.elapsed() < Duration::from_secs(10));
        ticks.tick().await;
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_a_while() {
    let limits = Limits { idle: Duration::from_millis(100), ..Limits::default() };
    let gateway = Fleet::silent().behind(limits);
    let mut client = gateway.client().await;
    assert_eq!(client.request("GET", "/livez").await.status, 200);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_connection_may_be_idle_for_longer_than_a_head_may_take() {
    let limits = Limits { head: Duration::from_millis(50), ..Limits::default() };
    let gateway = Fleet::silent().behind(limits);
    let mut client = gateway.client().await;
    assert_eq!(client.request("GET", "/livez").await.status, 200);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(client.request("GET", "/livez").await.status, 200);
}

#[tokio::test]
async fn a_request_may_take_longer_than_a_connection_may_be_idle() {
    let limits = Limits { idle: Duration::from_millis(50), request: Duration::from_millis(300), ..Limits::default() };
    let gateway = Fleet::silent().behind(limits);
    assert_eq!(gateway.client().await.post(GENERATE, "{}").await.status, 504);
}

#[tokio::test]
async fn an_incomplete_body_is_408() {
    let limits = Limits { body_timeout: Duration::from_millis(100), ..Limits::default() };
    let gateway = Fleet::silent().behind(limits);
    let mut client = gateway.client().await;
    let head = format!(
        "POST {GENERATE} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{{"
    );
    client.send(head).await.unwrap();
    let answer = client.answer().await;
    assert_eq!(answer.status, 408);
    assert!(answer.closes());
}
