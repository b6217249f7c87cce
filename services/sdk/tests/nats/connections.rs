//! Connections: TLS, permissions, lame-duck servers; and discovery.

use super::*;

#[tokio::test]
async fn mutual_tls_and_permissions_are_enough_for_calls_and_streams() {
    let server = NatsServer::secured(&[
        User {
            name: "llm",
            publish: &["_INBOX_caller.>", "_INBOX.>", "svc.ai.llm.v1._"],
            subscribe: &["svc.ai.llm.v1.> svc-llm-workers", "_INBOX_llm.>", "_STREAM_llm.>", "$SRV.>"],
        },
        User {
            name: "caller",
            publish: &["svc.ai.llm.v1.*", "$SRV.>", "_STREAM_llm.>"],
            subscribe: &["_INBOX_caller.>"],
        },
    ]);
    let (trigger, shutdown) = Shutdown::new();
    let worker = Fleet::connect(Settings::for_service("llm", server.connection_as("llm"))).await.unwrap();
    let serving = tokio::spawn(async move { sdk::serve(&worker, LlmServer(Fake::default()), shutdown).await });
    let client: LlmClient =
        Fleet::connect(Settings::for_service("caller", server.connection_as("caller"))).await.unwrap().client();
    timeout(SOON, async { while client.infer(prompt("")).await.is_err() {} }).await.unwrap();
    assert_eq!(collect(&client, "").await.len(), 200);
    trigger.send_replace(true);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn calls_errors_and_streams_cross_the_border_between_two_accounts() {
    let server = NatsServer::with_accounts(&[
        Account {
            user: User {
                name: "llm",
                publish: &["_INBOX_caller.>", "_INBOX.>", "svc.ai.llm.v1._"],
                subscribe: &["svc.ai.llm.v1.> svc-llm-workers", "_STREAM_llm.>", "_INBOX_llm.>", "$SRV.>"],
            },
            exports: &["_INBOX_caller.>"],
            imports: &[
                ("caller", "svc.ai.llm.v1.infer", "svc.ai.llm.v1.infer.caller"),
                ("caller", "svc.ai.llm.v1.infer_stream", "svc.ai.llm.v1.infer_stream.caller"),
                ("caller", "_STREAM_llm.>", "_STREAM_llm.>"),
            ],
        },
        Account {
            user: User {
                name: "caller",
                publish: &["svc.ai.llm.v1.infer", "svc.ai.llm.v1.infer_stream", "_STREAM_llm.>"],
                subscribe: &["_INBOX_caller.>"],
            },
            exports: &["svc.ai.llm.v1.infer", "svc.ai.llm.v1.infer_stream", "_STREAM_llm.>"],
            imports: &[("llm", "_INBOX_caller.>", "_INBOX_caller.>")],
        },
    ]);
    let (trigger, shutdown) = Shutdown::new();
    let worker = Fleet::connect(Settings::for_service("llm", server.connection_as("llm"))).await.unwrap();
    let serving = tokio::spawn(async move { sdk::serve(&worker, LlmServer(Fake::default()), shutdown).await });
    let client: LlmClient =
        Fleet::connect(Settings::for_service("caller", server.connection_as("caller"))).await.unwrap().client();
    timeout(SOON, async { while client.infer(prompt("")).await.is_err() {} }).await.unwrap();
    assert_eq!(client.infer(prompt("refuse")).await.unwrap_err().code(), Code::Aborted);
    assert_eq!(collect(&client, "").await.len(), 200);
    trigger.send_replace(true);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn certificates_and_keys_may_be_given_as_text() {
    let server = NatsServer::secured(&[User { name: "llm", publish: &[">"], subscribe: &[">"] }]);
    let text = |material: Material, variable: &'static str| {
        let text = std::fs::read_to_string(material.file().unwrap()).unwrap();
        Material::Text { variable, text: text.into() }
    };
    let connection = || {
        let mut connection = server.connection_as("llm");
        connection.ca = connection.ca.map(|ca| text(ca, "NATS_CA"));
        connection.client_certificate = connection
            .client_certificate
            .map(|(certificate, key)| (text(certificate, "NATS_CERT"), text(key, "NATS_KEY")));
        connection
    };
    let connect = async |connection: ConnectionSettings| Fleet::connect(Settings::for_service("llm", connection)).await;
    connect(connection()).await.unwrap();

    let swapped =
        ConnectionSettings { client_certificate: connection().client_certificate.map(|(a, b)| (b, a)), ..connection() };
    let error = connect(swapped).await.unwrap_err();
    assert!(error.message().contains("environment variable `NATS_KEY` holds no certificate in PEM"), "{error}");
    let credentials = Some(Material::Text { variable: "NATS_CREDS", text: "secret".into() });
    let error = connect(ConnectionSettings { credentials, user: None, ..connection() }).await.unwrap_err();
    assert!(error.message().contains("environment variable `NATS_CREDS` holds no NATS credentials"), "{error}");
}

#[tokio::test]
async fn clients_of_a_server_in_lame_duck_mode_move_without_a_failed_request() {
    let [leaving, staying] = NatsServer::pair();
    let connection = || ConnectionSettings {
        urls: [leaving.connection().urls, staying.connection().urls].concat(),
        ..ConnectionSettings::default()
    };
    let worker = Fleet::connect(Settings::for_service("llm", connection())).await.unwrap();
    let (trigger, shutdown) = Shutdown::new();
    let serving = tokio::spawn(async move { sdk::serve(&worker, LlmServer(Fake::default()), shutdown).await });
    // Clients pick a server at random; at least one must be connected to the one that stops.
    let mut clients: Vec<LlmClient> = Vec::new();
    while clients.is_empty() || leaving.client_count() == Some(0) {
        clients.push(Fleet::connect(Settings::for_service("caller", connection())).await.unwrap().client());
    }
    for client in &clients {
        timeout(SOON, async { while client.infer(prompt("")).await.is_err() {} }).await.unwrap();
    }
    let moved = async {
        leaving.lame_duck();
        while leaving.client_count().is_some_and(|clients| clients > 0) {
            for client in &clients {
                client.infer(prompt("")).await.unwrap();
            }
        }
    };
    timeout(SOON, moved).await.unwrap();
    drop(leaving);
    for client in &clients {
        client.infer(prompt("")).await.unwrap();
    }
    trigger.send_replace(true);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn rejected_credentials_are_reported_at_once() {
    let server = NatsServer::secured(&[User { name: "llm", publish: &[">"], subscribe: &[">"] }]);
    let error = timeout(SOON, Fleet::connect(Settings::for_service("x", server.connection_as("stranger"))))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn discovery_reports_version_revision_and_task() {
    let server = NatsServer::start();
    let settings = Settings {
        version: "1.2.3".into(),
        revision: "7".into(),
        task: "t1".into(),
        ..Settings::for_service("llm", server.connection())
    };
    let _serving = serve(settings, LlmServer(Fake::default())).await;
    let other = plain(&server.connection()).await;
    let ask = async |subject: &'static str| -> serde_json::Value {
        serde_json::from_slice(&other.request(subject, Bytes::new()).await.unwrap().payload).unwrap()
    };
    let ping = ask("$SRV.PING").await;
    assert_eq!(ping["type"], "io.nats.micro.v1.ping_response");
    assert_eq!(
        (&ping["version"], &ping["metadata"]["revision"], &ping["metadata"]["task"]),
        (&"1.2.3".into(), &"7".into(), &"t1".into())
    );
    other.request("svc.ai.llm.v1.infer", Bytes::new()).await.unwrap();
    let info = ask("$SRV.INFO.llm").await;
    assert_eq!(info["endpoints"][0]["subject"], "svc.ai.llm.v1.infer");
    assert_eq!(info["endpoints"][0]["queue_group"], "svc-llm-workers");
    assert_eq!(ask("$SRV.STATS.llm").await["endpoints"][0]["num_requests"], 1);

    let client: LlmClient = caller(&server).await.client();
    client.infer(prompt("refuse")).await.unwrap_err();
    assert_eq!(ask("$SRV.STATS.llm").await["endpoints"][0]["last_error"], "ABORTED: no");
}
