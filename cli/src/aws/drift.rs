//! Drift: services that differ from their manifests, and who changed them. Images are as they were deployed: `plan` is what builds.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::arn::short;
use super::audit::{self, AuditEvent};
use super::desired::DesiredOnEcs;
use super::ledger::{Ledger, State};
use super::observe::{self, Observation};
use super::services::{self, Service};
use super::{Aws, revisions, secrets};
use crate::error::{Code, Hinted};
use crate::image::Reference;
use crate::model::change::{Change, Deploy, Selection};
use crate::model::desired::{Definition, Desired, Image};
use crate::model::listed::{Between, Compared};
use crate::model::plan::{Plan, differences};
use crate::model::step::{Action, Kind, Step};

/// A service that differs from its manifest.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Drifted {
    #[serde(flatten)]
    pub(crate) step: Step,
    /// `family:revision` that it should run by what ECS has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) task_definition: Option<String>,
    /// ARN of the caller that registered it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) registered_by: Option<String>,
    /// The latest changes by other callers than natsctl, the newest first.
    #[serde(rename = "deeds")]
    pub(crate) audit_events: Vec<AuditEvent>,
}

/// What differs from the manifests, and what no manifest sets.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Drift {
    pub(crate) drifted: Vec<Drifted>,
    /// What a deployment leaves as it is, by service, and by its name in the API.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) kept: BTreeMap<String, BTreeMap<String, Value>>,
    /// Why the audit events are not known, if they are not.
    pub(crate) unknown: Option<String>,
}

/// The services that differ from their manifests.
pub(crate) async fn find(aws: &Aws) -> anyhow::Result<Drift> {
    let (desired, seen) = as_deployed(aws).await?;
    let plan = Plan::new(&everything(&desired), &desired, &seen.observed)?;
    let kept = plan.kept;
    let steps: Vec<Step> = plan.steps.into_iter().filter(|step| step.kind() == Kind::Service).collect();
    if steps.is_empty() {
        return Ok(Drift { kept, ..Drift::default() });
    }
    let services = services::converted(seen.services);
    let names = steps.iter().filter_map(|step| Some(services.get(step.name())?.name.clone()));
    let (mut events, unknown) = match audit::events(aws.clients.cloudtrail(), &names.collect()).await {
        Ok(events) => (events, None),
        Err(error) => (BTreeMap::new(), Some(format!("{error:#}"))),
    };
    let mut drifted = Vec::new();
    for step in steps {
        let service = services.get(step.name());
        let events = service.and_then(|service| events.remove(&service.name)).unwrap_or_default();
        drifted.push(Drifted::new(aws, step, service, events).await?);
    }
    Ok(Drift { drifted, kept, unknown })
}

impl Drifted {
    async fn new(
        aws: &Aws,
        step: Step,
        service: Option<&Service>,
        audit_events: Vec<AuditEvent>,
    ) -> anyhow::Result<Self> {
        let Some(service) = service else {
            return Ok(Self { step, task_definition: None, registered_by: None, audit_events });
        };
        let found = revisions::describe(aws.clients.ecs(), aws.names(step.name()), &service.task_definition).await?;
        let registered_by = Some(found.registered_by).filter(|arn| !arn.is_empty());
        let task_definition = Some(short(&service.task_definition).to_owned());
        Ok(Self { step, task_definition, registered_by, audit_events })
    }
}

/// How revisions of these services differ.
pub(crate) async fn compare(aws: &Aws, names: &BTreeSet<String>, between: Between) -> anyhow::Result<Vec<Compared>> {
    let (desired, seen) = as_deployed(aws).await?;
    let mut compared = Vec::new();
    for name in names {
        let (from, before) = match between.from {
            Some(number) => revisions::numbered(aws, name, number).await?,
            None => running(name, &seen)?,
        };
        let (to, after) = match between.to {
            Some(number) => revisions::numbered(aws, name, number).await?,
            None => ("the manifest".to_owned(), desired.services[name].definition.clone()),
        };
        let changes = differences("", Some(&before), &after);
        compared.push(Compared { service: name.clone(), from, to, changes });
    }
    Ok(compared)
}

/// The desired state of the manifests with the images that were deployed, and the observed state.
async fn as_deployed(aws: &Aws) -> anyhow::Result<(Desired, Observation)> {
    let ledger = Ledger::of(aws);
    let (state, secrets, services) = futures::try_join!(
        ledger.state(),
        secrets::arns(aws.clients.secrets(), &aws.handover),
        services::list(aws.ecs_cluster(), BTreeSet::new())
    )?;
    let services = services::converted(services);
    let mut images = images(&state);
    for (name, service) in &aws.manifests.services {
        if let Some(image) = service.build.as_ref().and_then(|build| build.image.as_ref()) {
            images.insert(name.clone(), image.parse::<Reference>()?.into());
        } else if !images.contains_key(name) {
            // Deployed by another tool, or by a natsctl whose ledger is lost; or not at all.
            let image = match services.get(&service.ecs_name()) {
                Some(found) => image_of(&observe::definition(aws, name, &found.task_definition).await?),
                None => Image::default(),
            };
            images.insert(name.clone(), image);
        }
    }
    let frame = DesiredOnEcs { manifests: &aws.manifests, handover: &aws.handover, secrets: &secrets, images: &images };
    let mut desired = frame.desired()?;
    desired.images.clear();
    let seen = observe::for_deployment(aws, &desired).await?;
    Ok((desired, seen))
}

