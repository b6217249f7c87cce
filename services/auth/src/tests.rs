use std::time::Duration;

use futures::future::join_all;
use sdk::Event as _;
use sdk::testing::{NatsServer, Time, as_request};

use super::*;

const PASSWORD: &str = "correct horse battery";

async fn server() -> NatsServer {
    let server = NatsServer::start();
    for bucket in ["users", "sessions", "attempts", "signing"] {
        server.bucket(bucket, 1).await;
    }
    server.stream("AUDIT", &["audit.auth.*.v1"]).await;
    server.outboxes(&["users", "sessions", "attempts"], "AUDIT").await;
    server
}

/// A service whose passwords cost little.
async fn service(server: &NatsServer, time: &Time) -> Service {
    let cheap = |name: &str| Ok(if name.ends_with("KIB") { "8" } else { "1" }.to_owned());
    let passwords = Passwords::new(cheap).await.unwrap();
    Service::with(server.fleet_at("auth", time).await, passwords).await.unwrap()
}

impl Service {
    async fn registered(&self, key: Option<&str>, username: &str, password: &str) -> Result<User, Error> {
        let request = RegisterRequest { meta: None, username: username.to_owned(), password: password.to_owned() };
        Ok(as_request(key, self.register(request)).await?.user.unwrap())
    }

    async fn logged_in(&self, username: &str, password: &str, address: &str) -> Result<Tokens, Error> {
        self.logged_in_as(None, username, password, address).await
    }

    async fn logged_in_as(
        &self,
        key: Option<&str>,
        username: &str,
        password: &str,
        address: &str,
    ) -> Result<Tokens, Error> {
        let request = LoginRequest {
            meta: None,
            username: username.to_owned(),
            password: password.to_owned(),
            client_address: address.to_owned(),
        };
        Ok(as_request(key, self.login(request)).await?.tokens.unwrap())
    }

    async fn refreshed(&self, key: Option<&str>, tokens: &Tokens) -> Result<Tokens, Error> {
        let request = RefreshRequest { meta: None, refresh_token: tokens.refresh_token.clone() };
        Ok(as_request(key, self.refresh(request)).await?.tokens.unwrap())
    }

    async fn roles_in(&self, tokens: &Tokens) -> Result<Vec<String>, Error> {
        let request = ValidateRequest { meta: None, access_token: tokens.access_token.clone() };
        Ok(self.validate(request).await?.claims.unwrap().roles)
    }
}

#[track_caller]
fn refused<T>(outcome: Result<T, Error>, code: Code, because: &str) {
    let error = outcome.err().expect("it is refused");
    assert_eq!(error.code(), code, "{error}");
    assert!(error.detail(reason::KEY) == Some(because) || error.message().contains(because), "{error:?}");
}

