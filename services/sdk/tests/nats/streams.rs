//! Streaming calls.

use super::*;

#[tokio::test]
async fn a_stream_arrives_whole_and_in_order() {
    let server = NatsServer::start();
    let (_serving, client) = llm(&server, &Fake::default()).await;
    let texts: Vec<String> = collect(&client, "").await.into_iter().map(Result::unwrap).collect();
    assert_eq!(texts, (0..200).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_that_fails_ends_with_its_error() {
    let server = NatsServer::start();
    let (_serving, client) = llm(&server, &Fake::default()).await;
    let items = collect(&client, "fails").await;
    assert_eq!(items.len(), 101);
    assert_eq!(items[100].as_ref().unwrap_err().code(), Code::Internal);
}

#[tokio::test]
async fn a_slow_reader_throttles_the_worker_and_a_dropped_reader_stops_it() {
    let server = NatsServer::start();
    let fake = Fake::default();
    let (_serving, client) = llm(&server, &fake).await;
    let request = InferStreamRequest { prompt: "endless".into(), ..Default::default() };
    let mut stream = client.infer_stream(request).await.unwrap();
    // Anything produced beyond the credit would have arrived before this response.
    stream.next().await.unwrap().unwrap();
    client.infer(prompt("")).await.unwrap();
    assert!(fake.calls.load(Ordering::SeqCst) <= 64 + 2);
    drop(stream);
    timeout(SOON, async {
        while fake.dropped.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_stream_whose_worker_dies_is_an_error() {
    let server = NatsServer::start();
    let fake = Fake::default();
    // A separate runtime for the worker, so that it can be killed in the middle.
    let worker = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (settings, served) = (Settings::for_service("llm", server.connection()), fake.clone());
    worker.spawn(async move { serve(settings, LlmServer(served)).await.task.await });
    let fleet = caller(&server).await;
    let client: LlmClient = fleet.client();
    let request = InferStreamRequest { prompt: "endless".into(), ..Default::default() };
    let mut stream = loop {
        if let Ok(stream) = client.infer_stream(request.clone()).await {
            break stream;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    stream.next().await.unwrap().unwrap();
    worker.shutdown_background();
    let last = timeout(SOON, async {
        let mut last = None;
        while let Some(item) = stream.next().await {
            last = Some(item);
        }
        last
    });
    assert_eq!(last.await.unwrap().unwrap().unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_client_without_credit_gets_the_whole_stream_with_its_end_marker() {
    let server = NatsServer::start();
    let (_serving, _client) = llm(&server, &Fake::default()).await;
    let other = plain(&server.connection()).await;
    let inbox = other.new_inbox();
    let mut messages = other.subscribe(inbox.clone()).await.unwrap();
    other.publish_with_reply("svc.ai.llm.v1.infer_stream", inbox, Bytes::new()).await.unwrap();
    let mut count = 0;
    loop {
        let message = timeout(SOON, messages.next()).await.unwrap().unwrap();
        let headers = message.headers.unwrap();
        assert_eq!(headers.get("Stream-Seq").unwrap().as_str(), count.to_string());
        if let Some(end) = headers.get("Stream-End") {
            assert_eq!((end.as_str(), count), ("ok", 200));
            break;
        }
        count += 1;
    }
}
