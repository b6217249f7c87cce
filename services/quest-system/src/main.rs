//! Generates quests for players and manages their lifecycle. Records are stored by player, and every change is made by
//! compare-and-set.

mod catalog;
mod generate;
mod lifecycle;
mod random;
mod record;

use std::process::ExitCode;

use prost::Message as _;
use proto::quest::v1::{
    AbandonRequest, AbandonResponse, AcceptRequest, AcceptResponse, CompleteRequest, CompleteResponse, GenerateRequest,
    GenerateResponse, GetRequest, GetResponse, ListRequest, ListResponse, ProgressRequest, ProgressResponse, Quest,
    QuestInfo, QuestServer, QuestState,
};
use proto::well_known::Timestamp;
use sdk::{Bucket, Change, Clock, Code, Entry, Error, Fleet, Operation, WriteError};

use crate::generate::{QuestSpec, check_open_limit, generate};
use crate::lifecycle::Action;
use crate::record::{QuestKey, QuestRecord, filtered_newest_first, player_filter};

/// The maximum size of an encoded response. NATS carries a megabyte; the rest is for headers.
const MAX_RESPONSE_BYTES: usize = 1000 * 1024;

fn main() -> ExitCode {
    sdk::service(Service::new).serve(QuestServer).run()
}

struct Service {
    clock: Clock,
    quests: Bucket,
}

impl Quest for Service {
    async fn generate(&self, request: GenerateRequest) -> Result<GenerateResponse, Error> {
        let operation = Operation::current("generate", &request);
        let key = QuestKey::for_operation(request.player_id, sdk::context().operation_id())?;
        let spec = QuestSpec::new(&key, request.level, &request.location, request.seed)?;
        let record = match self.find(&key).await? {
            Some(repeated) => repeated,
            None => self.offer(&key, &spec, &operation).await?,
        };
        record.check_generated_by(&operation)?;
        Ok(GenerateResponse { quest: Some(record.into_quest(self.now())), ..GenerateResponse::default() })
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        let key = QuestKey::new(request.player_id, request.quest_id)?;
        let quest = self.read(&key).await?.into_quest(self.now());
        Ok(GetResponse { quest: Some(quest), ..GetResponse::default() })
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, Error> {
        let state = QuestState::try_from(request.state)
            .map_err(|_| Error::invalid(format_args!("state {} is unknown", request.state)))?;
        let quests = self.quests_of(&request.player_id, self.now()).await?;
        let answer = ListResponse { quests: filtered_newest_first(quests, state), ..ListResponse::default() };
        match answer.encoded_len() {
            size if size > MAX_RESPONSE_BYTES => Err(Error::invalid(format_args!(
                "the response would have {size} bytes, more than {MAX_RESPONSE_BYTES}: filter by state"
            ))),
            _ => Ok(answer),
        }
    }

    async fn accept(&self, request: AcceptRequest) -> Result<AcceptResponse, Error> {
        let operation = Operation::current("accept", &request);
        let key = QuestKey::new(request.player_id, request.quest_id)?;
        let quest = self.perform(&key, &Action::Accept, &operation).await?;
        Ok(AcceptResponse { quest: Some(quest), ..AcceptResponse::default() })
    }

    async fn progress(&self, request: ProgressRequest) -> Result<ProgressResponse, Error> {
        let operation = Operation::current("progress", &request);
        let key = QuestKey::new(request.player_id, request.quest_id)?;
        let progress = Action::Progress { objective: request.objective_id, amount: request.amount.max(1) };
        let quest = self.perform(&key, &progress, &operation).await?;
        Ok(ProgressResponse { quest: Some(quest), ..ProgressResponse::default() })
    }

    async fn complete(&self, request: CompleteRequest) -> Result<CompleteResponse, Error> {
        let operation = Operation::current("complete", &request);
        let key = QuestKey::new(request.player_id, request.quest_id)?;
        let quest = self.perform(&key, &Action::Complete, &operation).await?;
        Ok(CompleteResponse { quest: Some(quest), ..CompleteResponse::default() })
    }

    async fn abandon(&self, request: AbandonRequest) -> Result<AbandonResponse, Error> {
        let operation = Operation::current("abandon", &request);
        let key = QuestKey::new(request.player_id, request.quest_id)?;
        let quest = self.perform(&key, &Action::Abandon, &operation).await?;
        Ok(AbandonResponse { quest: Some(quest), ..AbandonResponse::default() })
    }
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let quests = fleet.bucket("quests").await?;
        Ok(Self { clock: Clock::default(), quests })
    }

    /// Generates and stores a quest with its event, unless a concurrent attempt at the same operation has stored it.
    async fn offer(&self, key: &QuestKey, spec: &QuestSpec<'_>, operation: &Operation) -> Result<QuestRecord, Error> {
        let time = self.clock.now();
        let now = time.into();
        let past = self.quests_of(key.player_id(), now).await?;
        check_open_limit(&past)?;
        let record = QuestRecord::new(generate(spec, &past, now)).generated_by(operation, time);
        let bucket_key = key.bucket_key();
        let changed = self.quests.change(&bucket_key, |entry| match entry {
            Some(entry) => Ok(Change::Keep(decode(entry)?)),
            None => Ok(Change::write_with_event(record.encode(), record.generated_event(), record.clone())),
        });
        let (record, revision) = changed.await?;
        Ok(record.with_revision(revision))
    }

    /// Performs an action, unless the operation was applied before.
    async fn perform(&self, key: &QuestKey, action: &Action, operation: &Operation) -> Result<QuestInfo, Error> {
        let bucket_key = key.bucket_key();
        let changed = self.quests.change(&bucket_key, |entry| {
            let record = decode(entry.ok_or_else(|| Error::not_found(key))?)?;
            Ok(match record.after(action, operation, self.clock.now())? {
                Some(next) => Change::Write(next.encode().into(), next),
                None => Change::Keep(record),
            })
        });
        match changed.await {
            Ok((record, revision)) => Ok(record.with_revision(revision).into_quest(self.now())),
            Err(WriteError::Conflict) => {
                Err(Error::new(Code::Aborted, format!("{key} is being changed by too many other writers")))
            }
            Err(WriteError::Failed(error)) => Err(error),
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now().into()
    }

    async fn read(&self, key: &QuestKey) -> Result<QuestRecord, Error> {
        self.find(key).await?.ok_or_else(|| Error::not_found(key))
    }

    async fn find(&self, key: &QuestKey) -> Result<Option<QuestRecord>, Error> {
        let entry = self.quests.get(&key.bucket_key()).await?;
        entry.as_ref().map(decode).transpose()
    }

    /// All quests of the player, as of `now`.
    async fn quests_of(&self, player_id: &str, now: Timestamp) -> Result<Vec<QuestInfo>, Error> {
        let filter = player_filter(player_id)?;
        self.quests.decoded(&filter, |entry| Ok(decode(entry)?.into_quest(now))).await
    }
}

fn decode(entry: &Entry) -> Result<QuestRecord, Error> {
    QuestRecord::decode(&entry.key, &entry.value, entry.revision)
}

#[cfg(test)]
mod tests;
