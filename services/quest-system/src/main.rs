//! Makes quests for players and follows them to their end. A quest is kept under its player; every change is made by
//! compare-and-set.

mod catalog;
mod dice;
mod generate;
mod kept;
mod lifecycle;

use std::process::ExitCode;
use std::time::SystemTime;

use prost::Message as _;
use proto::quest::v1::{
    AbandonRequest, AbandonResponse, AcceptRequest, AcceptResponse, CompleteRequest, CompleteResponse, GenerateRequest,
    GenerateResponse, GetRequest, GetResponse, ListRequest, ListResponse, ProgressRequest, ProgressResponse, Quest,
    QuestInfo, QuestServer, QuestState,
};
use proto::well_known::Timestamp;
use sdk::{Bucket, Change, Code, Entry, Error, Fleet, WriteError};

use crate::generate::{Wish, check_room, generate};
use crate::kept::{Kept, Name, all_keys, listed};
use crate::lifecycle::Move;

/// Bytes of an encoded answer. NATS carries a megabyte; the rest is for headers.
const MAX_ANSWER: usize = 1000 * 1024;

fn main() -> ExitCode {
    sdk::run(Service::new)
}

struct Service {
    fleet: Fleet,
    quests: Bucket,
}

impl Quest for Service {
    async fn generate(&self, request: GenerateRequest) -> Result<GenerateResponse, Error> {
        let name = Name::generated(request.player_id, sdk::context().operation_id())?;
        let wish = Wish::new(&name, request.level, &request.location, request.seed)?;
        let kept = match self.find(&name).await? {
            Some(repeated) => repeated,
            None => self.offer(&name, &wish).await?,
        };
        self.announce(&name, &kept).await?;
        Ok(GenerateResponse { quest: Some(kept.seen(now())), ..GenerateResponse::default() })
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        let name = Name::new(request.player_id, request.quest_id)?;
        let quest = self.read(&name).await?.seen(now());
        Ok(GetResponse { quest: Some(quest), ..GetResponse::default() })
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, Error> {
        let state = QuestState::try_from(request.state)
            .map_err(|_| Error::invalid(format_args!("state {} is unknown", request.state)))?;
        let quests = self.quests_of(&request.player_id, now()).await?;
        let answer = ListResponse { quests: listed(quests, state), ..ListResponse::default() };
        match answer.encoded_len() {
            size if size > MAX_ANSWER => Err(Error::new(
                Code::ResourceExhausted,
                format!("answer would take {size} bytes, more than {MAX_ANSWER}: ask for one state"),
            )),
            _ => Ok(answer),
        }
    }

    async fn accept(&self, request: AcceptRequest) -> Result<AcceptResponse, Error> {
        let name = Name::new(request.player_id, request.quest_id)?;
        let quest = self.make(&name, &Move::Accept).await?;
        Ok(AcceptResponse { quest: Some(quest), ..AcceptResponse::default() })
    }

    async fn progress(&self, request: ProgressRequest) -> Result<ProgressResponse, Error> {
        let name = Name::new(request.player_id, request.quest_id)?;
        let progress = Move::Progress { objective: request.objective_id, amount: request.amount.max(1) };
        let quest = self.make(&name, &progress).await?;
        Ok(ProgressResponse { quest: Some(quest), ..ProgressResponse::default() })
    }

    async fn complete(&self, request: CompleteRequest) -> Result<CompleteResponse, Error> {
        let name = Name::new(request.player_id, request.quest_id)?;
        let quest = self.make(&name, &Move::Complete).await?;
        Ok(CompleteResponse { quest: Some(quest), ..CompleteResponse::default() })
    }

    async fn abandon(&self, request: AbandonRequest) -> Result<AbandonResponse, Error> {
        let name = Name::new(request.player_id, request.quest_id)?;
        let quest = self.make(&name, &Move::Abandon).await?;
        Ok(AbandonResponse { quest: Some(quest), ..AbandonResponse::default() })
    }
}

impl Service {
    async fn new(fleet: Fleet) -> Result<QuestServer<Self>, Error> {
        let quests = fleet.bucket("quests").await?;
        Ok(QuestServer(Self { fleet, quests }))
    }

    /// Makes a quest, unless another attempt at the same operation was faster.
    async fn offer(&self, name: &Name, wish: &Wish<'_>) -> Result<Kept, Error> {
        let now = now();
        let past = self.quests_of(name.player_id(), now).await?;
        check_room(&past)?;
        let kept = Kept::new(generate(wish, &past, now));
        match self.quests.create(&name.key(), kept.encode().into()).await {
            Ok(revision) => Ok(kept.at(revision)),
            Err(WriteError::Conflict) => self.read(name).await,
            Err(WriteError::Failed(error)) => Err(error),
        }
    }

    /// Publishes that the quest was made. The id makes it one event, however often this is called.
    async fn announce(&self, name: &Name, kept: &Kept) -> Result<(), Error> {
        let published = self.fleet.publish_as(&name.event_id(), kept.generated()).await;
        published.map_err(|error| {
            Error::unavailable(format_args!(
                "{name} is made, but its event is not published, try again: {}",
                error.message()
            ))
        })
    }

    /// Makes a move, or finds that it has been made.
    async fn make(&self, name: &Name, attempted: &Move) -> Result<QuestInfo, Error> {
        let (context, key) = (sdk::context(), name.key());
        let made = self.quests.change(&key, |entry| {
            let kept = decode(entry.ok_or_else(|| Error::not_found(name))?)?;
            Ok(match kept.moved(attempted, context.operation_id(), now())? {
                Some(next) => Change::Write(next.encode().into(), next),
                None => Change::Keep(kept),
            })
        });
        match made.await {
            Ok((kept, revision)) => Ok(kept.at(revision).seen(now())),
            Err(WriteError::Conflict) => {
                Err(Error::new(Code::Aborted, format!("{name} is being changed by too many others")))
            }
            Err(WriteError::Failed(error)) => Err(error),
        }
    }

    async fn read(&self, name: &Name) -> Result<Kept, Error> {
        self.find(name).await?.ok_or_else(|| Error::not_found(name))
    }

    async fn find(&self, name: &Name) -> Result<Option<Kept>, Error> {
        let entry = self.quests.get(&name.key()).await?;
        entry.as_ref().map(decode).transpose()
    }

    /// All quests of the player, as they are `now`.
    async fn quests_of(&self, player_id: &str, now: Timestamp) -> Result<Vec<QuestInfo>, Error> {
        let entries = self.quests.entries(&all_keys(player_id)?).await?;
        entries.iter().map(|entry| Ok(decode(entry)?.seen(now))).collect()
    }
}

fn decode(entry: &Entry) -> Result<Kept, Error> {
    Kept::decode(&entry.key, &entry.value, entry.revision)
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests;
