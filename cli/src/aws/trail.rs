//! Who changed services, as CloudTrail remembers it. Best effort: it may be switched off, it forgets after 90 days, and it may be
//! minutes late.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aws_sdk_cloudtrail::types::{Event, LookupAttribute, LookupAttributeKey};
use serde::Serialize;
use serde_json::Value;

use super::Aws;
use super::clients::APP;
use super::error::failed;

/// What changes a service or what it is made of.
const ACTIONS: [&str; 3] = ["UpdateService", "RegisterTaskDefinition", "CreateService"];
/// Pages of each action that are looked through; CloudTrail gives fifty events a page, and two pages a second.
const PAGES: usize = 4;
/// Deeds that are told of each service.
const TOLD: usize = 3;

/// What somebody did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Deed {
    pub(crate) when: jiff::Timestamp,
    pub(crate) who: String,
    /// `UpdateService`
    pub(crate) action: String,
    /// With what: the console, the CLI, an SDK.
    pub(crate) agent: String,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let agent = self.agent.split_whitespace().next().unwrap_or("with something that does not say what it is");
        write!(f, "{:.0}: {} by {} ({agent})", self.when, self.action, self.who)
    }
}

impl Aws {
    /// What was done lately to these ECS services by others than natsctl, the newest first.
    pub(crate) async fn deeds(&self, services: &BTreeSet<String>) -> anyhow::Result<BTreeMap<String, Vec<Deed>>> {
        let mut deeds: BTreeMap<String, Vec<Deed>> = BTreeMap::new();
        for action in ACTIONS {
            let attribute =
                LookupAttribute::builder().attribute_key(LookupAttributeKey::EventName).attribute_value(action);
            let call = self.clients.cloudtrail().lookup_events().lookup_attributes(attribute.build()?).max_results(50);
            let mut pages = call.into_paginator().send();
            for _ in 0..PAGES {
                let Some(page) = pages.next().await else { break };
                let page = page.map_err(|error| failed("ask CloudTrail who changed services", error))?;
                for (service, deed) in page.events().iter().filter_map(read) {
                    if services.contains(&service) {
                        deeds.entry(service).or_default().push(deed);
                    }
                }
            }
        }
        for deeds in deeds.values_mut() {
            deeds.sort_by_key(|deed| std::cmp::Reverse(deed.when));
            deeds.truncate(TOLD);
        }
        Ok(deeds)
    }
}

/// The service that an event is about, and what it was; `None` for natsctl's own.
fn read(event: &Event) -> Option<(String, Deed)> {
    let record: Value = serde_json::from_str(event.cloud_trail_event()?).ok()?;
    let agent = record["userAgent"].as_str().unwrap_or_default();
    if agent.contains(&format!("app/{APP}")) || record.get("errorCode").is_some() {
        return None;
    }
    let asked = &record["requestParameters"];
    let named = ["service", "serviceName", "family"].into_iter().find_map(|key| asked[key].as_str())?;
    let who = record["userIdentity"]["arn"].as_str().or(event.username()).unwrap_or("somebody").to_owned();
    let when = jiff::Timestamp::from_second(event.event_time()?.secs()).ok()?;
    let action = event.event_name().unwrap_or_default().to_owned();
    // A service may be named by its ARN.
    let service = named.rsplit('/').next().unwrap_or(named).to_owned();
    Some((service, Deed { when, who, action, agent: agent.to_owned() }))
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
    fn an_event_tells_who_did_what_to_which_service() {
        let record = json!({
            "userAgent": "console.amazonaws.com", "userIdentity": { "arn": "arn:aws:iam::1:user/bob" },
            "requestParameters": { "service": "arn:aws:ecs:us-east-1:1:service/c/auth-nats" },
        });
        let (service, deed) = read(&event(&record)).unwrap();
        assert_eq!(service, "auth-nats");
        assert_eq!(
            deed.to_string(),
            "1970-01-01T00:00:00Z: UpdateService by arn:aws:iam::1:user/bob (console.amazonaws.com)"
        );
    }

    #[test]
    fn what_natsctl_did_and_what_was_refused_is_left_out() {
        let own = json!({ "userAgent": "aws-sdk-rust/1 app/natsctl", "requestParameters": { "service": "auth-nats" } });
        let refused = json!({ "errorCode": "AccessDenied", "requestParameters": { "service": "auth-nats" } });
        assert_eq!(read(&event(&own)), None);
        assert_eq!(read(&event(&refused)), None);
        assert_eq!(read(&event(&json!({}))), None);
    }
}
