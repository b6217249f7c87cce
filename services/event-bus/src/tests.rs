//! The service against a real nats-server.

use futures::future::join_all;
use prost::Message as _;
use sdk::Event as _;
use sdk::testing::{NatsServer, Time, as_request};

use super::*;

async fn server() -> NatsServer {
    let server = NatsServer::start();
    for bucket in ["bus_streams", "bus_messages", "bus_subscriptions"] {
        server.bucket(bucket, 1).await;
    }
    server.stream("EVENTS", &[DeadLettered::SUBJECT]).await;
    server.outboxes(&["bus_subscriptions"], "EVENTS").await;
    server
}

/// Two tasks, and the streams `orders` and `others`.
async fn tasks(server: &NatsServer, time: &Time) -> [Service; 2] {
    let task = async || Service::new(server.fleet_at("event-bus", time).await).await.unwrap();
    let tasks = [task().await, task().await];
    for name in ["orders", "others"] {
        let request = PutStreamRequest { name: name.to_owned(), ..PutStreamRequest::default() };
        as_request(None, tasks[0].put_stream(request)).await.unwrap();
    }
    tasks
}

fn message(topic: &str, payload: &str) -> PublishRequest {
    PublishRequest {
        stream: "orders".to_owned(),
        topic: topic.to_owned(),
        payload: payload.as_bytes().to_vec().into(),
        ..PublishRequest::default()
    }
}

/// To all orders; a message is delivered twice at most, and due again after a second.
fn all_orders() -> PutSubscriptionRequest {
    PutSubscriptionRequest {
        stream: "orders".to_owned(),
        name: "all".to_owned(),
        ack_wait_ms: 1_000,
        max_deliveries: 2,
        ..PutSubscriptionRequest::default()
    }
}

fn orders() -> ReplayRequest {
    ReplayRequest { stream: "orders".to_owned(), ..ReplayRequest::default() }
}

fn text(message: Option<&Message>) -> String {
    String::from_utf8(message.unwrap().payload.to_vec()).unwrap()
}

impl Service {
    async fn published(&self, topic: &str, payload: &str) -> u64 {
        as_request(None, self.publish(message(topic, payload))).await.unwrap().sequence
    }

    async fn replayed(&self, request: ReplayRequest) -> Vec<String> {
        let messages: Vec<_> = self.replay(request).await.unwrap().try_collect().await.unwrap();
        messages.into_iter().map(|it: ReplayResponse| text(it.message.as_ref())).collect()
    }

    async fn subscribed(&self, request: PutSubscriptionRequest) -> Result<SubscriptionInfo, Error> {
        Ok(as_request(None, self.put_subscription(request)).await?.subscription.unwrap())
    }

    /// What a fetch gets: text and number of the delivery.
    async fn fetched(&self, key: Option<&str>, limit: u32) -> Vec<(String, u32)> {
        let (stream, subscription) = ("orders".to_owned(), "all".to_owned());
        let request = FetchRequest { stream, subscription, limit, ..FetchRequest::default() };
        let response = as_request(key, self.fetch(request)).await.unwrap();
        response.deliveries.iter().map(|it| (text(it.message.as_ref()), it.number)).collect()
    }

    async fn acked(&self, sequences: &[u64]) -> Vec<u64> {
        let (stream, subscription) = ("orders".to_owned(), "all".to_owned());
        let request = AckRequest { stream, subscription, sequences: sequences.to_vec(), ..AckRequest::default() };
        as_request(None, self.ack(request)).await.unwrap().not_in_flight
    }

    async fn nakked(&self, sequence: u64, delivery: u32, delay_ms: u32) -> (bool, bool) {
        let request = NakRequest {
            stream: "orders".to_owned(),
            subscription: "all".to_owned(),
            sequence,
            delivery,
            delay_ms,
            reason: "busy".to_owned(),
            ..NakRequest::default()
        };
        let response = as_request(None, self.nak(request)).await.unwrap();
        (response.accepted, response.dead_letter)
    }

