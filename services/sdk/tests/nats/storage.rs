//! Events and buckets.

use super::*;

#[tokio::test]
async fn an_event_with_the_same_id_is_stored_once() {
    let server = NatsServer::start();
    server.stream("EVENTS", &[Selected::SUBJECT]).await;
    let fleet = caller(&server).await;
    let event = |model: &str| Selected { model_id: model.into(), ..Selected::default() };
    as_request(Some("k1"), async {
        fleet.publish(event("a")).await.unwrap();
        fleet.publish(event("b")).await.unwrap();
    })
    .await;
    // A retry of the same operation: its meta differs, but is not part of the event's content.
    as_request(Some("k1"), fleet.publish(event("a"))).await.unwrap();
    as_request(Some("k2"), fleet.publish(event("a"))).await.unwrap();
    let stored = server.stored("EVENTS").await;
    let ids: Vec<_> = stored.iter().map(|stored| stored.id.as_deref().unwrap()).collect();
    let subject = "evt.ai.model.selected.v1";
    // Literal, because tasks of two versions must give the same event the same id.
    let published = [
        format!("k1/{subject}/b048e13fe45347c9"),
        format!("k1/{subject}/9ea81a4918d8829a"),
        format!("k2/{subject}/b048e13fe45347c9"),
    ];
    assert_eq!(ids, published);
    let first: Selected = sdk_decode(stored[0].payload.clone());
    assert_eq!((stored[0].subject.as_str(), first.model_id.as_str()), (subject, "a"));
    let meta = first.meta.unwrap();
    assert!(!meta.request_id.is_empty());
    assert_eq!(meta.idempotency_key, "k1");
}

#[tokio::test]
async fn an_event_that_no_stream_takes_is_an_error() {
    let server = NatsServer::start();
    let fleet = caller(&server).await;
    let error = within(500).scope(fleet.publish(Selected::default())).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("evt.ai.model.selected.v1"), "{error}");
}

#[tokio::test]
async fn state_is_written_by_compare_and_set() {
    let server = NatsServer::start();
    server.bucket("things", 5).await;
    let bucket = caller(&server).await.bucket("things").await.unwrap();

    assert_eq!(bucket.get("a.1").await.unwrap(), None);
    let first = bucket.create("a.1", "one".into()).await.unwrap();
    assert_eq!(bucket.create("a.1", "x".into()).await, Err(WriteError::Conflict));
    let second = bucket.update("a.1", "two".into(), first).await.unwrap();
    assert_eq!(bucket.update("a.1", "x".into(), first).await, Err(WriteError::Conflict));
    let entry = bucket.get("a.1").await.unwrap().unwrap();
    assert_eq!((entry.key.as_str(), &entry.value[..], entry.revision), ("a.1", &b"two"[..], second));

    bucket.put("a.2", "three".into()).await.unwrap();
    bucket.put("b.1", "four".into()).await.unwrap();
    let keys = |entries: Vec<sdk::Entry>| entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>();
    assert_eq!(keys(bucket.entries("a.*").await.unwrap()), ["a.1", "a.2"]);
    let revisions: Vec<u64> = bucket.history("a.1").await.unwrap().iter().map(|entry| entry.revision).collect();
    assert_eq!(revisions, [second, first]);

    bucket.delete("a.1").await.unwrap();
    assert_eq!(bucket.get("a.1").await.unwrap(), None);
    assert_eq!(keys(bucket.entries("a.*").await.unwrap()), ["a.2"]);
    bucket.create("a.1", "again".into()).await.unwrap();
}

#[tokio::test]
async fn concurrent_changes_are_all_applied() {
    let server = NatsServer::start();
    server.bucket("things", 1).await;
    let bucket = caller(&server).await.bucket("things").await.unwrap();
    let add = || {
        bucket.change("list", |entry| {
            let more = entry.map_or(1, |entry| entry.value.len() + 1);
            Ok(Change::write(vec![b'x'; more], more))
        })
    };
    let mut counts: Vec<_> =
        futures::future::join_all((0..24).map(|_| add())).await.into_iter().map(Result::unwrap).collect();
    counts.sort_unstable();
    assert_eq!(counts.iter().map(|(count, _)| *count).collect::<Vec<_>>(), (1..=24).collect::<Vec<_>>());
    let (_, newest) = counts[23];

    assert_eq!(bucket.change("list", |_| Ok(Change::keep("as it is"))).await, Ok(("as it is", newest)));
    assert_eq!(bucket.change("none", |entry| Ok(Change::keep(entry.cloned()))).await, Ok((None, 0)));
    let refused = bucket.change::<()>("list", |_| Err(Error::invalid("no"))).await;
    assert_eq!(refused, Err(WriteError::Failed(Error::invalid("no"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_always_overtaken_is_a_conflict() {
    let server = NatsServer::start();
    server.bucket("things", 1).await;
    let bucket = caller(&server).await.bucket("things").await.unwrap();
    let overtake = || {
        let others = bucket.put("k", "theirs".into());
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(others)).unwrap();
        Ok(Change::write("ours", ()))
    };
    assert_eq!(bucket.change("k", |_| overtake()).await, Err(WriteError::Conflict));
    assert_eq!(bucket.get("k").await.unwrap().unwrap().value, "theirs");
}

#[tokio::test]
async fn a_missing_bucket_is_named() {
    let server = NatsServer::start();
    let error = caller(&server).await.bucket("nowhere").await.unwrap_err();
    assert!(error.message().contains("`nowhere`"), "{error}");
}

#[tokio::test]
async fn a_value_that_is_too_large_is_refused_at_once() {
    let server = NatsServer::start();
    let jetstream = async_nats::jetstream::new(plain(&server.connection()).await);
    let config = async_nats::jetstream::kv::Config {
        bucket: "small".to_owned(),
        max_value_size: 1_000,
        ..async_nats::jetstream::kv::Config::default()
    };
    jetstream.create_key_value(config).await.unwrap();
    let bucket = server.fleet("state").await.bucket("small").await.unwrap();
    let revision = bucket.create("k", Bytes::from_static(b"1")).await.unwrap();
    // Over the limit of the bucket, and over what the server takes.
    for size in [2_000, 2 << 20] {
        let value = || Bytes::from(vec![b'x'; size]);
        // Far below the time for which a write is repeated.
        let errors = timeout(Duration::from_secs(2), async {
            [
                Error::from(bucket.create("new", value()).await.unwrap_err()),
                Error::from(bucket.update("k", value(), revision).await.unwrap_err()),
                bucket.put("k", value()).await.unwrap_err(),
            ]
        });
        for error in errors.await.unwrap() {
            assert_eq!(error.code(), Code::InvalidArgument, "{error}");
            assert!(error.message().contains(&format!("has {size} bytes, too many for bucket `small`")), "{error}");
        }
    }
}

#[tokio::test]
async fn an_event_that_is_too_large_is_refused_at_once() {
    let server = NatsServer::start();
    server.stream("EVENTS", &[Selected::SUBJECT]).await;
    let fleet = server.fleet("caller").await;
    let event = Selected { reason: "x".repeat(2 << 20), ..Selected::default() };
    let error = timeout(Duration::from_secs(2), fleet.publish(event)).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error}");
}
