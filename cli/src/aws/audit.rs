//! Audit events of CloudTrail: who changed services. Best effort: CloudTrail may be switched off, keeps its event history for 90 days,
//! and may be minutes late.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aws_sdk_cloudtrail::types::{Event, LookupAttribute, LookupAttributeKey};
use serde::Serialize;
use serde_json::Value;

use super::arn::short;
use super::clients::APP;
use super::error::failed;

/// What changes a service or what it is made of.
const ACTIONS: [&str; 3] = ["UpdateService", "RegisterTaskDefinition", "CreateService"];
/// Pages of each action that are searched; CloudTrail gives fifty events a page, and two pages a second.
const PAGES: usize = 4;
/// Events that are reported of each service.
const EVENTS_PER_SERVICE: usize = 3;

/// A change of a service by another caller than natsctl.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct AuditEvent {
    pub(crate) when: jiff::Timestamp,
    /// ARN of the caller, or its name.
    pub(crate) who: String,
    /// `UpdateService`
    pub(crate) action: String,
    /// The user agent: the console, the CLI, an SDK.
    pub(crate) agent: String,
}

impl fmt::Display for AuditEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let agent = self.agent.split_whitespace().next().unwrap_or("without a user agent");
        write!(f, "{:.0}: {} by {} ({agent})", self.when, self.action, self.who)
    }
}

/// The latest changes of these ECS services by other callers than natsctl, the newest first.
pub(super) async fn events(
    cloudtrail: &aws_sdk_cloudtrail::Client,
    services: &BTreeSet<String>,
) -> anyhow::Result<BTreeMap<String, Vec<AuditEvent>>> {
    let mut events: BTreeMap<String, Vec<AuditEvent>> = BTreeMap::new();
    for action in ACTIONS {
        let attribute = LookupAttribute::builder().attribute_key(LookupAttributeKey::EventName).attribute_value(action);
        let call = cloudtrail.lookup_events().lookup_attributes(attribute.build()?).max_results(50);
        let mut pages = call.into_paginator().send();
        for _ in 0..PAGES {
            let Some(page) = pages.next().await else { break };
            let page = page.map_err(|error| failed("ask CloudTrail who changed services", error))?;
            for (service, event) in page.events().iter().filter_map(parse) {
                if services.contains(&service) {
                    events.entry(service).or_default().push(event);
                }
            }
        }
    }
    for events in events.values_mut() {
        events.sort_by_key(|event| std::cmp::Reverse(event.when));
        events.truncate(EVENTS_PER_SERVICE);
    }
    Ok(events)
}

/// The service that an event is about, and the change; `None` if it was refused, or natsctl made it.
fn parse(event: &Event) -> Option<(String, AuditEvent)> {
    let record: Value = serde_json::from_str(event.cloud_trail_event()?).ok()?;
    let agent = record["userAgent"].as_str().unwrap_or_default();
    if agent.contains(&format!("app/{APP}")) || record.get("errorCode").is_some() {
        return None;
    }
    let parameters = &record["requestParameters"];
    let service = ["service", "serviceName", "family"].into_iter().find_map(|key| parameters[key].as_str())?;
    let who = record["userIdentity"]["arn"].as_str().or(event.username()).unwrap_or("an unnamed caller").to_owned();
    let when = jiff::Timestamp::from_second(event.event_time()?.secs()).ok()?;
    let action = event.event_name().unwrap_or_default().to_owned();
    // A service may be named by its ARN.
    Some((short(service).to_owned(), AuditEvent { when, who, action, agent: agent.to_owned() }))
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::DateTime;
    use serde_json::json;

    use super::*;

    fn event(record: &Value) -> Event {
        Event::builder()
            .event_name("UpdateService")
            .event_time(DateTime::from_secs(0))
            .username("bob")
            .cloud_trail_event(record.to_string())
            .build()
    }

    #[test]
    fn an_event_says_who_did_what_to_which_service() {
        let record = json!({
            "userAgent": "console.amazonaws.com", "userIdentity": { "arn": "arn:aws:iam::1:user/bob" },
            "requestParameters": { "service": "arn:aws:ecs:us-east-1:1:service/c/auth-nats" },
        });
        let (service, event) = parse(&event(&record)).unwrap();
        assert_eq!(service, "auth-nats");
        assert_eq!(
            event.to_string(),
            "1970-01-01T00:00:00Z: UpdateService by arn:aws:iam::1:user/bob (console.amazonaws.com)"
        );
    }

    #[test]
    fn what_natsctl_did_and_what_was_refused_is_left_out() {
        let own = json!({ "userAgent": "aws-sdk-rust/1 app/natsctl", "requestParameters": { "service": "auth-nats" } });
        let refused = json!({ "errorCode": "AccessDenied", "requestParameters": { "service": "auth-nats" } });
        assert_eq!(parse(&event(&own)), None);
        assert_eq!(parse(&event(&refused)), None);
        assert_eq!(parse(&event(&json!({}))), None);
    }
}
