//! Credentials and certificates that change while a task runs.

use std::path::Path;

use sdk::testing::Operator;

use super::*;

/// Longer than any test runs.
const LONG: Duration = Duration::from_secs(3_600);

fn with_credentials(server: &NatsServer, file: &Path) -> ConnectionSettings {
    ConnectionSettings { credentials: Some(file.to_path_buf().into()), ..server.connection() }
}

/// A worker and a caller with the credentials in one file.
struct Pair {
    _worker: JoinHandle<Result<(), Error>>,
    client: LlmClient,
    trigger: watch::Sender<bool>,
}

async fn start(connection: ConnectionSettings) -> Pair {
    let (trigger, shutdown) = Shutdown::new();
    let worker = Fleet::connect(Settings::for_service("llm", connection.clone())).await.unwrap();
    let worker = tokio::spawn(async move { sdk::serve(&worker, LlmServer(Fake::default()), shutdown).await });
    let client: LlmClient = Fleet::connect(Settings::for_service("caller", connection)).await.unwrap().client();
    timeout(SOON, async { while client.infer(prompt("")).await.is_err() {} }).await.unwrap();
    Pair { _worker: worker, client, trigger }
}

fn renewals(outcome: &str) -> u64 {
    let line = format!("connection_renewals_total{{cause=\"files\",outcome=\"{outcome}\"}} ");
    let text = sdk::metrics_text();
    text.lines().find_map(|found| found.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
}

/// Calls without a pause until `done`. No call may fail.
async fn call_until(client: &LlmClient, done: impl Fn() -> bool) {
    timeout(SOON, async {
        while !done() {
            client.infer(prompt("")).await.unwrap();
        }
    })
    .await
    .unwrap();
}

fn write_credentials(file: &Path, operator: &Operator, valid_for: Duration) {
    std::fs::write(file, operator.credentials(valid_for)).unwrap();
}

#[tokio::test]
async fn credentials_that_change_are_used_before_the_old_ones_expire() {
    let (server, operator) = NatsServer::with_operator();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("user.creds");
    let expires = std::time::Instant::now() + Duration::from_secs(9);
    write_credentials(&file, &operator, Duration::from_secs(9));
    let pair = start(with_credentials(&server, &file)).await;
    write_credentials(&file, &operator, LONG);
    // The worker's and the caller's.
    call_until(&pair.client, || renewals("ok") >= 2).await;
    // The server closes connections with the old credentials now. Nobody has one.
    call_until(&pair.client, || expires.elapsed() > Duration::from_secs(2)).await;
    assert_eq!(server.client_count(), Some(2));
    pair.trigger.send_replace(true);
}

#[tokio::test]
async fn a_damaged_file_leaves_the_connection_as_it_is() {
    let (server, operator) = NatsServer::with_operator();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("user.creds");
    write_credentials(&file, &operator, LONG);
    let pair = start(with_credentials(&server, &file)).await;
    // As if it were read while it is written.
    let whole = operator.credentials(LONG);
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    call_until(&pair.client, || renewals("failed") >= 2).await;
    assert_eq!(renewals("ok"), 0);
    std::fs::write(&file, whole).unwrap();
    call_until(&pair.client, || renewals("ok") >= 2).await;
    std::fs::remove_file(&file).unwrap();
    let failed = renewals("failed");
    call_until(&pair.client, || renewals("failed") >= failed + 2).await;
    assert_eq!(renewals("ok"), 2);
}

#[tokio::test]
async fn credentials_that_the_server_rejects_leave_the_connection_as_it_is() {
    let (server, operator) = NatsServer::with_operator();
    let (_other_server, stranger) = NatsServer::with_operator();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("user.creds");
    write_credentials(&file, &operator, LONG);
    let pair = start(with_credentials(&server, &file)).await;
    write_credentials(&file, &stranger, LONG);
    call_until(&pair.client, || renewals("failed") >= 2).await;
    assert_eq!(renewals("ok"), 0);
}

#[tokio::test]
async fn a_worker_whose_credentials_expired_is_back_when_there_are_new_ones() {
    let (server, operator) = NatsServer::with_operator();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("user.creds");
    write_credentials(&file, &operator, Duration::from_secs(3));
    let pair = start(with_credentials(&server, &file)).await;
    timeout(SOON, async {
        while server.client_count() != Some(0) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    within(200).scope(pair.client.infer(prompt(""))).await.unwrap_err();
    write_credentials(&file, &operator, LONG);
    timeout(SOON, async { while within(500).scope(pair.client.infer(prompt(""))).await.is_err() {} }).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_changes_is_used_and_one_without_its_key_is_not() {
    let server = NatsServer::secured(&[User { name: "llm", publish: &[">"], subscribe: &[">"] }]);
    let connection = server.connection_as("llm");
    let (certificate, _) = connection.client_certificate.clone().unwrap();
    let certificate = certificate.file().unwrap();
    let first = std::fs::read_to_string(certificate).unwrap();
    let (trigger, shutdown) = Shutdown::new();
    let worker = Fleet::connect(Settings::for_service("llm", connection.clone())).await.unwrap();
    let serving = tokio::spawn(async move { sdk::serve(&worker, LlmServer(Fake::default()), shutdown).await });
    // The only user has one inbox.
    let client: LlmClient = Fleet::connect(Settings::for_service("llm", connection)).await.unwrap().client();
    timeout(SOON, async { while client.infer(prompt("")).await.is_err() {} }).await.unwrap();
    server.renew_client_certificate();
    let second = std::fs::read_to_string(certificate).unwrap();
    std::fs::write(certificate, first).unwrap();
    call_until(&client, || renewals("failed") >= 2).await;
    assert_eq!(renewals("ok"), 0);
    std::fs::write(certificate, second).unwrap();
    call_until(&client, || renewals("ok") >= 2).await;
    trigger.send_replace(true);
    serving.await.unwrap().unwrap();
}
