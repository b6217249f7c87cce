use std::time::Duration;

use futures::future::join_all;
use sdk::Code;
use sdk::testing::{NatsServer, Time, as_request};

use super::*;

async fn tasks(server: &NatsServer, time: &Time) -> [Service; 2] {
    server.bucket("clients", 1).await;
    let one = Service::new(server.fleet_at("performance-mode", time).await).await.unwrap();
    [one, Service::new(server.fleet_at("performance-mode", time).await).await.unwrap()]
}

impl Service {
    async fn reported(&self, key: Option<&str>, frame_us: u32) -> Result<Recommendation, Error> {
        let request = ReportRequest {
            meta: None,
            client_id: "c1".to_owned(),
            frame_times_us: vec![frame_us; 60],
            target_fps: 60,
        };
        Ok(as_request(key, self.report(request)).await?.recommendation.unwrap())
    }
}

#[tokio::test]
async fn a_slow_client_is_recommended_less_by_any_task_and_a_repeated_report_counts_once() {
    let server = NatsServer::start();
    let [one, other] = tasks(&server, &Time::default()).await;
    for service in [&one, &other] {
        assert_eq!(service.reported(Some("k"), 20_000).await.unwrap().profile(), Profile::Medium);
    }
    let down = other.reported(None, 20_000).await.unwrap();
    assert_eq!(down.profile(), Profile::Low);
    assert!(
        down.reason.starts_with("down after 2 reports: 95 % of the frames took at most 20000 us"),
        "{}",
        down.reason
    );
    let got = one.get(GetRequest { meta: None, client_id: "c1".to_owned() }).await.unwrap();
    assert_eq!(got.recommendation.unwrap(), down);
}

#[tokio::test]
async fn an_override_expires_or_is_cleared() {
    let server = NatsServer::start();
    let time = Time::default();
    let [one, other] = tasks(&server, &time).await;
    let request = SetOverrideRequest { meta: None, client_id: "c1".to_owned(), profile: 4, seconds: 60 };
    let set = as_request(None, one.set_override(request.clone())).await.unwrap().recommendation.unwrap();
    assert_eq!((set.profile(), &*set.reason), (Profile::Ultra, "set by hand"));
    time.pass(Duration::from_secs(60));
    assert_eq!(other.reported(None, 15_000).await.unwrap().profile(), Profile::Medium);
    as_request(None, other.set_override(request)).await.unwrap();
    let request = ClearOverrideRequest { meta: None, client_id: "c1".to_owned() };
    let cleared = as_request(None, one.clear_override(request)).await.unwrap().recommendation.unwrap();
    assert_eq!((cleared.profile(), cleared.overridden_until), (Profile::Medium, None));
}

#[tokio::test]
async fn parallel_reports_to_two_tasks_are_all_taken_in() {
    let server = NatsServer::start();
    let [one, other] = tasks(&server, &Time::default()).await;
    let reports = (0..4).map(|number| [&one, &other][number % 2].reported(None, 8_000));
    assert!(join_all(reports).await.into_iter().all(|report| report.is_ok()));
    let stored = one.clients.get(&profile::key("c1").unwrap()).await.unwrap();
    assert_eq!(stored.value.fast_reports, 4);
}

#[tokio::test]
async fn bad_requests_say_what_is_accepted() {
    let server = NatsServer::start();
    let [one, _] = tasks(&server, &Time::default()).await;
    let set = |client: &str, profile, seconds| {
        one.set_override(SetOverrideRequest { meta: None, client_id: client.to_owned(), profile, seconds })
    };
    for (error, code, because) in [
        (
            set("c1", 0, 1).await.unwrap_err(),
            Code::InvalidArgument,
            "profile is missing, it must be one of PROFILE_LOW",
        ),
        (set("c1", 1, 0).await.unwrap_err(), Code::InvalidArgument, "seconds is 0, it must be 1 to 86400"),
        (set("c.1", 1, 1).await.unwrap_err(), Code::InvalidArgument, "client id must be"),
        (one.reported(None, 1).await.unwrap_err(), Code::InvalidArgument, "a frame time is 1"),
        (
            one.get(GetRequest { meta: None, client_id: "c2".to_owned() }).await.unwrap_err(),
            Code::NotFound,
            "client `c2` does not exist",
        ),
    ] {
        assert!(error.code() == code && error.message().contains(because), "{error}");
    }
}
