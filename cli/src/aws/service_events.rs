//! ECS service events: placements, health checks and deployments, as `natsctl events` shows them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::Aws;
use super::services::{self, Service};

/// An event of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Event {
    pub(crate) time: Timestamp,
    /// The manifests' name.
    pub(crate) service: String,
    #[serde(rename = "event")]
    pub(crate) text: String,
    #[serde(skip)]
    id: String,
}

/// The events of services, each given once.
pub(crate) struct EventStream<'a> {
    aws: &'a Aws,
    /// The manifests' names.
    names: BTreeSet<String>,
    /// Whether these were asked for by name.
    is_typed: bool,
    given: BTreeSet<Event>,
}

impl<'a> EventStream<'a> {
    /// Of these services, or of all that the manifests name.
    ///
    /// # Errors
    /// A name that no manifest has.
    pub(crate) fn new(aws: &'a Aws, services: &[String]) -> anyhow::Result<Self> {
        let all = || aws.manifests.services.keys().cloned().collect();
        let names = if services.is_empty() { all() } else { services.iter().cloned().collect::<BTreeSet<_>>() };
        names.iter().try_for_each(|name| aws.manifests.service(name).map(drop))?;
        Ok(Self { aws, names, is_typed: !services.is_empty(), given: BTreeSet::new() })
    }

    /// The events that were not given yet, the oldest first.
    pub(crate) async fn fresh(&mut self) -> anyhow::Result<Vec<Event>> {
        let found = services::sorted(self.aws, &self.names).await?;
        let found = services::converted(found.refusing(|_| self.is_typed)?);
        let current: BTreeSet<Event> = found.iter().flat_map(|(name, service)| events(name, service)).collect();
        let fresh = current.difference(&self.given).cloned().collect();
        self.given = current;
        Ok(fresh)
    }
}

fn events(name: &str, service: &Service) -> Vec<Event> {
    let events = service.events.iter().filter_map(|event| {
        let (text, id) = (event.message.clone(), event.id.clone());
        Some(Event { time: event.time?, service: name.to_owned(), text, id })
    });
    events.collect()
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::DateTime;

    use super::*;

    #[test]
    fn an_event_is_shown_without_the_name_of_its_service() {
        let event = aws_sdk_ecs::types::ServiceEvent::builder().id("1").created_at(DateTime::from_secs(60));
        let event = event.message("(service quest-system-nats) has reached a steady state.").build();
        let service = aws_sdk_ecs::types::Service::builder().service_name("quest-system-nats").events(event).build();
        let events = events("quest-system", &service.into());
        assert_eq!(events[0].text, "has reached a steady state.");
        assert_eq!(events[0].time, Timestamp::from_second(60).unwrap());
    }
}
