//! Generates quests for players and manages their lifecycle. Records are stored by player, and every change is made by
//! compare-and-set.

mod catalog;
mod generate;
mod lifecycle;
mod record;

use proto::quest::v1::{
    AbandonRequest, AbandonResponse, AcceptRequest, AcceptResponse, CompleteRequest, CompleteResponse, GenerateRequest,
    GenerateResponse, GetRequest, GetResponse, ListRequest, ListResponse, ProgressRequest, ProgressResponse, Quest,
    QuestInfo, QuestServer, StoredQuest,
};
use proto::well_known::Timestamp;
use sdk::{Error, Fleet, Next, Operation, Records, Request, Stored, choice_or_unset};

use crate::generate::{QuestSpec, check_open_limit, generate};
use crate::lifecycle::{Action, apply};
use crate::record::{QuestKey, check_generated_by, filtered_newest_first, generated, player_filter, shown};

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(QuestServer).run()
}

struct Service {
    fleet: Fleet,
    quests: Records<StoredQuest>,
}

impl Quest for Service {
    async fn generate(&self, request: GenerateRequest) -> Result<GenerateResponse, Error> {
        let operation = Operation::of(&request);
        let key = QuestKey::for_operation(request.player_id, sdk::context().operation_id())?;
        let spec = QuestSpec::new(&key, request.level, &request.location, request.seed)?;
        let stored = match self.quests.find(&key).await? {
            Some(repeated) => repeated,
            None => self.offer(&key, &spec, &operation).await?,
        };
        check_generated_by(&stored.value, &operation)?;
        Ok(shown(stored, self.now()).into())
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        let key = QuestKey::new(request.player_id, request.quest_id)?;
        Ok(shown(self.quests.get(&key).await?, self.now()).into())
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, Error> {
        let state = choice_or_unset("state", request.state)?;
        let quests = self.quests_of(&request.player_id, self.now()).await?;
        Ok(filtered_newest_first(quests, state).into())
    }

    async fn accept(&self, request: AcceptRequest) -> Result<AcceptResponse, Error> {
        self.perform(&request, &request.player_id, &request.quest_id, &Action::Accept).await.map(Into::into)
    }

    async fn progress(&self, request: ProgressRequest) -> Result<ProgressResponse, Error> {
        let progress = Action::Progress { objective: request.objective_id.clone(), amount: request.amount.max(1) };
        self.perform(&request, &request.player_id, &request.quest_id, &progress).await.map(Into::into)
    }

    async fn complete(&self, request: CompleteRequest) -> Result<CompleteResponse, Error> {
        self.perform(&request, &request.player_id, &request.quest_id, &Action::Complete).await.map(Into::into)
    }

    async fn abandon(&self, request: AbandonRequest) -> Result<AbandonResponse, Error> {
        self.perform(&request, &request.player_id, &request.quest_id, &Action::Abandon).await.map(Into::into)
    }
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let quests = fleet.records("quests").await?;
        Ok(Self { fleet, quests })
    }

    /// Generates and stores a quest with its event, unless a concurrent attempt at the same operation has stored it.
    async fn offer(
        &self,
        key: &QuestKey,
        spec: &QuestSpec<'_>,
        operation: &Operation,
    ) -> Result<Stored<StoredQuest>, Error> {
        let now = self.now();
        let past = self.quests_of(key.player_id(), now).await?;
        check_open_limit(&past)?;
        let quest = generate(spec, &past, now);
        let generated_by = Some(operation.remembered(self.fleet.clock().now()));
        let offer = |current: Option<&Stored<StoredQuest>>| {
            Ok(match current {
                Some(_) => Next::keep(),
                None => Next::write(StoredQuest { quest: Some(quest.clone()), generated_by: generated_by.clone() })
                    .and_publish(generated(&quest)),
            })
        };
        self.quests.change(key, operation, offer).await
    }

    /// Performs the action that a request asks for.
    async fn perform<R: Request>(
        &self,
        request: &R,
        player_id: &str,
        quest_id: &str,
        action: &Action,
    ) -> Result<QuestInfo, Error> {
        let operation = Operation::of(request);
        let key = QuestKey::new(player_id.to_owned(), quest_id.to_owned())?;
        let perform = |current: Option<&Stored<StoredQuest>>| {
            let stored = &current.ok_or_else(|| Error::not_found(&key))?.value;
            check_generated_by(stored, &operation)?;
            let quest = apply(stored.quest.clone().unwrap_or_default(), action, self.now())?;
            Ok(Next::write(StoredQuest { quest: Some(quest), ..stored.clone() }))
        };
        Ok(shown(self.quests.change(&key, &operation, perform).await?, self.now()))
    }

    fn now(&self) -> Timestamp {
        self.fleet.clock().now().into()
    }

    /// All quests of the player, as of `now`.
    async fn quests_of(&self, player_id: &str, now: Timestamp) -> Result<Vec<QuestInfo>, Error> {
        let stored = self.quests.list(&player_filter(player_id)?).await?;
        Ok(stored.into_iter().map(|stored| shown(stored, now)).collect())
    }
}

#[cfg(test)]
mod tests;
