//! Tasks that are killed at any moment while they handle events.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use proto::quest::v1::Generated;
use sdk::ConsumerSettings;

use super::consuming::settled;
use super::*;

/// How often tasks are killed.
const KILLS: usize = 200;
/// Events that are published for each kill.
const EVENTS_PER_KILL: usize = 10;
/// One of this many cannot be handled.
const REFUSED_OF: usize = 10;

/// The program `examples/consumer.rs`, killed when it is dropped.
struct Task(Child);

impl Drop for Task {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Task {
    fn start(server: &NatsServer, consumer: &ConsumerSettings) -> Self {
        let consumers = serde_json::json!([{
            "event": consumer.event,
            "stream": consumer.stream,
            "durable": consumer.durable,
            "max_deliveries": consumer.max_deliveries,
            "backoff_ms": [20],
            "timeout_ms": 10_000,
            "ack_wait_ms": u64::try_from(consumer.ack_wait.as_millis()).unwrap(),
        }]);
        let child = Command::new(program())
            .env("NATS_URLS", server.connection().urls.join(","))
            .env("SERVICE_NAME", "announcements")
            .env("NATS_CONSUMERS", consumers.to_string())
            .env("HEALTH_ADDR", "127.0.0.1:0")
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("the example starts"))
    }
}

fn program() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let program = here.ancestors().nth(2).unwrap().join("examples/consumer");
    assert!(program.is_file(), "build it first: `cargo build -p sdk --example consumer`");
    program
}

#[tokio::test]
async fn no_event_is_lost_however_often_tasks_are_killed() {
    let consumer = ConsumerSettings {
        event: Generated::SUBJECT.to_owned(),
        stream: "EVT_QUESTS".to_owned(),
        durable: Some("announcements".to_owned()),
        // Kills use up deliveries, and none of these events may become a dead letter for that.
        max_deliveries: 1_000,
        backoff: vec![Duration::from_millis(20)],
        timeout: Duration::from_secs(10),
        ack_wait: Duration::from_secs(1),
        ordered: false,
    };
    let server = NatsServer::start();
    server.stream("EVT_QUESTS", &[Generated::SUBJECT]).await;
    server.stream("DLQ", &["dlq.>"]).await;
    server.bucket("announced", 1).await;
    server.consumer(&consumer).await;
    let publisher = caller(&server).await;
    let refused = |number: usize| number.is_multiple_of(REFUSED_OF);

    let mut published = 0;
    for _ in 0..KILLS {
        let task = Task::start(&server, &consumer);
        for _ in 0..EVENTS_PER_KILL {
            let event = Generated {
                quest_id: format!("q{published}"),
                template: if refused(published) { "refuse" } else { "hunt" }.to_owned(),
                ..Generated::default()
            };
            publisher.publish_as(&format!("q{published}"), event).await.unwrap();
            published += 1;
        }
        // From before it has connected until after it has handled all of them.
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..150_000))).await;
        drop(task);
    }
    let _last = Task::start(&server, &consumer);
    settled(&server, &consumer).await;

    let bucket = publisher.bucket("announced").await.unwrap();
    let mut repeated = 0;
    for number in (0..published).filter(|number| !refused(*number)) {
        let entry = bucket.get(&format!("q{number}")).await.unwrap();
        let handled = entry.unwrap_or_else(|| panic!("event {number} was lost")).value.len();
        repeated += handled - 1;
    }
    let letters = server.stored("DLQ").await;
    let mut ids: Vec<&str> = letters.iter().map(|letter| letter.headers["Event-Id"].as_str()).collect();
    ids.sort_unstable();
    let mut expected: Vec<String> =
        (0..published).filter(|number| refused(*number)).map(|it| format!("q{it}")).collect();
    expected.sort_unstable();
    assert_eq!(ids, expected);
    assert!(
        published == KILLS * EVENTS_PER_KILL && repeated < published,
        "{repeated} of {published} were handled again"
    );
}
