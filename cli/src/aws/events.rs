//! What ECS tells of its services: placements, health checks, deployments.

use std::collections::BTreeSet;

use aws_sdk_ecs::types::{Service, ServiceEvent};
use jiff::Timestamp;
use serde::Serialize;

use super::Aws;
use super::tasks::time;

/// Something that ECS tells of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Event {
    pub(crate) time: Timestamp,
    pub(crate) service: String,
    #[serde(rename = "event")]
    pub(crate) text: String,
    #[serde(skip)]
    id: String,
}

/// The events of services that were not told yet. ECS keeps the last hundred of each service.
pub(crate) struct Events<'a> {
    aws: &'a Aws,
    services: &'a [String],
    told: BTreeSet<Event>,
}

impl<'a> Events<'a> {
    /// Of these services, or of all that the manifests name.
    pub(crate) fn new(aws: &'a Aws, services: &'a [String]) -> Self {
        Self { aws, services, told: BTreeSet::new() }
    }

    /// Those that are new, the oldest first.
    ///
    /// # Errors
    /// A name that no manifest has; what ECS refuses.
    pub(crate) async fn fresh(&mut self) -> anyhow::Result<Vec<Event>> {
        let names = self.aws.names_on_ecs(self.services)?;
        let found = self.aws.describe_services(&names.keys().cloned().collect::<Vec<_>>()).await?;
        let of_service = |(on_ecs, name): (&String, &String)| {
            let service = found.get(on_ecs);
            service.map(|service| events(name, service)).unwrap_or_default()
        };
        let there: BTreeSet<Event> = names.iter().flat_map(of_service).collect();
        let fresh = there.difference(&self.told).cloned().collect();
        self.told = there;
        Ok(fresh)
    }
}

fn events(name: &str, service: &Service) -> Vec<Event> {
    let prefix = format!("(service {}) ", service.service_name().unwrap_or_default());
    let event = |event: &ServiceEvent| {
        let message = event.message().unwrap_or_default();
        Some(Event {
            time: event.created_at().and_then(time)?,
            service: name.to_owned(),
            text: message.strip_prefix(&prefix).unwrap_or(message).to_owned(),
            id: event.id().unwrap_or_default().to_owned(),
        })
    };
    service.events().iter().filter_map(event).collect()
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::DateTime;

    use super::*;

    #[test]
    fn an_event_is_told_without_what_is_known() {
        let event = ServiceEvent::builder().id("1").created_at(DateTime::from_secs(60));
        let event = event.message("(service quest-system-nats) has reached a steady state.").build();
        let service = Service::builder().service_name("quest-system-nats").events(event).build();
        let told = events("quest-system", &service);
        assert_eq!(told[0].text, "has reached a steady state.");
        assert_eq!(told[0].time, Timestamp::from_second(60).unwrap());
    }
}
