use std::time::Duration;

use proto::ai::model::v1::Selected;
use proto::quest::v1::Generated;
use proto::rpc::Event as _;

use super::*;

struct Nothing;

impl<E: Event> Handler<E> for Nothing {
    async fn handle(&self, _: E) -> Result<(), Error> {
        Ok(())
    }
}

fn consumer(event: &str, durable: Option<&str>) -> ConsumerSettings {
    ConsumerSettings {
        event: event.to_owned(),
        stream: "EVT".to_owned(),
        durable: durable.map(str::to_owned),
        max_deliveries: 3,
        backoff: vec![Duration::from_secs(1)],
        timeout: Duration::from_secs(1),
        ack_wait: Duration::from_secs(1),
        ordered: false,
    }
}

#[track_caller]
fn refused(settings: &[ConsumerSettings], handlers: &[EventHandler<Nothing>], because: &str) {
    assert_eq!(check(settings, handlers), Err(because.to_owned()));
}

#[test]
fn a_program_handles_what_its_manifest_consumes() {
    let shared = || EventHandler::<Nothing>::new::<Selected>(Delivery::Shared);
    let every = || EventHandler::<Nothing>::new::<Generated>(Delivery::EveryTask);
    let both = [consumer(Selected::SUBJECT, Some("d")), consumer(Generated::SUBJECT, None)];
    assert_eq!(check(&both, &[shared(), every()]), Ok(()));
    assert_eq!(check::<Nothing>(&[], &[]), Ok(()));
    refused(
        &both,
        &[shared()],
        "the manifest consumes `evt.quest.generated.v1`, but the program does not handle it: add a handler to `main`, or remove \
         it from `consumes`",
    );
    refused(
        &both[1..],
        &[shared(), every()],
        "the program handles `evt.ai.model.selected.v1`, but the manifest does not consume it: add it to `consumes`, or remove \
         its handler",
    );
    refused(
        &[consumer(Generated::SUBJECT, Some("d"))],
        &[every()],
        "the manifest consumes `evt.quest.generated.v1` with `delivery: shared`, but the program handles it with \
         `on_every_task`: make them agree",
    );
    refused(&both, &[shared(), shared()], "the program handles `evt.ai.model.selected.v1` twice");
}
