//! A service that handles an event: it stores, under the id of each quest, how often the quest was announced to it.
//!
//! The tests kill it at any moment. A quest whose template is `refuse` cannot be handled.

use std::process::ExitCode;

use proto::quest::v1::Generated;
use sdk::{Bucket, Change, Error, Fleet, Handler, WriteError};

fn main() -> ExitCode {
    sdk::service(Announcements::new).on::<Generated>().run()
}

struct Announcements {
    announced: Bucket,
}

impl Announcements {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        Ok(Self { announced: fleet.bucket("announced").await? })
    }
}

impl Handler<Generated> for Announcements {
    async fn handle(&self, event: Generated) -> Result<(), Error> {
        if event.template == "refuse" {
            return Err(Error::invalid("nobody announces this quest"));
        }
        let counted = self.announced.change(&event.quest_id, |entry| {
            let count = entry.map_or(0, |entry| entry.value.len());
            Ok(Change::write(vec![b'x'; count + 1], ()))
        });
        counted.await.map(drop).map_err(WriteError::into)
    }
}
