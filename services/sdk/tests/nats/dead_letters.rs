//! Events that cannot be handled.

use sdk::ConsumerSettings;
use sdk::testing::Stored;

use super::consuming::*;
use super::*;

async fn dead_letters(server: &NatsServer, count: usize) -> Vec<Stored> {
    let all = async {
        loop {
            let stored = server.stored("DLQ").await;
            if stored.len() >= count {
                return stored;
            }
        }
    };
    timeout(SOON, all).await.unwrap()
}

/// What a dead letter says: code, reason, attempts.
fn said(letter: &Stored) -> [&str; 3] {
    ["Dead-Letter-Code", "Dead-Letter-Reason", "Dead-Letter-Attempts"].map(|name| letter.headers[name].as_str())
}

#[tokio::test]
async fn what_cannot_be_handled_is_stored_as_it_came_with_the_reason() {
    let consumer = ConsumerSettings { timeout: Duration::from_millis(400), ..selected_consumer() };
    let server = prepared(&consumer).await;
    let recorder = Recorder::default();
    let _task = working(&server, &recorder, &consumer).await;
    let publisher = caller(&server).await;
    let check = async |number: usize, model: &str, attempts: usize, expected: [&str; 3]| {
        // What is traced has a header, which is kept.
        let traceparent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let request = ExternalRequest { traceparent, request_id: None, idempotency_key: None, timeout: SOON };
        Context::external(request).scope(publish(&publisher, model)).await;
        let letters = dead_letters(&server, number).await;
        let letter = letters.last().unwrap();
        assert_eq!(said(letter), expected, "{model}");
        assert_eq!(recorder.begun().iter().filter(|begun| *begun == model).count(), attempts, "{model}");
        assert_eq!(letter.subject, "dlq.quest-system.evt.ai.model.selected.v1");
        let original = server.stored(STREAM).await.pop().unwrap();
        assert_eq!(letter.payload, original.payload);
        assert_eq!(letter.headers["traceparent"], original.headers["traceparent"]);
        assert_eq!(letter.headers["Event-Id"], format!("id-{model}"));
        assert_eq!(letter.headers["Dead-Letter-Stream"], STREAM);
        assert_eq!(letter.headers["Dead-Letter-Sequence"], number.to_string());
        assert!(letter.headers["Dead-Letter-Stored-At"].parse::<jiff::Timestamp>().is_ok(), "{:?}", letter.headers);
    };
    check(1, "refuse", 1, ["INVALID_ARGUMENT", "no such model at all", "1"]).await;
    check(2, "fail", 3, ["UNAVAILABLE", "the disk is full", "3"]).await;
    check(3, "panic", 3, ["INTERNAL", "the handler panicked: as requested", "3"]).await;
    check(4, "hang", 3, ["UNAVAILABLE", "it was not handled within 400ms", "3"]).await;
    let info = settled(&server, &consumer).await;
    assert_eq!(info.num_ack_pending, 0);
}

#[tokio::test]
async fn what_cannot_be_decoded_is_a_dead_letter_at_once() {
    let consumer = selected_consumer();
    let server = prepared(&consumer).await;
    let recorder = Recorder::default();
    let _task = working(&server, &recorder, &consumer).await;
    let jetstream = async_nats::jetstream::new(plain(&server.connection()).await);
    jetstream.publish(Selected::SUBJECT, "\u{1}no message".into()).await.unwrap().await.unwrap();
    let letters = dead_letters(&server, 1).await;
    let [code, reason, attempts] = said(&letters[0]);
    assert_eq!((code, attempts), ("INVALID_ARGUMENT", "1"));
    assert!(reason.starts_with("payload is not the expected message"), "{reason}");
    assert_eq!(letters[0].headers["Event-Id"], "EVT_MODELS/1");
    assert_eq!(recorder.begun(), [""; 0]);
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_stored_is_stored_when_it_can_be() {
    let consumer = ConsumerSettings { timeout: Duration::from_millis(300), ..selected_consumer() };
    let server = NatsServer::start();
    server.stream(STREAM, &[Selected::SUBJECT]).await;
    server.consumer(&consumer).await;
    // Full, and refuses more.
    let jetstream = async_nats::jetstream::new(plain(&server.connection()).await);
    let full = async_nats::jetstream::stream::Config {
        name: "DLQ".to_owned(),
        subjects: vec!["dlq.>".to_owned()],
        max_messages: 1,
        discard: async_nats::jetstream::stream::DiscardPolicy::New,
        ..Default::default()
    };
    jetstream.create_stream(full.clone()).await.unwrap();
    jetstream.publish("dlq.other", "x".into()).await.unwrap().await.unwrap();
    let recorder = Recorder::default();
    let _task = working(&server, &recorder, &consumer).await;
    publish(&caller(&server).await, "refuse").await;
    let stream = jetstream.get_stream(STREAM).await.unwrap();
    let durable = consumer.durable.as_deref().unwrap();
    let tried = async { while stream.consumer_info(durable).await.unwrap().delivered.consumer_sequence < 6 {} };
    timeout(SOON, tried).await.unwrap();
    assert_eq!(server.stored("DLQ").await.len(), 1);
    jetstream.update_stream(async_nats::jetstream::stream::Config { max_messages: 10, ..full }).await.unwrap();
    let letters = dead_letters(&server, 2).await;
    settled(&server, &consumer).await;
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[1].headers["Event-Id"], "id-refuse");
}

#[tokio::test]
async fn an_event_whose_tasks_have_all_died_is_a_dead_letter_of_the_next() {
    let consumer = selected_consumer();
    let server = prepared(&consumer).await;
    publish(&caller(&server).await, "m").await;
    let jetstream = async_nats::jetstream::new(plain(&server.connection()).await);
    let stream = jetstream.get_stream(STREAM).await.unwrap();
    let pull: async_nats::jetstream::consumer::PullConsumer =
        stream.get_consumer(consumer.durable.as_deref().unwrap()).await.unwrap();
    // As tasks that die while they handle it.
    for _ in 0..consumer.max_deliveries {
        let mut messages = pull.batch().max_messages(1).expires(SOON).messages().await.unwrap();
        let message = timeout(SOON, messages.next()).await.unwrap().unwrap().unwrap();
        message.ack_with(async_nats::jetstream::AckKind::Nak(None)).await.unwrap();
    }
    let recorder = Recorder::default();
    let _task = working(&server, &recorder, &consumer).await;
    let letters = dead_letters(&server, 1).await;
    let expected = ["UNAVAILABLE", "delivered 3 times, and no task that handled it has answered", "3"];
    assert_eq!(said(&letters[0]), expected);
    assert_eq!(recorder.begun(), [""; 0]);
    settled(&server, &consumer).await;
    assert_eq!(server.stored("DLQ").await.len(), 1);
}