    /// Lag, messages in flight, and dead letters.
    async fn lag(&self) -> (u64, u32, u32) {
        let request = ListSubscriptionsRequest { stream: "orders".to_owned(), ..ListSubscriptionsRequest::default() };
        let all = self.list_subscriptions(request).await.unwrap().subscriptions;
        let [info] = &all[..] else { panic!("{all:?}") };
        assert_eq!(info.lag, info.waiting + u64::from(info.in_flight));
        (info.lag, info.in_flight, info.dead_letters)
    }
}

fn texts<const N: usize>(expected: [(&str, u32); N]) -> Vec<(String, u32)> {
    expected.map(|(text, number)| (text.to_owned(), number)).into()
}

#[tokio::test]
async fn a_message_is_stored_once_for_its_dedupe_id_and_replayed_in_order() {
    let (server, time) = (server().await, Time::default());
    let tasks = tasks(&server, &time).await;
    let with_id = |payload: &str| PublishRequest { dedupe_id: "1".to_owned(), ..message("eu.new", payload) };
    let publish = |number: usize| as_request(None, tasks[number % 2].publish(with_id("a")));
    let stored: Vec<_> = join_all((0..6).map(publish)).await.into_iter().map(Result::unwrap).collect();
    assert!(stored.iter().all(|it| it.sequence == stored[0].sequence), "{stored:?}");
    assert_eq!(stored.iter().filter(|it| !it.duplicate).count(), 1);
    let error = as_request(None, tasks[1].publish(with_id("other"))).await.unwrap_err();
    assert_eq!(error.detail(reason::KEY), Some("dedupe_id_reused"));
    for _ in 0..2 {
        as_request(Some("k"), tasks[0].publish(message("eu.paid", "b"))).await.unwrap();
    }
    time.pass(Duration::from_secs(60));
    tasks[1].published("us.new", "c").await;
    let elsewhere = PublishRequest { stream: "others".to_owned(), ..message("eu.new", "elsewhere") };
    as_request(None, tasks[0].publish(elsewhere)).await.unwrap();
    let last = tasks[0].published("eu.new", "d").await;

    assert_eq!(tasks[0].replayed(orders()).await, ["a", "b", "c", "d"]);
    let eu = ReplayRequest { topic: "eu.*".to_owned(), limit: 2, ..orders() };
    assert_eq!(tasks[0].replayed(eu).await, ["a", "b"]);
    let start = Some(ReplayStart::FromTime((time.now() - Duration::from_secs(1)).into()));
    assert_eq!(tasks[1].replayed(ReplayRequest { start, ..orders() }).await, ["c", "d"]);
    let start = Some(ReplayStart::FromSequence(last));
    assert_eq!(tasks[1].replayed(ReplayRequest { start, ..orders() }).await, ["d"]);

    let following = ReplayRequest { start, follow: true, ..orders() };
    let mut following = tasks[0].replay(following).await.unwrap();
    tasks[1].published("eu.new", "e").await;
    for expected in ["d", "e"] {
        let next = tokio::time::timeout(Duration::from_secs(20), following.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(text(next.message.as_ref()), expected);
    }
    let streams = tasks[0].list_streams(ListStreamsRequest::default()).await.unwrap().streams;
    let counts: Vec<_> = streams.iter().map(|it| (&*it.stream.as_ref().unwrap().name, it.messages)).collect();
    assert_eq!((counts, streams[0].first_sequence), (vec![("orders", 5), ("others", 1)], stored[0].sequence));
}

#[tokio::test]
async fn messages_are_delivered_until_they_are_acknowledged_whichever_task_serves() {
    let (server, time) = (server().await, Time::default());
    let tasks = tasks(&server, &time).await;
    let [a, b] = [tasks[0].published("eu", "a").await, tasks[0].published("eu", "b").await];
    tasks[0].subscribed(all_orders()).await.unwrap();
    assert_eq!(tasks[1].lag().await, (2, 0, 0));
    assert_eq!(tasks[1].fetched(Some("k"), 1).await, texts([("a", 1)]));
    assert_eq!(tasks[0].fetched(Some("k"), 1).await, texts([("a", 1)]), "the same request again");
    assert_eq!(tasks[0].fetched(None, 5).await, texts([("b", 1)]));
    assert_eq!((tasks[0].acked(&[a, a + 1_000]).await, tasks[1].lag().await), (vec![a + 1_000], (1, 1, 0)));

    assert_eq!(tasks[1].nakked(b, 1, 500).await, (true, false));
    assert_eq!(tasks[1].fetched(None, 5).await, []);
    time.pass(Duration::from_millis(500));
    assert_eq!(tasks[0].fetched(None, 5).await, texts([("b", 2)]));
    assert_eq!(tasks[0].nakked(b, 1, 0).await, (false, false), "an earlier delivery");
    assert_eq!((tasks[1].acked(&[b]).await, tasks[1].lag().await), (vec![], (0, 0, 0)));

    let waiting = async {
        let request = FetchRequest { wait_ms: 20_000, ..FetchRequest::default() };
        let request = FetchRequest { stream: "orders".to_owned(), subscription: "all".to_owned(), ..request };
        as_request(None, tasks[1].fetch(request)).await.unwrap().deliveries.len()
    };
    let (fetched, _) = tokio::join!(waiting, tasks[0].published("eu", "late"));
    assert_eq!(fetched, 1);
}

#[tokio::test]
async fn of_many_fetches_at_once_each_message_goes_to_one() {
    let (server, time) = (server().await, Time::default());
    let tasks = tasks(&server, &time).await;
    tasks[0].subscribed(all_orders()).await.unwrap();
    for number in 0..30 {
        tasks[number % 2].published("eu", &number.to_string()).await;
    }
    let fetches = join_all((0..10).map(|number| tasks[number % 2].fetched(None, 3))).await;
    let mut all: Vec<_> = fetches.into_iter().flatten().collect();
    // Some may have read what others got.
    loop {
        match tasks[0].fetched(None, 25).await {
            more if more.is_empty() => break,
            more => all.extend(more),
        }
    }
    all.sort_by_key(|(text, _)| text.parse::<usize>().unwrap());
    assert_eq!(all, (0..30).map(|number| (number.to_string(), 1)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_message_that_is_never_acknowledged_becomes_a_dead_letter_and_can_be_delivered_again() {
    let (server, time) = (server().await, Time::default());
    let tasks = tasks(&server, &time).await;
    tasks[0].subscribed(all_orders()).await.unwrap();
    let [a, b] = [tasks[0].published("eu", "a").await, tasks[0].published("eu", "b").await];
    for number in 1..=2 {
        assert_eq!(tasks[0].fetched(None, 5).await, texts([("a", number), ("b", number)]));
        if number == 1 {
            time.pass(Duration::from_secs(1));
        }
    }
    assert_eq!(tasks[0].nakked(a, 2, 9_000).await, (true, true));
    time.pass(Duration::from_secs(1));
    // Nobody fetches: each task finds by itself what is exhausted.
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while tasks[1].lag().await != (0, 0, 2) {
        assert!(tokio::time::Instant::now() < until, "{:?}", tasks[1].lag().await);
        tasks[1].turn().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let events = server.stored_from(&["bus_subscriptions"], "EVENTS").await.into_iter();
    let events: Vec<_> = events.map(|stored| DeadLettered::decode(stored.payload).unwrap()).collect();
    let told: Vec<_> = events.iter().map(|it| (it.sequence, it.deliveries, &*it.reason)).collect();
    assert_eq!(told, [(a, 2, "busy"), (b, 2, "")]);

    let (stream, subscription) = ("orders".to_owned(), "all".to_owned());
    let list = ListDeadLettersRequest { stream, subscription, ..ListDeadLettersRequest::default() };
    let letters = tasks[0].list_dead_letters(list).await.unwrap().dead_letters;
    assert_eq!(letters.iter().map(|it| text(it.message.as_ref())).collect::<Vec<_>>(), ["a", "b"]);
    let (stream, subscription) = ("orders".to_owned(), "all".to_owned());
    let again = RedeliverDeadLettersRequest { stream, subscription, sequences: vec![b, 99], meta: None };
    assert_eq!(as_request(None, tasks[0].redeliver_dead_letters(again)).await.unwrap().unknown, [99]);
    assert_eq!(tasks[1].fetched(None, 5).await, texts([("b", 1)]));
    let (stream, subscription) = ("orders".to_owned(), "all".to_owned());
    let drop = DropDeadLettersRequest { stream, subscription, sequences: vec![a], meta: None };
    assert!(as_request(None, tasks[0].drop_dead_letters(drop)).await.unwrap().unknown.is_empty());
    assert_eq!(tasks[0].lag().await, (1, 1, 0));
}

#[tokio::test]
async fn a_subscription_begins_where_it_is_asked_to() {
    let (server, time) = (server().await, Time::default());
    let [task, _] = tasks(&server, &time).await;
    let sequences = [task.published("eu", "a").await, task.published("us", "b").await];
    time.pass(Duration::from_secs(60));
    task.published("eu", "c").await;
    let waiting = async |name: &str, start: Option<Start>, topic: &str| {
        let (name, topic) = (name.to_owned(), topic.to_owned());
        task.subscribed(PutSubscriptionRequest { name, start, topic, ..all_orders() }).await.unwrap().waiting
    };
    assert_eq!(waiting("all", None, "").await, 3);
    assert_eq!(waiting("eu", None, "eu").await, 2);
    assert_eq!(waiting("new", Some(Start::NewOnly(true)), "").await, 0);
    assert_eq!(waiting("later", Some(Start::FromSequence(sequences[1])), "").await, 2);
    assert_eq!(waiting("timed", Some(Start::FromTime(time.now().into())), "").await, 1);
    assert_eq!(waiting("new", None, "").await, 0, "it exists already");
}

#[tokio::test]
async fn bad_requests_say_what_is_accepted() {
    let (server, time) = (server().await, Time::default());
    let [task, _] = tasks(&server, &time).await;
    task.subscribed(all_orders()).await.unwrap();
    let nowhere = PublishRequest { stream: "nowhere".to_owned(), ..message("eu", "") };
    let beyond = ReplayRequest { start: Some(ReplayStart::FromSequence(9)), ..orders() };
    let delete = DeleteStreamRequest { name: "orders".to_owned(), ..DeleteStreamRequest::default() };
    let fetch =
        FetchRequest { stream: "orders".to_owned(), subscription: "none".to_owned(), ..FetchRequest::default() };
    let many = FetchRequest { limit: 26, ..fetch.clone() };
    let ack = AckRequest { stream: "orders".to_owned(), subscription: "all".to_owned(), ..AckRequest::default() };
    let subscribe = |request| async { task.subscribed(request).await.map(drop) };
    let outcomes = [
        (as_request(None, task.publish(nowhere)).await.map(drop), Code::NotFound, "stream `nowhere` does not exist"),
        (
            as_request(None, task.publish(message("eu.*", ""))).await.map(drop),
            Code::InvalidArgument,
            "topic must be 1 to 128 bytes",
        ),
        (task.replay(beyond).await.map(drop), Code::OutOfRange, "from_sequence is 9, the latest is 0"),
        (as_request(None, task.delete_stream(delete)).await.map(drop), Code::FailedPrecondition, "has 1 subscriptions"),
        (as_request(None, task.fetch(fetch)).await.map(drop), Code::NotFound, "subscription `none` of stream `orders`"),
        (as_request(None, task.fetch(many)).await.map(drop), Code::InvalidArgument, "limit is 26, it must be 1 to 25"),
        (as_request(None, task.ack(ack)).await.map(drop), Code::InvalidArgument, "number of sequences is 0"),
        (
            subscribe(PutSubscriptionRequest { topic: "eu".to_owned(), ..all_orders() }).await,
            Code::FailedPrecondition,
            "is to topic `>`",
        ),
        (
            subscribe(PutSubscriptionRequest { ack_wait_ms: 99, ..all_orders() }).await,
            Code::InvalidArgument,
            "ack_wait_ms is 99, it must be 100 to 3600000",
        ),
        (
            subscribe(PutSubscriptionRequest {
                name: "n".to_owned(),
                start: Some(Start::NewOnly(false)),
                ..all_orders()
            })
            .await,
            Code::InvalidArgument,
            "new_only must be true",
        ),
    ];
    for (outcome, code, because) in outcomes {
        let error = outcome.unwrap_err();
        assert!(error.code() == code && error.message().contains(because), "{error}");
    }
}