async fn audited(server: &NatsServer) -> Vec<String> {
    let stored = server.stored_from(&["users", "sessions"], "AUDIT").await;
    let name = |subject: String| subject.split('.').nth(2).unwrap().to_owned();
    let mut names: Vec<String> = stored.into_iter().map(|stored| name(stored.subject)).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_user_registers_logs_in_refreshes_and_logs_out_on_any_task() {
    let server = server().await;
    let time = Time::default();
    let [one, other] = [service(&server, &time).await, service(&server, &time).await];
    let first = one.registered(Some("r"), "alice", PASSWORD).await.unwrap();
    assert_eq!(other.registered(Some("r"), "alice", PASSWORD).await, Ok(first));
    let tokens = other.logged_in("alice", PASSWORD, "10.0.0.1").await.unwrap();
    assert_eq!(one.roles_in(&tokens).await, Ok(vec![]));

    let roles = SetRolesRequest { meta: None, username: "alice".to_owned(), roles: vec!["admin".to_owned()] };
    as_request(None, one.set_roles(roles)).await.unwrap();
    let next = other.refreshed(None, &tokens).await.unwrap();
    assert_eq!(one.roles_in(&next).await, Ok(vec!["admin".to_owned()]));

    let request = RevokeRequest { meta: None, refresh_token: next.refresh_token.clone() };
    as_request(None, one.revoke(request)).await.unwrap();
    refused(other.roles_in(&next).await, Code::PermissionDenied, "revoked");
    refused(other.refreshed(None, &next).await, Code::PermissionDenied, "revoked");
    let expected = ["logged_in", "refresh_refused", "refreshed", "registered", "roles_changed", "session_revoked"];
    assert_eq!(audited(&server).await, expected);
}

#[tokio::test]
async fn a_refresh_token_that_comes_twice_ends_its_session_and_no_other() {
    let server = server().await;
    let service = service(&server, &Time::default()).await;
    service.registered(None, "alice", PASSWORD).await.unwrap();
    let stolen = service.logged_in("alice", PASSWORD, "").await.unwrap();
    let elsewhere = service.logged_in("alice", PASSWORD, "").await.unwrap();
    let next = service.refreshed(Some("k"), &stolen).await.unwrap();
    // The same request again is no theft.
    assert_eq!(service.refreshed(Some("k"), &stolen).await, Ok(next.clone()));

    refused(service.refreshed(None, &stolen).await, Code::PermissionDenied, "reused");
    refused(service.refreshed(None, &next).await, Code::PermissionDenied, "revoked");
    refused(service.roles_in(&next).await, Code::PermissionDenied, "revoked");
    assert!(service.roles_in(&elsewhere).await.is_ok());
}

#[tokio::test]
async fn of_parallel_exchanges_of_one_token_one_succeeds_at_most() {
    let server = server().await;
    let time = Time::default();
    let services = [service(&server, &time).await, service(&server, &time).await];
    services[0].registered(None, "alice", PASSWORD).await.unwrap();
    let tokens = services[0].logged_in("alice", PASSWORD, "").await.unwrap();
    let outcomes = join_all((0..8).map(|number| services[number % 2].refreshed(None, &tokens))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    refused(services[1].roles_in(&tokens).await, Code::PermissionDenied, "revoked");
}

#[tokio::test]
async fn a_repeated_login_begins_one_session_and_needs_the_password_each_time() {
    let server = server().await;
    let time = Time::default();
    let services = [service(&server, &time).await, service(&server, &time).await];
    services[0].registered(None, "alice", PASSWORD).await.unwrap();
    let first = services[0].logged_in_as(Some("k"), "alice", PASSWORD, "10.0.0.1").await.unwrap();
    assert_eq!(services[1].logged_in_as(Some("k"), "alice", PASSWORD, "10.0.0.1").await, Ok(first));
    let wrong = services[1].logged_in_as(Some("k"), "alice", "wrong", "10.0.0.1").await;
    refused(wrong, Code::PermissionDenied, "invalid_credentials");
    assert_eq!(services[0].sessions.list("alice.*").await.unwrap().len(), 1);
}

#[tokio::test]
async fn tokens_expire() {
    let server = server().await;
    let time = Time::default();
    let service = service(&server, &time).await;
    service.registered(None, "alice", PASSWORD).await.unwrap();
    let tokens = service.logged_in("alice", PASSWORD, "").await.unwrap();
    time.pass(Duration::from_secs(299));
    assert!(service.roles_in(&tokens).await.is_ok());
    time.pass(Duration::from_secs(1));
    refused(service.roles_in(&tokens).await, Code::PermissionDenied, "expired");
    let next = service.refreshed(None, &tokens).await.unwrap();
    time.pass(Duration::from_secs(30 * 24 * 3_600 - 300));
    refused(service.refreshed(None, &next).await, Code::PermissionDenied, "expired");
}

#[tokio::test]
async fn unknown_users_and_wrong_passwords_are_refused_alike_and_only_so_often() {
    let server = server().await;
    let time = Time::default();
    let service = service(&server, &time).await;
    service.registered(None, "alice", PASSWORD).await.unwrap();
    let wrong = service.logged_in("alice", "wrong", "").await.unwrap_err();
    assert_eq!(service.logged_in("nobody", "wrong", "").await.unwrap_err(), wrong);
    refused::<()>(Err(wrong), Code::PermissionDenied, "invalid_credentials");

    service.logged_in("alice", PASSWORD, "").await.unwrap();
    for name in ["alice", "nobody"] {
        let count = if name == "alice" { 5 } else { 4 };
        let attempts = join_all((0..count).map(|_| service.logged_in(name, "wrong", ""))).await;
        assert!(attempts.into_iter().all(|outcome| outcome.unwrap_err().code() == Code::PermissionDenied));
        refused(service.logged_in(name, PASSWORD, "").await, Code::ResourceExhausted, "too many failed attempts");
    }
    time.pass(Duration::from_secs(15 * 60));
    assert!(service.logged_in("alice", PASSWORD, "").await.is_ok());
    assert_eq!(audited(&server).await.iter().filter(|name| *name == "login_refused").count(), 13);
}

#[tokio::test]
async fn attempts_from_one_address_are_limited_whoever_they_are_for() {
    let server = server().await;
    let service = service(&server, &Time::default()).await;
    service.registered(None, "alice", PASSWORD).await.unwrap();
    for number in 0..30 {
        let outcome = service.logged_in(&format!("user{number}"), "wrong", "10.0.0.1").await;
        refused(outcome, Code::PermissionDenied, "invalid_credentials");
    }
    refused(service.logged_in("alice", PASSWORD, "10.0.0.1").await, Code::ResourceExhausted, "this address");
    assert!(service.logged_in("alice", PASSWORD, "10.0.0.2").await.is_ok());
}

#[tokio::test]
async fn bad_requests_say_what_is_accepted() {
    let server = server().await;
    let service = service(&server, &Time::default()).await;
    service.registered(None, "alice", PASSWORD).await.unwrap();
    refused(service.registered(None, "alice", PASSWORD).await, Code::AlreadyExists, "user `alice` exists");
    refused(service.registered(None, "Bob", PASSWORD).await, Code::InvalidArgument, "username must be 3 to 32");
    refused(service.registered(None, "bob", "short").await, Code::InvalidArgument, "it must be 10 to 128");
    refused(service.logged_in("alice", PASSWORD, "here").await, Code::InvalidArgument, "client_address must be");
    let request = RevokeAllRequest { meta: None, username: "nobody".to_owned() };
    refused(service.revoke_all(request).await, Code::NotFound, "user `nobody` does not exist");
    let forged = Tokens { refresh_token: "a.b.c".to_owned(), ..Tokens::default() };
    refused(service.refreshed(None, &forged).await, Code::PermissionDenied, "invalid_token");
}

#[tokio::test]
async fn all_sessions_of_a_user_are_revoked() {
    let server = server().await;
    let service = service(&server, &Time::default()).await;
    service.registered(None, "alice", PASSWORD).await.unwrap();
    let tokens = [(); 2].map(|()| service.logged_in("alice", PASSWORD, ""));
    let tokens = join_all(tokens).await;
    let request = RevokeAllRequest { meta: None, username: "alice".to_owned() };
    assert_eq!(as_request(None, service.revoke_all(request)).await.unwrap().sessions, 2);
    for tokens in tokens {
        refused(service.roles_in(&tokens.unwrap()).await, Code::PermissionDenied, "revoked");
    }
}

#[tokio::test]
async fn nothing_secret_is_stored_or_printed() {
    let server = server().await;
    let service = service(&server, &Time::default()).await;
    service.registered(None, "alice", PASSWORD).await.unwrap();
    let tokens = service.logged_in("alice", PASSWORD, "").await.unwrap();
    let stored = service.users.get(&Username::new("alice").unwrap()).await.unwrap();
    assert!(stored.value.password_hash.starts_with("$argon2id$"));
    assert_eq!(format!("{:?} {tokens:?}", stored.value), "StoredUser Tokens");
    for message in server.stored("AUDIT").await {
        assert!(!String::from_utf8_lossy(&message.payload).contains(PASSWORD));
    }
    assert_eq!(Registered::SUBJECT, "audit.auth.registered.v1");
}
