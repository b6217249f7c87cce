//! Decisions by plain values.

use super::*;
use crate::model::desired::{Bucket, Consumer, ConsumerStart, Stream};

fn answered(tasks: &[(&str, &str)]) -> BTreeSet<RespondingTask> {
    let one = |&(task, revision): &(&str, &str)| RespondingTask {
        task: task.to_owned(),
        revision: revision.to_owned(),
        version: "1.2.0".to_owned(),
    };
    tasks.iter().map(one).collect()
}

fn expected(tasks: u32, known: &[&str]) -> ExpectedTasks {
    ExpectedTasks { revision: 7, tasks, known: known.iter().map(ToString::to_string).collect() }
}

fn check(expected: &ExpectedTasks, found: &[(&str, &str)], says: &str) {
    let outcome = expected.proof("quest", &answered(found));
    assert_eq!(outcome.unwrap_or_else(|error| error.to_string()), says);
}

#[test]
fn a_service_is_proved_by_its_tasks() {
    let proof = "quest answers on the bus: 2 tasks of r7, 1.2.0";
    check(&expected(2, &[]), &[("a", "7"), ("b", "7")], proof);
    check(&expected(2, &["a", "b"]), &[("a", "7"), ("b", "7")], proof);
    // One that is about to stop does no harm.
    check(&expected(2, &["a", "b"]), &[("a", "7"), ("b", "7"), ("old", "6")], proof);
}

#[test]
fn who_does_not_answer_is_named() {
    let start = "`quest` is deployed, but of revision 7";
    check(&expected(2, &[]), &[("a", "7")], &format!("{start} only 1 of 2 tasks answer on the bus"));
    check(&expected(2, &["a", "b"]), &[("a", "7")], &format!("{start} these tasks do not answer on the bus: b"));
    check(
        &expected(2, &[]),
        &[("a", "6"), ("b", "6")],
        &format!("{start} only 0 of 2 tasks answer on the bus; tasks of revision 6 do"),
    );
    // As many as there should be, but not those.
    check(&expected(1, &["a"]), &[("b", "7")], &format!("{start} these tasks do not answer on the bus: a"));
}

#[test]
fn workers_of_a_task_are_one_task() {
    let instance = |id: &str, service: &str| -> Instance {
        let metadata = serde_json::json!({ "task": "a", "revision": "7", "worker": id });
        serde_json::from_value(
            serde_json::json!({ "name": service, "id": id, "version": "1.2.0", "metadata": metadata }),
        )
        .unwrap()
    };
    let instances = [instance("a-0", "quest"), instance("a-1", "quest"), instance("b-0", "weather")];
    assert_eq!(tasks(&instances, "quest"), answered(&[("a", "7")]));
}

#[test]
fn answers_are_found_among_other_lines() {
    let found = ReplyLine::Found { service: "quest".to_owned(), tasks: answered(&[("a", "7")]) };
    let (found, done) = (found.write().unwrap(), ReplyLine::Done.write().unwrap());
    let lines = ["something else", &found, "natsctl-bus nonsense"];
    assert!(parse_reply(lines).is_none());
    let gathered = parse_reply(lines.into_iter().chain([&*done])).unwrap().unwrap();
    assert_eq!(gathered, RespondingTasks::from([("quest".to_owned(), answered(&[("a", "7")]))]));

    let failed = ReplyLine::Failed { message: "no".to_owned(), hint: Some("do".to_owned()) }.write().unwrap();
    let error = parse_reply([&*failed]).unwrap().unwrap_err();
    assert_eq!((error.to_string(), crate::error::hint(&error)), ("no".to_owned(), Some("do".to_owned())));
}

#[test]
fn long_requests_are_parted_and_lose_nothing() {
    let services: BTreeMap<String, ExpectedTasks> =
        (0..100).map(|n| (format!("service-{n}"), expected(2, &["a"]))).collect();
    let parts = BusRequest::Find(services.clone()).parts(1000);
    assert!(parts.len() > 4);
    let mut together = BTreeMap::new();
    for part in parts {
        assert!(serde_json::to_string(&part).unwrap().len() <= 1000);
        let BusRequest::Find(services) = part else { panic!("another request") };
        together.extend(services);
    }
    assert_eq!(together, services);

    let stream = Stream {
        subjects: vec!["evt.>".to_owned()],
        replicas: 3,
        max_age_seconds: 1,
        duplicate_window_seconds: 1,
        ..Stream::default()
    };
    let bucket = Bucket { replicas: 3, history: 1, ..Bucket::default() };
    let consumer = Consumer {
        service: None,
        subjects: vec!["evt.>".to_owned()],
        start: ConsumerStart::All,
        ack_wait_ms: 1,
        max_ack_pending: 1,
        max_deliver: -1,
    };
    let assets = Assets {
        streams: (0..10).map(|n| (format!("s{n}"), stream.clone())).collect(),
        buckets: (0..10).map(|n| (format!("b{n}"), bucket.clone())).collect(),
        consumers: (0..10).map(|n| (format!("s{n}/c"), consumer.clone())).collect(),
    };
    let mut together = Assets::default();
    for part in BusRequest::Ensure(assets.clone()).parts(200) {
        let BusRequest::Ensure(part) = part else { panic!("another request") };
        let streams = part.consumers.keys().map(|name| name.strip_suffix("/c").unwrap());
        streams.for_each(|stream| assert!(together.streams.contains_key(stream), "{stream} is needed first"));
        together.streams.extend(part.streams);
        together.buckets.extend(part.buckets);
        together.consumers.extend(part.consumers);
    }
    assert_eq!(together, assets);
}