/// The task definition of a service, and what it says.
fn running(name: &str, seen: &Observation) -> anyhow::Result<(String, Definition)> {
    let found = seen.services.get(name).and_then(|found| found.task_definition());
    let (Some(found), Some(observed)) = (found, seen.observed.services.get(name)) else {
        let hint = format!("`natsctl deploy {name}` deploys it; `--from` and `--to` compare revisions");
        return Err(Hinted::new(format!("`{name}` is not deployed"), hint).code(Code::NotDeployed).into());
    };
    Ok((short(found).to_owned(), observed.state.definition.clone()))
}

/// The images that natsctl has deployed.
fn images(state: &State) -> BTreeMap<String, Image> {
    let image = |text: &str| {
        let (repository, digest) = text.split_once('@')?;
        Some(Image { repository: repository.to_owned(), digest: digest.to_owned() })
    };
    state.services.iter().filter_map(|(name, known)| Some((name.clone(), image(&known.image)?))).collect()
}

/// A deployment of all services, which leaves streams and buckets alone.
fn everything(desired: &Desired) -> Change {
    let selection = Selection { services: desired.services.keys().cloned().collect(), all: true };
    Change::Deploy(Deploy { selection, prune: true, without_jetstream: true })
}

fn image_of(definition: &Definition) -> Image {
    let repository = definition.ecs.as_ref().map(|task| task.repository.clone()).unwrap_or_default();
    Image { repository, digest: definition.artifact.clone() }
}

/// For people: what differs, and below it who changed it.
pub(crate) fn text(Drift { drifted, kept, unknown }: &Drift) -> String {
    let mut lines = Vec::new();
    for Drifted { step, task_definition, registered_by, audit_events } in drifted {
        let what = match step.action() {
            Action::Create => "is not there",
            Action::Delete => "is not in the manifests",
            Action::Start => "does not run as it should",
            _ => "differs",
        };
        lines.push(format!("~ {} {what}", step.name()));
        let changes = step.changes.iter().filter(|_| step.action() != Action::Create);
        lines.extend(changes.map(|change| format!("    {change}")));
        if let (Some(definition), Some(by)) = (task_definition, registered_by) {
            lines.push(format!("    it is at {definition}, registered by {by}"));
        }
        lines.extend(audit_events.iter().map(|event| format!("    {event}")));
    }
    for (service, kept) in kept {
        lines.push(format!("= {service} has what its manifest does not set, and `deploy` keeps it"));
        lines.extend(kept.iter().map(|(what, value)| format!("    {what}: {value}")));
    }
    if let Some(unknown) = unknown {
        lines.push(format!("who changed it is not known: {unknown}"));
    }
    lines.push(match drifted.len() {
        0 => "everything is as the manifests say (images as they were deployed)".to_owned(),
        1 => "1 service is not as its manifest says; the arrows show what `deploy` would do".to_owned(),
        many => format!("{many} services are not as their manifests say; the arrows show what `deploy` would do"),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::step::{FieldChange, Operation};

    fn drifted(action: Action, audit_events: Vec<AuditEvent>) -> Drifted {
        let change = FieldChange { field: "definition.cpu".to_owned(), from: Some(512.into()), to: Some(256.into()) };
        let operation = Operation::PushImage { service: "auth".to_owned(), image: Image::default(), action };
        let step = Step { wave: 2, operation, changes: vec![change] };
        let by = Some("arn:aws:iam::123456789012:user/bob".to_owned());
        Drifted { step, task_definition: Some("auth-nats:7".to_owned()), registered_by: by, audit_events }
    }

    fn shown(drifted: Vec<Drifted>, unknown: Option<&str>) -> String {
        text(&Drift { drifted, kept: BTreeMap::new(), unknown: unknown.map(str::to_owned) })
    }

    #[test]
    fn what_a_deployment_keeps_is_said() {
        let kept = BTreeMap::from([("serviceRegistries".to_owned(), Value::from("arn:x"))]);
        let drift = Drift { kept: [("auth".to_owned(), kept)].into(), ..Drift::default() };
        let expected =
            "= auth has what its manifest does not set, and `deploy` keeps it\n    serviceRegistries: \"arn:x\"\n";
        assert!(text(&drift).starts_with(expected), "{}", text(&drift));
    }

    #[test]
    fn who_changed_a_service_stands_under_what_differs() {
        let event = AuditEvent {
            when: "2026-11-21T06:41:00Z".parse().unwrap(),
            who: "bob".to_owned(),
            action: "UpdateService".to_owned(),
            agent: "aws-cli/2.1".to_owned(),
        };
        let expected = "~ auth differs\n    cpu 0.5 vCPU → 0.25 vCPU\n    it is at auth-nats:7, registered by \
                        arn:aws:iam::123456789012:user/bob\n    2026-11-21T06:41:00Z: UpdateService by bob (aws-cli/2.1)\n\
                        1 service is not as its manifest says; the arrows show what `deploy` would do";
        assert_eq!(shown(vec![drifted(Action::Update, vec![event])], None), expected);
    }

    #[test]
    fn what_is_not_there_has_no_differences() {
        assert!(
            shown(vec![drifted(Action::Create, Vec::new())], None).starts_with("~ auth is not there\n    it is at")
        );
        assert!(shown(Vec::new(), None).starts_with("everything is as the manifests say"));
        assert!(shown(Vec::new(), Some("no right")).contains("who changed it is not known: no right"));
    }
}
