//! The shutdown of a gateway fails no request.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gateway::Limits;
use tokio::sync::{mpsc, watch};

use crate::client::{Client, GENERATE};
use crate::fleet::{Fleet, Running};

#[tokio::test]
async fn a_request_in_flight_is_answered() {
    let (release, released) = watch::channel(false);
    let (entered, mut entries) = mpsc::unbounded_channel();
    let fleet = Fleet::answering(move |_| {
        entered.send(()).unwrap();
        let mut released = released.clone();
        async move {
            released.wait_for(|released| *released).await.unwrap();
            Ok(Bytes::new())
        }
    });
    let mut gateway = fleet.behind_a_gateway();
    let mut client = gateway.client().await;
    let call = tokio::spawn(async move { client.post(GENERATE, "{}").await });
    entries.recv().await.unwrap();
    gateway.stop();
    release.send(true).unwrap();
    let answer = call.await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.closes());
    gateway.ended().await;
}

#[tokio::test]
async fn a_request_that_does_not_finish_gets_an_error_response() {
    let limits = Limits { linger: Duration::from_millis(10), drain: Duration::from_millis(50), ..Limits::default() };
    let (entered, mut entries) = mpsc::unbounded_channel();
    let fleet = Fleet::answering(move |_| {
        entered.send(()).unwrap();
        std::future::pending()
    });
    let mut gateway = fleet.behind(limits);
    let mut client = gateway.client().await;
    let call = tokio::spawn(async move { client.post(GENERATE, "{}").await });
    entries.recv().await.unwrap();
    gateway.stop();
    let answer = call.await.unwrap();
    assert_eq!((answer.status, answer.json()["details"]["reason"].as_str()), (503, Some("stopping")));
    gateway.ended().await;
}

#[tokio::test]
async fn an_idle_connection_serves_one_more_request_and_then_closes() {
    let mut gateway = Fleet::quests().behind_a_gateway();
    let mut client = gateway.client().await;
    assert!(!client.post(GENERATE, "{}").await.closes());
    gateway.stop();
    gateway.refuses().await;
    let answer = client.post(GENERATE, "{}").await;
    assert_eq!(answer.status, 200);
    assert!(answer.closes());
    assert_eq!(client.rest().await, "");
    gateway.ended().await;
}

#[tokio::test]
async fn an_idle_connection_does_not_delay_the_shutdown() {
    let limits = Limits { linger: Duration::from_millis(50), ..Limits::default() };
    let mut gateway = Fleet::quests().behind(limits);
    let mut client = gateway.client().await;
    client.post(GENERATE, "{}").await;
    gateway.stop();
    gateway.ended().await;
    assert_eq!(client.rest().await, "");
}

/// Two gateways behind one socket, as natsctl runs them; they are replaced one after the other under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_gateways_are_replaced() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let limits = Limits { linger: Duration::from_millis(200), ..Limits::default() };
    let start = || Running::on(listener.try_clone().unwrap(), Fleet::quests(), limits.clone());
    let mut gateways = [start(), start()];
    let address = gateways[0].address;
    let (stop, stopped) = watch::channel(false);
    let answered = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..16)
        .map(|number: u64| {
            let (stopped, answered) = (stopped.clone(), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                let mut requests = 0;
                while !*stopped.borrow() {
                    let answer = client.post(GENERATE, r#"{"player_id": "p"}"#).await;
                    assert_eq!(answer.status, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                    requests += 1;
                    if answer.closes() {
                        client = Client::connect(address).await;
                    } else if requests % (number + 3) == 0 {
                        // Some clients pause, so that some connections are idle.
                        tokio::time::sleep(Duration::from_millis(number)).await;
                    }
                }
            })
        })
        .collect();
    for round in 0..6 {
        let before = answered.load(Ordering::Relaxed);
        while answered.load(Ordering::Relaxed) < before + 200 {
            tokio::task::yield_now().await;
        }
        let mut old = std::mem::replace(&mut gateways[round % 2], start());
        old.stop();
        old.ended().await;
    }
    stop.send(true).unwrap();
    for client in clients {
        client.await.unwrap();
    }
}
