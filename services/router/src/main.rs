//! Routes messages by their content to methods of other services and to an event. Rules are records; each worker keeps all of
//! them in the order in which they are tried.

mod content;
mod destination;
mod predicate;
mod rules;

use futures::future::join_all;
use proto::router::v1::{
    ListDestinationsRequest, ListDestinationsResponse, ListRulesRequest, ListRulesResponse, Outcome, PutRuleRequest,
    PutRuleResponse, RemoveRuleRequest, RemoveRuleResponse, RouteRequest, RouteResponse, Router, RouterServer, Rule,
    TestRequest, TestResponse,
};
use sdk::{
    Channel, Error, Fleet, Followed, Next, Operation, Records, Stored, check_range_or, check_revision, context, reason,
};

use crate::content::Content;
use crate::destination::{Destinations, Parcel, failed};
use crate::rules::Rules;

const MAX_RULES: usize = 1_000;
const MAX_PAGE: u32 = 200;
const DEFAULT_PAGE: u32 = 100;

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(RouterServer).run()
}

struct Service {
    fleet: Fleet,
    /// To the services that are destinations.
    others: Channel,
    destinations: Destinations,
    records: Records<Rule>,
    rules: Followed<Rules>,
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let records = fleet.records("router_rules").await?;
        let rules = records.follow(Rules::default()).await?;
        let destinations = Destinations::new(fleet.callable())?;
        Ok(Self { others: fleet.client(), destinations, records, rules, fleet })
    }

    /// Delivers to one destination.
    async fn deliver(&self, subject: &str, parcel: Parcel) -> Outcome {
        let delivered = match parcel {
            Parcel::Event(event) => {
                self.fleet.publish(event).await.map(|()| Outcome { subject: subject.to_owned(), ..Outcome::default() })
            }
            Parcel::Request(method, request) => {
                let context = context();
                // Destinations of one message are operations of their own.
                let own = context.idempotency_key().map(|key| context.with_idempotency_key(format!("{key}/{subject}")));
                let response = own.unwrap_or(context).scope(self.others.encoded(method, request)).await;
                response.map(|response| self.destinations.outcome(subject, response))
            }
        };
        delivered.unwrap_or_else(|error| failed(subject, error))
    }
}

impl Router for Service {
    async fn put_rule(&self, request: PutRuleRequest) -> Result<PutRuleResponse, Error> {
        let operation = Operation::of(&request);
        let rule = rules::checked(request.rule, &self.destinations)?;
        let key = rules::key(&rule.id)?;
        let put = |current: Option<&Stored<Rule>>| {
            check_revision(&key, current.map_or(0, |current| current.revision), request.expected_revision)?;
            if current.is_none() && self.rules.read().count() >= MAX_RULES {
                return Err(Error::failed_precondition(format_args!(
                    "there are {MAX_RULES} rules already, remove some"
                )));
            }
            Ok(Next::write(rule.clone()))
        };
        let put = self.records.change(&key, &operation, put).await?;
        self.rules.wrote(put.clone().into());
        Ok(put.value.into())
    }

    async fn remove_rule(&self, request: RemoveRuleRequest) -> Result<RemoveRuleResponse, Error> {
        let key = rules::key(&request.rule_id)?;
        let operation = Operation::of(&request);
        let removed = self.records.change_existing(&key, &operation, |_| Ok(Next::delete())).await?;
        if let Some(rule) = &removed {
            self.rules.deleted(rule);
        }
        Ok(RemoveRuleResponse { error: None, rule: removed.map(|rule| rule.value) })
    }

    async fn list_rules(&self, request: ListRulesRequest) -> Result<ListRulesResponse, Error> {
        let limit = check_range_or("limit", request.limit, 1..=MAX_PAGE, DEFAULT_PAGE)?;
        Ok(self.rules.read().page(&request.after_id, limit as usize)?.into())
    }

    async fn list_destinations(&self, _: ListDestinationsRequest) -> Result<ListDestinationsResponse, Error> {
        let destinations = self.destinations.subjects().map(str::to_owned).collect();
        Ok(ListDestinationsResponse { error: None, destinations })
    }

    async fn test(&self, request: TestRequest) -> Result<TestResponse, Error> {
        let content = Content::new(request.message)?;
        let rules = self.rules.read();
        let (rule, evaluations) = (rules.first(&content).cloned(), rules.evaluations(&content));
        Ok(TestResponse { error: None, rule, evaluations })
    }

    async fn route(&self, request: RouteRequest) -> Result<RouteResponse, Error> {
        let content = Content::new(request.message)?;
        let rule = self.rules.read().first(&content).cloned().ok_or_else(|| {
            let subject = &content.message.subject;
            let message = format!("no rule matches this message of subject `{subject}`: `Test` says why");
            Error::new(sdk::Code::NotFound, message).with_detail(reason::KEY, "no_rule")
        })?;
        let parcels =
            rule.destinations.iter().map(|it| Ok((&it.subject, self.destinations.parcel(&rule, it, &content)?)));
        // All are made before the first is sent.
        let parcels = parcels.collect::<Result<Vec<_>, Error>>()?;
        let outcomes = join_all(parcels.into_iter().map(|(subject, parcel)| self.deliver(subject, parcel))).await;
        Ok(RouteResponse { error: None, rule_id: rule.id.clone(), outcomes })
    }
}

#[cfg(test)]
mod tests;
