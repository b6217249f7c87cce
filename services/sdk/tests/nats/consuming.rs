//! Events that services handle.

use std::collections::BTreeMap;
use std::sync::Mutex;

use futures::FutureExt as _;
use proto::quest::v1::Generated;
use sdk::{ConsumerSettings, Handler};

use super::*;

pub(crate) const STREAM: &str = "EVT_MODELS";

/// What a test does with an event, and what it saw of it.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    /// Models of the handled events, in order of the beginning of their handling.
    pub(crate) begun: Arc<Mutex<Vec<String>>>,
    /// Models of the events whose handling has ended, each with how it was called.
    pub(crate) contexts: Arc<Mutex<BTreeMap<String, String>>>,
    pub(crate) changed: Arc<Notify>,
    pub(crate) release: Arc<Notify>,
}

impl Handler<Selected> for Recorder {
    async fn handle(&self, event: Selected) -> Result<(), Error> {
        let attempt = {
            let mut begun = self.begun.lock().unwrap();
            begun.push(event.model_id.clone());
            begun.iter().filter(|model| **model == event.model_id).count()
        };
        self.changed.notify_waiters();
        match event.model_id.as_str() {
            "refuse" => return Err(Error::invalid("no such model\nat all")),
            "fail" => return Err(Error::unavailable("the disk is full")),
            "recover" if attempt < 3 => return Err(Error::unavailable("not yet")),
            "panic" => panic!("as requested"),
            "hang" => pending().await,
            "wait" => self.release.notified().await,
            _ => {}
        }
        let context = sdk::context();
        let seen = format!("{:?} {}", context.idempotency_key().unwrap_or_default(), context.request_id());
        self.contexts.lock().unwrap().insert(event.model_id, seen);
        self.changed.notify_waiters();
        Ok(())
    }
}

impl Recorder {
    pub(crate) async fn wait_until(&self, is_so: impl Fn(&Self) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if is_so(self) {
                    return;
                }
                changed.await;
            }
        };
        timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("{:?}", self.begun.lock().unwrap()));
    }

    pub(crate) fn begun(&self) -> Vec<String> {
        self.begun.lock().unwrap().clone()
    }

    fn handled(&self, model: &str) -> bool {
        self.contexts.lock().unwrap().contains_key(model)
    }
}

pub(crate) fn selected_consumer() -> ConsumerSettings {
    ConsumerSettings {
        event: Selected::SUBJECT.to_owned(),
        stream: STREAM.to_owned(),
        durable: Some("quests_selected".to_owned()),
        max_deliveries: 3,
        backoff: vec![Duration::from_millis(20), Duration::from_millis(40)],
        timeout: Duration::from_secs(10),
        ack_wait: Duration::from_secs(30),
        ordered: false,
    }
}

/// One worker of a service that handles events, until it is dropped or stopped.
pub(crate) struct Working {
    trigger: watch::Sender<bool>,
    task: JoinHandle<Result<(), Error>>,
}

impl Working {
    pub(crate) async fn stop(self) {
        self.trigger.send_replace(true);
        timeout(SOON, self.task).await.unwrap().unwrap().unwrap();
    }
}

pub(crate) async fn working(server: &NatsServer, recorder: &Recorder, consumer: &ConsumerSettings) -> Working {
    let settings =
        Settings { consumers: vec![consumer.clone()], ..Settings::for_service("quest-system", server.connection()) };
    let fleet = Fleet::connect(settings).await.unwrap();
    let recorder = recorder.clone();
    let every_task = consumer.durable.is_none();
    let service = sdk::service(move |_| std::future::ready(Ok(recorder.clone())));
    let service = if every_task { service.on_every_task::<Selected>() } else { service.on::<Selected>() };
    let (trigger, shutdown) = Shutdown::new();
    let task = tokio::spawn(async move { service.work(fleet, shutdown).await });
    Working { trigger, task }
}

pub(crate) async fn prepared(consumer: &ConsumerSettings) -> NatsServer {
    let server = NatsServer::start();
    server.stream(STREAM, &[Selected::SUBJECT]).await;
    server.stream("DLQ", &["dlq.>"]).await;
    server.consumer(consumer).await;
    server
}

pub(crate) async fn publish(fleet: &Fleet, model: &str) {
    let event = Selected { model_id: model.to_owned(), ..Selected::default() };
    fleet.publish_as(&format!("id-{model}"), event).await.unwrap();
}

