use std::time::{Duration, Instant};

use proto::capability::v1::{Capability, ChangeKind, Match};
use sdk::Code;
use sdk::testing::{NatsServer, Time, as_request};
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(20);

async fn tasks(server: &NatsServer, time: &Time) -> [Service; 2] {
    server.bucket("providers", 1).await;
    let one = Service::new(server.fleet_at("capability-registry", time).await).await.unwrap();
    [one, Service::new(server.fleet_at("capability-registry", time).await).await.unwrap()]
}

impl Service {
    async fn registered(&self, key: Option<&str>, id: &str, version: &str) -> Result<Provider, Error> {
        let capability = Capability { name: "path-finding".to_owned(), version: version.to_owned() };
        let request = RegisterRequest {
            provider_id: id.to_owned(),
            capabilities: vec![capability],
            ..RegisterRequest::default()
        };
        Ok(as_request(key, self.register(request)).await?.provider.unwrap())
    }

    async fn found(&self, requirement: &str) -> Vec<String> {
        let request = FindRequest {
            name: "path-finding".to_owned(),
            requirement: requirement.to_owned(),
            ..FindRequest::default()
        };
        let id = |it: Match| it.provider.unwrap().id;
        self.find(request).await.unwrap().matches.into_iter().map(id).collect()
    }

    /// Waits until it finds these.
    async fn finds(&self, requirement: &str, ids: &[&str]) {
        let until = Instant::now() + SOON;
        let mut found = self.found(requirement).await;
        while found != ids {
            assert!(Instant::now() < until, "found {found:?} instead of {ids:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
            found = self.found(requirement).await;
        }
    }

    async fn renewed(&self, provider: &Provider) -> Result<Provider, Error> {
        let Provider { id, lease_id, .. } = provider.clone();
        let request = RenewRequest { meta: None, provider_id: id, lease_id };
        Ok(as_request(None, self.renew(request)).await?.provider.unwrap())
    }
}

#[tokio::test]
async fn a_provider_is_found_on_every_task_by_the_version_that_is_required() {
    let server = NatsServer::start();
    let [one, other] = tasks(&server, &Time::default()).await;
    for (id, version) in [("a", "1.2.0"), ("b", "1.10.0"), ("c", "2.0.0-beta.1")] {
        one.registered(None, id, version).await.unwrap();
    }
    assert_eq!(one.found("").await, ["b", "a"], "own writes are found at once");
    other.finds("^1.3", &["b"]).await;
    other.finds("~1.2", &["a"]).await;
    other.finds(">=2.0.0-alpha", &["c"]).await;
    other.registered(None, "b", "1.2.5").await.unwrap();
    one.finds("^1.3", &[]).await;
}

#[tokio::test]
async fn an_expired_lease_vanishes_on_all_tasks_and_is_deleted_by_one() {
    let server = NatsServer::start();
    let time = Time::default();
    let [one, other] = tasks(&server, &time).await;
    let kept = one.registered(None, "a", "1.0.0").await.unwrap();
    let lost = one.registered(None, "b", "1.0.0").await.unwrap();
    other.finds("", &["a", "b"]).await;
    time.pass(Duration::from_secs(20));
    // The other task has not heard of it when it looks for what has expired.
    one.renewed(&kept).await.unwrap();
    time.pass(Duration::from_secs(10));
    assert_eq!(one.found("").await, ["a"]);
    other.turn().await.unwrap();
    other.finds("", &["a"]).await;
    assert_eq!(one.providers.list(">").await.unwrap().len(), 1);
    let error = one.renewed(&lost).await.unwrap_err();
    assert_eq!((error.code(), error.detail(sdk::reason::KEY)), (Code::FailedPrecondition, Some("lease_lost")));
}

#[tokio::test]
async fn an_earlier_lease_neither_renews_nor_ends_a_later_one() {
    let server = NatsServer::start();
    let [one, other] = tasks(&server, &Time::default()).await;
    let first = one.registered(Some("k"), "a", "1.0.0").await.unwrap();
    assert_eq!(other.registered(Some("k"), "a", "1.0.0").await.unwrap().lease_id, first.lease_id);
    let second = other.registered(None, "a", "1.0.0").await.unwrap();
    assert_eq!(one.renewed(&first).await.unwrap_err().code(), Code::FailedPrecondition);
    let deregister =
        |lease_id: &str| DeregisterRequest { meta: None, provider_id: "a".to_owned(), lease_id: lease_id.to_owned() };
    one.deregister(deregister(&first.lease_id)).await.unwrap();
    assert!(other.renewed(&second).await.is_ok());
    for _ in 0..2 {
        one.deregister(deregister(&second.lease_id)).await.unwrap();
    }
    other.finds("", &[]).await;
}

#[tokio::test]
async fn who_watches_is_told_who_comes_and_goes_and_of_no_renewal() {
    let server = NatsServer::start();
    let [one, other] = tasks(&server, &Time::default()).await;
    let provider = one.registered(None, "a", "1.0.0").await.unwrap();
    let request = WatchRequest { meta: None, name: "path-finding".to_owned() };
    let mut watched = other.watch(request).await.unwrap();
    let mut next = async || {
        let change = timeout(SOON, watched.next()).await.expect("a change").unwrap().unwrap().change.unwrap();
        (change.kind(), change.provider_id)
    };
    assert_eq!(next().await, (ChangeKind::Registered, "a".to_owned()));
    one.renewed(&provider).await.unwrap();
    one.registered(None, "b", "1.0.0").await.unwrap();
    assert_eq!(next().await, (ChangeKind::Registered, "b".to_owned()));
    let Provider { id, lease_id, .. } = provider;
    one.deregister(DeregisterRequest { meta: None, provider_id: id, lease_id }).await.unwrap();
    assert_eq!(next().await, (ChangeKind::Gone, "a".to_owned()));
}

#[tokio::test]
async fn bad_requests_say_what_is_accepted() {
    let server = NatsServer::start();
    let [one, _] = tasks(&server, &Time::default()).await;
    let find = |name: &str, requirement: &str, limit| {
        let (name, requirement) = (name.to_owned(), requirement.to_owned());
        one.find(FindRequest { meta: None, name, requirement, limit })
    };
    for (outcome, because) in [
        (find("a b", "", 0).await, "capability name must be"),
        (find("a", "1 2", 0).await, "requirement `1 2` is none"),
        (find("a", "", 101).await, "limit is 101, it must be 1 to 100"),
    ] {
        let error = outcome.unwrap_err();
        assert!(error.code() == Code::InvalidArgument && error.message().contains(because), "{error}");
    }
    let error = one.registered(None, "a.b", "1.0.0").await.unwrap_err();
    assert!(error.message().contains("provider id must be"), "{error}");
}
