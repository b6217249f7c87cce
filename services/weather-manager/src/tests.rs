//! The service against a real nats-server.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures::future::join_all;
use prost::Message as _;
use proto::time::v1::{GameTime, Season, SeasonSpan, SeasonsResponse};
use proto::weather::v1::{Biome, Changed, Condition, PastHour};
use sdk::testing::{Fake, NatsServer, as_request};
use sdk::{Code, Event as _};

use super::*;

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.bucket("weather_regions", 1).await;
    server.stream("EVENTS", &[Changed::SUBJECT]).await;
    server.outboxes(&["weather_regions"], "EVENTS").await;
    server
}

/// A time-manager with an endless spring, whose time is an hour that the test sets.
#[derive(Clone, Default)]
struct Hour(Arc<AtomicI64>);

impl Hour {
    fn set(&self, hour: i64) {
        self.0.store(hour, Ordering::Relaxed);
    }

    fn client(&self) -> TimeManagerClient {
        let hour = self.clone();
        let seasons = move |request: SeasonsRequest| {
            let game_ms = hour.0.load(Ordering::Relaxed) * HOUR_MS + 1;
            let from_ms = (game_ms - request.before_ms.cast_signed()).max(0);
            let span =
                SeasonSpan { season: Season::Spring.into(), from_ms, to_ms: game_ms + request.after_ms.cast_signed() };
            let now = Some(GameTime { game_ms, ..GameTime::default() });
            Ok(SeasonsResponse { error: None, now, spans: vec![span] })
        };
        Fake::default().on(seasons).client()
    }
}

async fn service(server: &NatsServer, hour: &Hour) -> Service {
    let service = Service::new(server.fleet("weather-manager").await).await.unwrap();
    Service { time: hour.client(), ..service }
}

async fn changes(server: &NatsServer) -> Vec<Changed> {
    let stored = server.stored_from(&["weather_regions"], "EVENTS").await;
    stored.into_iter().map(|stored| Changed::decode(stored.payload).unwrap()).collect()
}

fn put(id: &str, seed: Option<u64>) -> PutRegionRequest {
    PutRegionRequest { region_id: id.to_owned(), biome: Biome::Temperate.into(), seed, ..Default::default() }
}

impl Service {
    async fn has_put(&self, idempotency_key: Option<&str>, request: PutRegionRequest) -> Result<Region, Error> {
        Ok(as_request(idempotency_key, self.put_region(request)).await?.region.unwrap())
    }

    async fn condition(&self, id: &str) -> Condition {
        let request = CurrentRequest { region_id: id.to_owned(), ..Default::default() };
        as_request(None, self.current(request)).await.unwrap().weather.unwrap().condition()
    }
}

#[tokio::test]
async fn equal_seeds_have_equal_weather_now_before_and_after() {
    let (server, hour) = (server().await, Hour::default());
    let services = [service(&server, &hour).await, service(&server, &hour).await];
    services[0].has_put(None, put("one", Some(7))).await.unwrap();
    services[0].has_put(None, put("two", Some(7))).await.unwrap();
    let mut seen = Vec::new();
    for now in 300..330 {
        hour.set(now);
        seen.push(services[0].condition("one").await);
        assert_eq!(services[1].condition("two").await, seen[seen.len() - 1]);
    }
    hour.set(330);
    let history = HistoryRequest { region_id: "one".to_owned(), hours: 30, ..Default::default() };
    let history = services[0].history(history).await.unwrap().hours;
    assert_eq!(history.iter().rev().map(PastHour::condition).collect::<Vec<_>>(), seen);
    let forecast = ForecastRequest { region_id: "two".to_owned(), ..Default::default() };
    let forecast = services[1].forecast(forecast).await.unwrap().hours;
    assert_eq!((forecast.len(), forecast[0].hour), (24, 331));
}

#[tokio::test]
async fn each_change_is_announced_once_by_whichever_task_looks_first() {
    let (server, hour) = (server().await, Hour::default());
    let services = [service(&server, &hour).await, service(&server, &hour).await];
    services[0].has_put(None, put("one", Some(7))).await.unwrap();
    let region = services[0].regions.get(&key("one").unwrap()).await.unwrap();
    services[1].followed.wrote(region.into());
    let mut expected = vec![Condition::Unspecified];
    for now in 0..40 {
        hour.set(now);
        for outcome in join_all((0..4).map(|number| services[number % 2].turn())).await {
            outcome.unwrap();
        }
        expected.push(services[0].condition("one").await);
    }
    expected.dedup();
    let told: Vec<_> = changes(&server).await.iter().map(|event| (event.previous(), event.condition())).collect();
    assert_eq!(told, expected.windows(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>());
    assert!(told.len() > 3, "{told:?}");
}

#[tokio::test]
async fn regions_are_put_once_listed_and_deleted() {
    let (server, hour) = (server().await, Hour::default());
    let services = [service(&server, &hour).await, service(&server, &hour).await];
    let puts = (0..4).map(|number| services[number % 2].has_put(Some("k"), put("one", None)));
    let put_regions: Vec<_> = join_all(puts).await.into_iter().map(Result::unwrap).collect();
    assert!(put_regions.iter().all(|region| *region == put_regions[0]));
    let reused = services[0].has_put(Some("k"), put("one", Some(1))).await.unwrap_err();
    assert_eq!(reused.detail("reason"), Some("idempotency_key_reused"));

    services[0].has_put(None, put("another", None)).await.unwrap();
    let listed = services[1].list_regions(ListRegionsRequest::default()).await.unwrap().regions;
    assert_eq!(listed.iter().map(|region| &*region.id).collect::<Vec<_>>(), ["another", "one"]);
    let delete = || {
        as_request(
            None,
            services[1].delete_region(DeleteRegionRequest { region_id: "one".to_owned(), ..Default::default() }),
        )
    };
    assert_eq!(delete().await.unwrap().region.unwrap(), put_regions[0]);
    assert_eq!(delete().await.unwrap().region, None);
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused() {
    let (server, hour) = (server().await, Hour::default());
    let service = service(&server, &hour).await;
    let refused = async |request: CurrentRequest| service.current(request).await.unwrap_err();
    let unknown = refused(CurrentRequest { region_id: "none".to_owned(), ..Default::default() }).await;
    assert_eq!((unknown.code(), unknown.message()), (Code::NotFound, "region `none` does not exist"));
    assert_eq!(
        refused(CurrentRequest { region_id: "*".to_owned(), ..Default::default() }).await.code(),
        Code::InvalidArgument
    );
    let no_biome = PutRegionRequest { biome: 0, ..put("one", None) };
    assert_eq!(service.has_put(None, no_biome).await.unwrap_err().code(), Code::InvalidArgument);
    let long = HistoryRequest { region_id: "one".to_owned(), hours: 241, ..Default::default() };
    assert_eq!(service.history(long).await.unwrap_err().message(), "hours is 241, it must be 1 to 240");

    let timeless = Service { time: Fake::default().client(), ..service };
    timeless.has_put(None, put("one", None)).await.unwrap();
    let current = CurrentRequest { region_id: "one".to_owned(), ..Default::default() };
    assert_eq!(timeless.current(current).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(timeless.turn().await.unwrap_err().code(), Code::Unavailable);
}
