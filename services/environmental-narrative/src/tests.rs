//! The service against a real nats-server, and other services that the tests make up.

use std::collections::BTreeSet;

use futures::future::join_all;
use proto::ai::llm::v1::{InferRequest, InferResponse};
use proto::narrative::environment::v1::{Sentence, Subject};
use proto::time::v1::NowResponse;
use proto::weather::v1::CurrentResponse;
use proto::world::state::v1::{GetRegionResponse, WithinRadiusResponse};
use sdk::testing::{Fake, NatsServer, as_request};

use super::*;
use crate::scene::tests::scene;

/// World, weather and time of the scene; of no other region.
fn world() -> Fake {
    let region = |request: GetRegionRequest| match request.region_id.as_str() {
        "mill" => Ok(GetRegionResponse::from(scene().region)),
        id => Err(Error::not_found(format_args!("region `{id}`"))),
    };
    let neighbors = |_: WithinRadiusRequest| {
        Ok(WithinRadiusResponse { neighbors: scene().neighbors.unwrap(), ..WithinRadiusResponse::default() })
    };
    Fake::default()
        .on(region)
        .on(neighbors)
        .on(|_: CurrentRequest| Ok(CurrentResponse::from(scene().weather.unwrap())))
        .on(|_: NowRequest| Ok(NowResponse::from(scene().time.unwrap())))
}

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.bucket("narrative_sessions", 8).await;
    server
}

async fn service(server: &NatsServer, others: &Fake) -> Service {
    let service = Service::new(server.fleet("environmental-narrative").await).await.unwrap();
    Service { world: others.client(), weather: others.client(), time: others.client(), llm: others.client(), ..service }
}

fn request() -> DescribeRequest {
    DescribeRequest {
        session_id: "s1".to_owned(),
        region_id: "mill".to_owned(),
        position: Some(Point::default()),
        seed: Some(7),
        ..DescribeRequest::default()
    }
}

impl Service {
    async fn described(&self, key: Option<&str>, request: DescribeRequest) -> Result<DescribeResponse, Error> {
        as_request(key, self.describe(request)).await
    }
}

fn subjects(description: &DescribeResponse) -> Vec<Subject> {
    description.sentences.iter().map(Sentence::subject).collect()
}

#[tokio::test]
async fn a_place_is_described_from_world_weather_and_time() {
    let server = server().await;
    let service = service(&server, &world()).await;
    let description = service.described(None, request()).await.unwrap();
    let all = [Subject::Time, Subject::Weather, Subject::Place, Subject::Entities];
    assert_eq!((subjects(&description), description.seed), (all.to_vec(), 7));
    let texts: Vec<_> = description.sentences.iter().map(|sentence| &*sentence.text).collect();
    assert_eq!(description.text, texts.join(" "));
    assert!(description.text.contains("wolf") && description.unavailable.is_empty() && !description.polished);
    let blind = DescribeRequest { position: None, ..request() };
    assert_eq!(subjects(&service.described(None, blind).await.unwrap()), all[..3]);
}

#[tokio::test]
async fn no_sentence_comes_twice_in_a_session_that_two_tasks_serve() {
    let server = server().await;
    let services = [service(&server, &world()).await, service(&server, &world()).await];
    let describe = |number: usize| {
        let seed = Some(u64::try_from(number / 3).unwrap());
        services[number % 2].described(None, DescribeRequest { seed, ..request() })
    };
    let mut told = BTreeSet::new();
    for description in join_all((0..9).map(describe)).await {
        for sentence in description.unwrap().sentences {
            assert!(sentence.repeated || told.insert(sentence.text.clone()), "{} came twice", sentence.text);
        }
    }
    let heard = services[0].sessions.get(&Id::new("session", "s1", 64).unwrap()).await.unwrap().value.sentences.len();
    assert_eq!(heard, told.len());

    let end = EndSessionRequest { session_id: "s1".to_owned(), ..EndSessionRequest::default() };
    as_request(None, services[0].end_session(end.clone())).await.unwrap();
    as_request(None, services[1].end_session(end)).await.unwrap();
    let fresh = services[1].described(None, DescribeRequest { seed: Some(0), ..request() }).await.unwrap();
    assert!(fresh.sentences.iter().all(|sentence| told.contains(&sentence.text)), "{}", fresh.text);
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_description() {
    let server = server().await;
    let services = [service(&server, &world()).await, service(&server, &world()).await];
    let unseeded = DescribeRequest { seed: None, ..request() };
    let first = services[0].described(Some("k"), unseeded.clone()).await.unwrap();
    services[0].described(None, request()).await.unwrap();
    assert_eq!(services[1].described(Some("k"), unseeded).await.unwrap(), first);
    let error = services[1].described(Some("k"), request()).await.unwrap_err();
    assert_eq!(error.detail("reason"), Some("idempotency_key_reused"));
}

#[tokio::test]
async fn what_is_not_known_is_not_described() {
    let server = server().await;
    let only_world = world().on(|_: CurrentRequest| Err::<CurrentResponse, _>(Error::not_found("region `mill`")));
    let timeless = only_world.on(|_: NowRequest| Err::<NowResponse, _>(Error::unavailable("no time")));
    let service = service(&server, &timeless).await;
    let description = service.described(None, request()).await.unwrap();
    assert_eq!(subjects(&description), [Subject::Place, Subject::Entities]);
    // That there is no weather is known, what time it is is not.
    assert_eq!(description.unavailable, ["time-manager"]);

    let nowhere = DescribeRequest { region_id: "nowhere".to_owned(), ..request() };
    let error = service.described(None, nowhere).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::NotFound, "region `nowhere` does not exist"));
    let nobody = DescribeRequest { session_id: String::new(), ..request() };
    assert_eq!(service.described(None, nobody).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_description_is_reworded_or_stays_as_it_is() {
    let server = server().await;
    let plain = service(&server, &world()).await.described(None, request()).await.unwrap().text;
    let polish = DescribeRequest { polish: true, ..request() };
    let describe = async |others: Fake| {
        let end = EndSessionRequest { session_id: "s1".to_owned(), ..EndSessionRequest::default() };
        let service = service(&server, &others).await;
        as_request(None, service.end_session(end)).await.unwrap();
        service.described(None, polish.clone()).await.unwrap()
    };
    let expected = plain.clone();
    let answer = move |request: InferRequest| {
        assert!(request.prompt.contains(&expected), "{}", request.prompt);
        Ok(InferResponse { text: " A wolf waits in the snow.\n".to_owned(), ..InferResponse::default() })
    };
    let reworded = describe(world().on(answer)).await;
    assert_eq!((&*reworded.text, reworded.polished), ("A wolf waits in the snow.", true));

    let empty = world().on(|_: InferRequest| Ok(InferResponse::default()));
    let broken = world().on(|_: InferRequest| Err::<InferResponse, _>(Error::internal("out of words")));
    let cases = [
        (empty, "the text is not usable: text is empty"),
        (broken, "ai-integration failed: out of words (INTERNAL)"),
        (world().silent::<InferRequest>(), "ai-integration took longer than "),
    ];
    for (others, reason) in cases {
        let description = describe(others).await;
        assert_eq!((&description.text, description.polished), (&plain, false));
        assert!(description.not_polished_because.starts_with(reason), "{}", description.not_polished_because);
    }
}