/// The state of the consumer, once nothing waits to be handled.
pub(crate) async fn settled(server: &NatsServer, consumer: &ConsumerSettings) -> async_nats::jetstream::consumer::Info {
    let jetstream = async_nats::jetstream::new(plain(&server.connection()).await);
    let stream = jetstream.get_stream(&consumer.stream).await.unwrap();
    let waiting = async {
        loop {
            let info = stream.consumer_info(consumer.durable.as_deref().unwrap()).await.unwrap();
            if info.num_pending == 0 && info.num_ack_pending == 0 {
                return info;
            }
        }
    };
    timeout(SOON, waiting).await.unwrap()
}

#[tokio::test]
async fn an_event_is_handled_by_one_task_as_an_operation_of_its_own() {
    let consumer = selected_consumer();
    let server = prepared(&consumer).await;
    let recorder = Recorder::default();
    let tasks = [working(&server, &recorder, &consumer).await, working(&server, &recorder, &consumer).await];
    let publisher = caller(&server).await;
    let request = as_request(Some("k"), async {
        for number in 0..500 {
            publish(&publisher, &format!("m{number}")).await;
        }
        sdk::context().request_id().to_owned()
    });
    let request_id = request.await;
    recorder.wait_until(|recorder| recorder.contexts.lock().unwrap().len() == 500).await;
    let info = settled(&server, &consumer).await;
    assert_eq!((recorder.begun().len(), info.num_redelivered), (500, 0));
    for (model, seen) in recorder.contexts.lock().unwrap().iter() {
        assert_eq!(*seen, format!("{:?} {request_id}", format!("id-{model}")));
    }
    for task in tasks {
        task.stop().await;
    }
    assert_eq!(server.stored("DLQ").await, []);
}

#[tokio::test]
async fn an_event_that_fails_for_a_while_is_handled_in_the_end() {
    let consumer = selected_consumer();
    let server = prepared(&consumer).await;
    let recorder = Recorder::default();
    let _task = working(&server, &recorder, &consumer).await;
    publish(&caller(&server).await, "recover").await;
    recorder.wait_until(|recorder| recorder.handled("recover")).await;
    settled(&server, &consumer).await;
    assert_eq!(recorder.begun(), ["recover"; 3]);
    assert_eq!(server.stored("DLQ").await, []);
}

#[tokio::test]
async fn a_handler_that_is_slower_than_the_server_waits_keeps_its_event() {
    let consumer = ConsumerSettings { ack_wait: Duration::from_millis(300), ..selected_consumer() };
    let server = prepared(&consumer).await;
    let recorder = Recorder::default();
    let _task = working(&server, &recorder, &consumer).await;
    let mut acknowledgements = plain(&server.connection()).await.subscribe("$JS.ACK.>").await.unwrap();
    publish(&caller(&server).await, "wait").await;
    // More of them than fit into the time after which the server would deliver the event again.
    for _ in 0..6 {
        let message = timeout(SOON, acknowledgements.next()).await.unwrap().unwrap();
        assert_eq!(message.payload, "+WPI");
    }
    recorder.release.notify_one();
    recorder.wait_until(|recorder| recorder.handled("wait")).await;
    let info = settled(&server, &consumer).await;
    assert_eq!((recorder.begun().len(), info.num_redelivered), (1, 0));
}

#[tokio::test]
async fn an_event_of_a_newer_schema_is_handled() {
    let consumer = selected_consumer();
    let server = prepared(&consumer).await;
    let recorder = Recorder::default();
    let _task = working(&server, &recorder, &consumer).await;
    let mut newer = prost::Message::encode_to_vec(&Selected { model_id: "new".to_owned(), ..Selected::default() });
    // Field 1000, text `hi`.
    newer.extend([0xc2, 0x3e, 2, b'h', b'i']);
    let jetstream = async_nats::jetstream::new(plain(&server.connection()).await);
    jetstream.publish(Selected::SUBJECT, newer.into()).await.unwrap().await.unwrap();
    recorder.wait_until(|recorder| recorder.handled("new")).await;
    // Its publisher gave it no id: its place in the stream names it.
    assert!(recorder.contexts.lock().unwrap()["new"].starts_with("\"EVT_MODELS/1\" "));
}

