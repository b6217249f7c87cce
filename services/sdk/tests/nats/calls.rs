//! Calls: metadata, errors, deadlines, retries and the circuit breaker.

use super::*;

#[tokio::test]
async fn request_metadata_flows_from_caller_to_callee() {
    let server = NatsServer::start();
    let (_serving, client) = llm(&server, &Fake::default()).await;
    let context = Context::external(ExternalRequest {
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        request_id: Some("r1"),
        idempotency_key: Some("k1"),
        timeout: SOON,
    });
    let response = context.scope(client.infer(prompt(""))).await.unwrap();
    assert_eq!(response.text, "r1 4bf92f3577b34da6a3ce929d0e0e4736 Some(\"k1\")");
}

#[tokio::test]
async fn errors_carry_code_and_details_in_the_response_and_in_the_headers() {
    let server = NatsServer::start();
    let (_serving, client) = llm(&server, &Fake::default()).await;
    let error = client.infer(prompt("refuse")).await.unwrap_err();
    assert_eq!((error.code(), error.detail("current_revision")), (Code::Aborted, Some("7")));

    let other = plain(&server.connection()).await;
    let answer = other.request("svc.ai.llm.v1.bogus", Bytes::new()).await.unwrap();
    assert_eq!(answer.headers.unwrap().get("Nats-Service-Error-Code").unwrap().as_str(), "501");
}

#[tokio::test]
async fn only_the_error_of_a_stream_has_the_end_of_a_stream() {
    let server = NatsServer::start();
    let (_serving, _client) = llm(&server, &Fake::default()).await;
    let other = plain(&server.connection()).await;
    let not_a_message = Bytes::from_static(&[0xff]);
    for (method, end) in [("infer", None), ("bogus", None), ("infer_stream", Some("error"))] {
        let answer = other.request(format!("svc.ai.llm.v1.{method}"), not_a_message.clone()).await.unwrap();
        let headers = answer.headers.unwrap();
        assert!(headers.get("Nats-Service-Error").is_some(), "{method}");
        assert_eq!(headers.get("Stream-End").map(async_nats::HeaderValue::as_str), end, "{method}");
    }
}

