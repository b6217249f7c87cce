//! Values and the events that follow from them.

use std::collections::BTreeSet;
use std::pin::pin;
use std::task::Poll;

use futures::future::join_all;
use sdk::Bucket;

use super::*;

const SUBJECT: &str = Selected::SUBJECT;

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.bucket("things", 64).await;
    server.stream("EVENTS", &[SUBJECT]).await;
    server.outboxes(&["things"], "EVENTS").await;
    server
}

async fn things(server: &NatsServer) -> Bucket {
    caller(server).await.bucket("things").await.unwrap()
}

fn event(model: &str) -> Selected {
    Selected { model_id: model.to_owned(), ..Selected::default() }
}

/// Appends a line to the value, unless it has it, and publishes it.
async fn append(bucket: &Bucket, key: &str, line: &str) -> Result<u64, WriteError> {
    let changed = bucket.change(key, |entry| {
        let text = entry.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap()).unwrap_or_default();
        Ok(match text.lines().any(|known| known == line) {
            true => Change::keep(()),
            false => Change::write_with_event(format!("{text}{line}\n"), event(line), ()),
        })
    });
    Ok(changed.await?.1)
}

/// What the events say, sorted.
async fn events(server: &NatsServer) -> Vec<String> {
    let stored = server.stored_from(&["things"], "EVENTS").await;
    let mut lines: Vec<String> =
        stored.into_iter().map(|stored| sdk_decode::<Selected>(stored.payload).model_id).collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn a_value_and_its_event_are_stored_together() {
    let server = server().await;
    let bucket = things(&server).await;
    let written = as_request(Some("k"), append(&bucket, "a.1", "one")).await.unwrap();
    let entry = bucket.get("a.1").await.unwrap().unwrap();
    assert_eq!((&entry.value[..], entry.revision), (&b"one\n"[..], written));
    let second = append(&bucket, "a.1", "two").await.unwrap();
    assert!(second > written);

    let stored = server.stored_from(&["things"], "EVENTS").await;
    let ids: BTreeSet<&str> = stored.iter().map(|stored| stored.id.as_deref().unwrap()).collect();
    assert_eq!((stored.len(), ids.len()), (2, 2));
    assert_eq!(stored[0].subject, SUBJECT);
    let first: Selected = sdk_decode(stored[0].payload.clone());
    assert_eq!(first.meta.unwrap().idempotency_key, "k");

    // Clients of the bucket see keys and values alone.
    let entries = bucket.entries(">").await.unwrap();
    assert_eq!(entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>(), ["a.1"]);
    assert_eq!(bucket.history("a.1").await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_deleted_key_is_written_again() {
    let server = server().await;
    let bucket = things(&server).await;
    append(&bucket, "k", "one").await.unwrap();
    bucket.delete("k").await.unwrap();
    append(&bucket, "k", "two").await.unwrap();
    assert_eq!(bucket.get("k").await.unwrap().unwrap().value, "two\n");
    assert_eq!(events(&server).await, ["one", "two"]);
}

#[tokio::test]
async fn every_one_of_many_concurrent_writes_has_its_event() {
    let server = server().await;
    let bucket = things(&server).await;
    let lines: Vec<String> = (100..300).map(|number| number.to_string()).collect();
    // More than the 50 batches that nats-server keeps open for one stream, and some that contend.
    let writes = lines.iter().enumerate().map(|(number, line)| {
        let bucket = bucket.clone();
        async move { append(&bucket, &format!("k{}", number.saturating_sub(8)), line).await }
    });
    for written in join_all(writes).await {
        written.unwrap();
    }
    assert_eq!(events(&server).await, lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_overtaken_leaves_no_event() {
    let server = server().await;
    let bucket = things(&server).await;
    let overtake = || {
        let others = bucket.put("k", "theirs".into());
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(others)).unwrap();
        Ok(Change::write_with_event("ours", event("ours"), ()))
    };
    assert_eq!(bucket.change("k", |_| overtake()).await, Err(WriteError::Conflict));
    assert_eq!(bucket.get("k").await.unwrap().unwrap().value, "theirs");
    append(&bucket, "other", "one").await.unwrap();
    assert_eq!(events(&server).await, ["one"]);
}

/// Drops a future when it has been polled this many times, as a task does that dies.
async fn given_up_after(polls: usize, future: impl Future) {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Pending if left > 0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_write_that_is_given_up_at_any_point_has_one_event_or_none() {
    let server = server().await;
    let bucket = things(&server).await;
    let mut repeated = Vec::new();
    for polls in 1..=24 {
        let (abandoned, line) = (format!("a{polls}"), format!("b{polls}"));
        given_up_after(polls, append(&bucket, &abandoned, &abandoned)).await;
        given_up_after(polls, append(&bucket, &line, &line)).await;
        append(&bucket, &line, &line).await.unwrap();
        repeated.push(line);
    }
    repeated.sort_unstable();
    let (once, published): (Vec<String>, Vec<String>) =
        events(&server).await.into_iter().partition(|line| line.starts_with('a'));
    assert_eq!(published, repeated);
    let entries = bucket.entries(">").await.unwrap();
    let mut stored: Vec<String> = entries.into_iter().map(|entry| entry.key).collect();
    stored.retain(|key| key.starts_with('a'));
    assert_eq!(once, stored);
    // Some died before the write, and some after it.
    assert!((1..24).contains(&stored.len()), "{}", stored.len());
}

#[tokio::test]
async fn a_bucket_without_an_outbox_says_what_to_do_and_is_used_once_it_has_one() {
    let server = NatsServer::start();
    server.bucket("things", 1).await;
    server.stream("EVENTS", &[SUBJECT]).await;
    let bucket = things(&server).await;
    let error = Error::from(append(&bucket, "k", "one").await.unwrap_err());
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("bucket `things` has no outbox") && error.message().contains("natsctl deploy"));
    assert_eq!(bucket.get("k").await, Ok(None));

    server.outboxes(&["things"], "EVENTS").await;
    append(&bucket, "k", "one").await.unwrap();
    assert_eq!(events(&server).await, ["one"]);
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_at_once_and_leaves_nothing() {
    let server = server().await;
    let bucket = things(&server).await;
    let write = async |key: &str, value: usize, text: usize| {
        let change = || Ok(Change::write_with_event("x".repeat(value), event(&"x".repeat(text)), ()));
        let written = timeout(Duration::from_secs(2), bucket.change(key, |_| change())).await.unwrap();
        Error::from(written.unwrap_err())
    };
    let large = 2 << 20;
    for (error, code, expected) in [
        (write("k", large, 1).await, Code::InvalidArgument, "has 2097152 bytes, too many for bucket `things`"),
        (write("k", 1, large).await, Code::Internal, "event `evt.ai.model.selected.v1` has 2097"),
        (write("a b", 1, 1).await, Code::InvalidArgument, "`a b` is not a valid key for bucket `things`"),
        (write("", 1, 1).await, Code::InvalidArgument, "`` is not a valid key"),
    ] {
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(expected), "{error}");
    }
    assert_eq!(bucket.get("k").await, Ok(None));
    assert_eq!(events(&server).await, [""; 0]);
}