#[tokio::test]
async fn a_consumer_that_was_deleted_is_used_again_when_it_is_back() {
    let consumer = selected_consumer();
    let server = prepared(&consumer).await;
    let recorder = Recorder::default();
    let _task = working(&server, &recorder, &consumer).await;
    let publisher = caller(&server).await;
    publish(&publisher, "before").await;
    recorder.wait_until(|recorder| recorder.handled("before")).await;
    settled(&server, &consumer).await;
    let jetstream = async_nats::jetstream::new(plain(&server.connection()).await);
    let stream = jetstream.get_stream(STREAM).await.unwrap();
    stream.delete_consumer(consumer.durable.as_deref().unwrap()).await.unwrap();
    publish(&publisher, "after").await;
    let interrupted = || sdk::metrics_text().contains("consumers_interrupted{event=\"evt.ai.model.selected.v1\"} 1");
    timeout(SOON, async {
        while !interrupted() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    server.consumer(&consumer).await;
    recorder.wait_until(|recorder| recorder.handled("after")).await;
}

#[tokio::test]
async fn a_durable_of_another_event_is_not_used() {
    let consumer = selected_consumer();
    let server = NatsServer::start();
    server.stream(STREAM, &[Selected::SUBJECT, Generated::SUBJECT]).await;
    server.consumer(&ConsumerSettings { event: Generated::SUBJECT.to_owned(), ..consumer.clone() }).await;
    let recorder = Recorder::default();
    let _task = working(&server, &recorder, &consumer).await;
    publish(&caller(&server).await, "m").await;
    let refused = || sdk::metrics_text().contains("consumers_interrupted{event=\"evt.ai.model.selected.v1\"} 1");
    timeout(SOON, async {
        while !refused() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(recorder.begun(), [""; 0]);
}

#[tokio::test]
async fn a_task_that_stops_finishes_what_it_has_begun_and_leaves_the_rest_to_others() {
    let consumer = selected_consumer();
    let server = prepared(&consumer).await;
    let (first, second) = (Recorder::default(), Recorder::default());
    let stopping = working(&server, &first, &consumer).await;
    let publisher = caller(&server).await;
    publish(&publisher, "wait").await;
    first.wait_until(|recorder| recorder.begun() == ["wait"]).await;
    stopping.trigger.send_replace(true);
    let _other = working(&server, &second, &consumer).await;
    for number in 0..50 {
        publish(&publisher, &format!("m{number}")).await;
    }
    second.wait_until(|recorder| recorder.contexts.lock().unwrap().len() == 50).await;
    first.release.notify_one();
    timeout(SOON, stopping.task).await.unwrap().unwrap().unwrap();
    settled(&server, &consumer).await;
    assert!(first.handled("wait"));
    assert_eq!(second.begun().len(), 50);
}

#[tokio::test]
async fn ordered_events_are_handled_one_after_the_other_also_when_one_fails() {
    let consumer = ConsumerSettings { ordered: true, ..selected_consumer() };
    let server = prepared(&consumer).await;
    let publisher = caller(&server).await;
    for model in ["a", "recover", "b", "refuse", "c"] {
        publish(&publisher, model).await;
    }
    let recorder = Recorder::default();
    let _tasks = [working(&server, &recorder, &consumer).await, working(&server, &recorder, &consumer).await];
    recorder.wait_until(|recorder| recorder.handled("c")).await;
    assert_eq!(recorder.begun(), ["a", "recover", "recover", "recover", "b", "refuse", "c"]);
}

#[tokio::test]
async fn every_task_gets_an_event_that_is_for_every_task() {
    let consumer = ConsumerSettings { durable: None, ..selected_consumer() };
    let server = NatsServer::start();
    server.stream(STREAM, &[Selected::SUBJECT, "other"]).await;
    let publisher = caller(&server).await;
    publish(&publisher, "before").await;
    let recorders = [Recorder::default(), Recorder::default()];
    let tasks = [working(&server, &recorders[0], &consumer).await, working(&server, &recorders[1], &consumer).await];
    let ready = async { while !server.ping("quest-system").await {} };
    timeout(SOON, ready).await.unwrap();
    for model in ["fail", "panic", "recover", "last"] {
        publish(&publisher, model).await;
    }
    for recorder in &recorders {
        recorder.wait_until(|recorder| recorder.handled("last")).await;
        let begun = recorder.begun();
        let attempts = |model: &str| begun.iter().filter(|begun| *begun == model).count();
        assert_eq!(["before", "fail", "panic", "recover", "last"].map(attempts), [0, 3, 3, 3, 1]);
    }
    // A stream that is made anew is followed from its beginning.
    server.delete_stream(STREAM).await;
    server.stream(STREAM, &[Selected::SUBJECT]).await;
    publish(&publisher, "anew").await;
    for recorder in &recorders {
        recorder.wait_until(|recorder| recorder.handled("anew")).await;
    }
    for task in tasks {
        task.stop().await;
    }
}

#[tokio::test]
async fn a_program_that_handles_other_events_than_its_manifest_consumes_does_not_start() {
    let server = NatsServer::start();
    let fleet = server.fleet("quest-system").await;
    let (_trigger, shutdown) = Shutdown::new();
    let service = sdk::service(|_| std::future::ready(Ok(Recorder::default()))).on::<Selected>();
    let error = service.work(fleet, shutdown).now_or_never().unwrap().unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("the manifest does not consume it"), "{error}");
}