#[tokio::test]
async fn a_payload_that_is_not_a_message_is_refused() {
    let server = NatsServer::start();
    let (_serving, _client) = llm(&server, &Fake::default()).await;
    let answer = plain(&server.connection())
        .await
        .request("svc.ai.llm.v1.infer", Bytes::from_static(b"\xff\xff\xff"))
        .await
        .unwrap();
    let response: InferResponse = sdk_decode(answer.payload);
    assert_eq!(response.error.unwrap().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_panic_is_one_failed_request() {
    let server = NatsServer::start();
    let (_serving, client) = llm(&server, &Fake::default()).await;
    let error = client.infer(prompt("panic")).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(error.message().contains("as requested"), "{error}");
    client.infer(prompt("")).await.unwrap();
}

#[tokio::test]
async fn a_response_too_large_for_nats_is_an_error_and_not_a_lost_connection() {
    let server = NatsServer::start();
    let (_serving, client) = llm(&server, &Fake::default()).await;
    let error = client.infer(prompt("large")).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().ends_with("at most 1048576 can be sent: ask for less at once"), "{error}");
    assert_eq!(client.infer(prompt(&"x".repeat(2 << 20))).await.unwrap_err().code(), Code::InvalidArgument);
    client.infer(prompt("")).await.unwrap();
}

#[tokio::test]
async fn the_deadline_ends_the_call_on_both_sides() {
    let server = NatsServer::start();
    let fake = Fake::default();
    let (_serving, client) = llm(&server, &fake).await;
    let error = within(100).scope(client.infer(prompt("never"))).await.unwrap_err();
    assert_eq!((error.code(), reason_of(&error)), (Code::Unavailable, reason::TIMEOUT));
    // A request that was queued past its deadline is not started.
    client.infer(prompt("")).await.unwrap();
    assert_eq!(fake.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_call_without_responders_fails_at_once() {
    let server = NatsServer::start();
    let client: LlmClient = caller(&server).await.client();
    let error = timeout(Duration::from_secs(3), client.infer(prompt(""))).await.unwrap().unwrap_err();
    assert_eq!((error.code(), reason_of(&error)), (Code::Unavailable, reason::NO_RESPONDERS));
}

#[tokio::test]
async fn a_full_queue_refuses_and_the_rest_is_answered() {
    let server = NatsServer::start();
    let fake = Fake::default();
    let settings = Settings { concurrency: 2, queue: 3, ..Settings::for_service("llm", server.connection()) };
    let _serving = serve(settings, LlmServer(fake.clone())).await;
    let client: LlmClient = caller(&server).await.client();
    let mut calls: futures::stream::FuturesUnordered<_> = (0..8).map(|_| client.infer(prompt("wait"))).collect();
    for _ in 0..3 {
        let error = calls.next().await.unwrap().unwrap_err();
        assert_eq!((error.code(), reason_of(&error)), (Code::ResourceExhausted, reason::OVERLOADED));
    }
    let mut answered = 0;
    while answered < 5 {
        fake.release.notify_one();
        if let Ok(Some(answer)) = timeout(Duration::from_millis(20), calls.next()).await {
            answer.unwrap();
            answered += 1;
        }
    }
}

#[tokio::test]
async fn only_transient_failures_of_idempotent_calls_are_retried() {
    let server = NatsServer::start();
    let flaky = Flaky::default();
    let _serving =
        serve(Settings::for_service("models", server.connection()), ModelManagementServer(flaky.clone())).await;
    let client: ModelManagementClient = caller(&server).await.client();

    flaky.failures.store(2, Ordering::SeqCst);
    client.list(ListRequest::default()).await.unwrap();
    assert_eq!(flaky.calls.load(Ordering::SeqCst), 3);

    flaky.failures.store(3, Ordering::SeqCst);
    client.list(ListRequest::default()).await.unwrap_err();
    assert_eq!(flaky.calls.load(Ordering::SeqCst), 6);

    assert_eq!(
        client.get(GetRequest { id: "m".into(), ..Default::default() }).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn the_circuit_opens_after_five_failures_in_a_row() {
    let server = NatsServer::start();
    let client: LlmClient = caller(&server).await.client();
    for _ in 0..5 {
        assert_eq!(reason_of(&client.infer(prompt("")).await.unwrap_err()), reason::NO_RESPONDERS);
    }
    let error = client.infer(prompt("")).await.unwrap_err();
    assert_eq!(reason_of(&error), reason::CIRCUIT_OPEN);
    let wait: u64 = error.detail(reason::RETRY_AFTER_MS).unwrap().parse().unwrap();
    assert!(wait <= 100, "{wait}");
}

#[tokio::test]
async fn a_destination_that_is_back_is_called_again_at_once() {
    let server = NatsServer::start();
    let client: LlmClient = caller(&server).await.client();
    while reason_of(&client.infer(prompt("")).await.unwrap_err()) != reason::CIRCUIT_OPEN {}
    let _serving = serve(Settings::for_service("llm", server.connection()), LlmServer(Fake::default())).await;
    timeout(Duration::from_secs(10), async {
        while client.infer(prompt("")).await.is_err() {
            tokio::task::yield_now().await;
        }
        client.infer(prompt("")).await.unwrap();
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn failures_behind_a_service_do_not_open_its_circuit() {
    let server = NatsServer::start();
    let (_serving, client) = llm(&server, &Fake::default()).await;
    for _ in 0..10 {
        let error = client.infer(prompt("passes on")).await.unwrap_err();
        assert_eq!((reason_of(&error), error.detail(reason::CAUSE)), ("", Some(reason::TIMEOUT)));
    }
    client.infer(prompt("")).await.unwrap();
}

#[tokio::test]
async fn a_reused_idempotency_key_is_the_reason_and_not_the_cause() {
    let server = NatsServer::start();
    let (_serving, client) = llm(&server, &Fake::default()).await;
    let error = client.infer(prompt("reuse")).await.unwrap_err();
    assert_eq!((reason_of(&error), error.detail(reason::CAUSE)), (reason::IDEMPOTENCY_KEY_REUSED, None));
}

/// The circuits in the statistics of service `caller`.
async fn circuits_of_the_caller(client: &async_nats::Client) -> serde_json::Value {
    let answer = client.request("$SRV.STATS.caller", Bytes::new()).await.unwrap();
    let mut stats: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(
        (&stats["type"], &stats["endpoints"]),
        (&"io.nats.micro.v1.stats_response".into(), &serde_json::json!([]))
    );
    stats["data"]["open_circuits"].take()
}

#[tokio::test]
async fn an_open_circuit_is_in_the_statistics_of_its_caller() {
    let server = NatsServer::start();
    let caller = caller(&server).await;
    caller.be_discovered();
    let observer = plain(&server.connection()).await;
    timeout(SOON, async { while observer.request("$SRV.PING.caller", Bytes::new()).await.is_err() {} }).await.unwrap();
    assert_eq!(circuits_of_the_caller(&observer).await, serde_json::json!([]));

    let client: LlmClient = caller.client();
    let opened = timeout(SOON, async {
        loop {
            client.infer(prompt("")).await.unwrap_err();
            // It may be time for a trial just now.
            if let Some(circuit) = circuits_of_the_caller(&observer).await.get(0) {
                break circuit.clone();
            }
        }
    });
    let circuit = opened.await.unwrap();
    assert_eq!(circuit["destination"], "ai.llm.v1");
    assert!(circuit["since"].as_str().unwrap().ends_with('Z') && circuit["retry_after_ms"].is_u64(), "{circuit}");

    let _serving = serve(Settings::for_service("llm", server.connection()), LlmServer(Fake::default())).await;
    timeout(SOON, async { while client.infer(prompt("")).await.is_err() {} }).await.unwrap();
    assert_eq!(circuits_of_the_caller(&observer).await, serde_json::json!([]));
}

#[tokio::test]
async fn expensive_requests_of_one_client_do_not_refuse_those_of_another() {
    let server = NatsServer::start();
    let (_serving, client) = llm(&server, &Fake::default()).await;
    // As in the gateway, both clients share a circuit. Each has more than the second after which a time-out could count.
    let expensive = (0..32).map(|_| within(1_200).scope(client.infer(prompt("never"))));
    for error in futures::future::join_all(expensive).await.into_iter().map(Result::unwrap_err) {
        assert_eq!(reason_of(&error), reason::TIMEOUT);
    }
    client.infer(prompt("cheap")).await.unwrap();
}

#[tokio::test]
async fn requests_that_are_too_large_do_not_close_a_circuit() {
    let server = NatsServer::start();
    let client: LlmClient = caller(&server).await.client();
    while reason_of(&client.infer(prompt("")).await.unwrap_err()) != reason::CIRCUIT_OPEN {}
    let large = "x".repeat(2 << 20);
    let mut let_through = 0;
    timeout(SOON, async {
        while let_through < 4 {
            let error = client.infer(prompt(&large)).await.unwrap_err();
            let_through += usize::from(error.code() == Code::InvalidArgument);
        }
    })
    .await
    .unwrap();
    let circuits = sdk::metrics_text();
    assert!(circuits.contains("circuit_open{destination=\"ai.llm.v1\"} 1"), "{circuits}");
}

#[tokio::test]
async fn a_request_has_a_header_only_if_its_trace_came_from_outside_or_is_recorded() {
    let server = NatsServer::start();
    let mut requests = plain(&server.connection()).await.subscribe("svc.ai.llm.v1.infer").await.unwrap();
    let client: LlmClient = caller(&server).await.client();
    let outside = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for traceparent in [None, Some(outside)] {
        let context = ExternalRequest { traceparent, request_id: None, idempotency_key: None, timeout: SOON };
        let _call = tokio::spawn(Context::external(context).scope({
            let client = client.clone();
            async move { client.infer(prompt("")).await }
        }));
        let received = timeout(SOON, requests.next()).await.unwrap().unwrap();
        let header = received.headers.as_ref().and_then(|headers| headers.get("traceparent"));
        assert_eq!(header.map(|header| &header.as_str()[..36]), traceparent.map(|outside| &outside[..36]));
        assert_eq!(received.headers.is_some(), traceparent.is_some());
    }
}
