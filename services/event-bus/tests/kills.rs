//! Tasks that are killed at any moment while messages are published, delivered and acknowledged. `KILLS=200` for the long run.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::future::join_all;
use proto::event::bus::v1::{
    AckRequest, EventBus as _, EventBusClient, FetchRequest, ListStreamsRequest, ListSubscriptionsRequest,
    PublishRequest, PutStreamRequest, PutSubscriptionRequest,
};
use proto::event::delivery::v1::DeadLettered;
use sdk::testing::{NatsServer, Program, as_request, kills};
use sdk::{Error, Event as _};

/// How often tasks are killed, unless `KILLS` says another number.
const KILLS: usize = 8;
const MESSAGES_PER_KILL: usize = 20;
/// The time within which a request is answered, and within which every message is acknowledged after the last kill.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// A task of the service.
fn task(server: &NatsServer) -> Program {
    Program::start(env!("CARGO_BIN_EXE_event-bus"), "event-bus", server)
}

/// Repeats a request until it is answered.
async fn answered<T, F: Future<Output = Result<T, Error>>>(request: impl Fn() -> F) -> T {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        match as_request(None, request()).await {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < deadline, "no answer: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Fetches and acknowledges until so many messages are acknowledged. Returns how many came after that again.
async fn consumed(client: &EventBusClient, messages: usize) -> usize {
    let (mut acknowledged, mut late) = (BTreeSet::new(), 0);
    let deadline = Instant::now() + SETTLED_WITHIN * 10;
    while acknowledged.len() < messages {
        assert!(Instant::now() < deadline, "{} of {messages} messages came", acknowledged.len());
        let fetch = FetchRequest {
            stream: "orders".to_owned(),
            subscription: "all".to_owned(),
            limit: 5,
            wait_ms: 500,
            ..FetchRequest::default()
        };
        // One that is not answered may have been carried out: its messages come again.
        let Ok(fetched) = as_request(None, client.fetch(fetch)).await else { continue };
        let sequences: Vec<u64> = fetched.deliveries.iter().map(|it| it.message.as_ref().unwrap().sequence).collect();
        late += sequences.iter().filter(|sequence| acknowledged.contains(*sequence)).count();
        if sequences.is_empty() {
            continue;
        }
        let ack = AckRequest {
            stream: "orders".to_owned(),
            subscription: "all".to_owned(),
            sequences: sequences.clone(),
            ..AckRequest::default()
        };
        answered(|| client.ack(ack.clone())).await;
        acknowledged.extend(sequences);
    }
    late
}

#[tokio::test]
async fn no_message_is_lost_or_stored_twice_or_comes_after_its_acknowledgement_however_often_tasks_are_killed() {
    let kills = kills(KILLS);
    let server = NatsServer::start();
    for bucket in ["bus_streams", "bus_messages", "bus_subscriptions"] {
        server.bucket(bucket, 1).await;
    }
    server.stream("EVENTS", &[DeadLettered::SUBJECT]).await;
    server.outboxes(&["bus_subscriptions"], "EVENTS").await;
    let client: EventBusClient = server.fleet("caller").await.client();
    let consumer: EventBusClient = server.fleet("consumer").await.client();

    let mut tasks = [task(&server), task(&server)];
    let stream = PutStreamRequest { name: "orders".to_owned(), ..PutStreamRequest::default() };
    answered(|| client.put_stream(stream.clone())).await;
    let subscription = PutSubscriptionRequest {
        stream: "orders".to_owned(),
        name: "all".to_owned(),
        ack_wait_ms: 1_000,
        max_deliveries: 100,
        ..PutSubscriptionRequest::default()
    };
    answered(|| client.put_subscription(subscription.clone())).await;

    let publish = async {
        for kill in 0..kills {
            let messages = (0..MESSAGES_PER_KILL).map(|number| {
                let message = PublishRequest {
                    stream: "orders".to_owned(),
                    topic: "eu".to_owned(),
                    dedupe_id: format!("{kill}/{number}"),
                    ..PublishRequest::default()
                };
                let client = &client;
                async move { answered(|| client.publish(message.clone())).await.sequence }
            });
            let kill = async {
                // From before it has connected until it has been serving for a while.
                tokio::time::sleep(Duration::from_micros(fastrand::u64(0..400_000))).await;
                tasks[fastrand::usize(..2)] = task(&server);
            };
            let (sequences, ()) = futures::join!(join_all(messages), kill);
            assert_eq!(sequences.iter().collect::<BTreeSet<_>>().len(), MESSAGES_PER_KILL);
        }
    };
    let total = kills * MESSAGES_PER_KILL;
    let ((), late) = futures::join!(publish, consumed(&consumer, total));

    assert_eq!(late, 0, "messages that came after they had been acknowledged");
    let streams = answered(|| client.list_streams(ListStreamsRequest::default())).await.streams;
    assert_eq!(streams.iter().map(|it| it.messages).collect::<Vec<_>>(), [total as u64], "each is stored once");
    let list = ListSubscriptionsRequest { stream: "orders".to_owned(), ..ListSubscriptionsRequest::default() };
    let subscriptions = answered(|| client.list_subscriptions(list.clone())).await.subscriptions;
    let left: Vec<_> = subscriptions.iter().map(|it| (it.lag, it.dead_letters, it.expired)).collect();
    assert_eq!(left, [(0, 0, 0)]);
}
