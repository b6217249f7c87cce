//! What runs and is not what the manifests say, and who made it so. Images are as they were deployed: `plan` is what builds.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Aws;
use super::desired::Frame;
use super::ledger::State;
use super::observe::Seen;
use super::rollout::short;
use super::trail::Deed;
use crate::error::Hinted;
use crate::image::Reference;
use crate::model::desired::{Definition, Desired, Image};
use crate::model::plan::{Action, Change, Kind, Plan, Step, differences};

/// A service that is not what its manifest says.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Drifted {
    #[serde(flatten)]
    pub(crate) step: Step,
    /// `family:revision` that it is at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) task_definition: Option<String>,
    /// ARN of who registered that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) registered_by: Option<String>,
    /// What was done to it lately by others than natsctl, the newest first.
    pub(crate) deeds: Vec<Deed>,
}

/// Two revisions of a service, compared.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Compared {
    pub(crate) service: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) changes: Vec<Change>,
}

/// What is compared with what.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Between {
    /// What runs, if `None`.
    pub(crate) from: Option<u64>,
    /// What the manifest says, if `None`.
    pub(crate) to: Option<u64>,
}

impl Aws {
    /// The services that are not what their manifests say; and why it is not known who made them so, if it is not.
    pub(crate) async fn drift(&self) -> anyhow::Result<(Vec<Drifted>, Option<String>)> {
        let (desired, seen) = self.as_deployed().await?;
        let plan = Plan::new(&desired, &seen.observed);
        let steps: Vec<Step> = plan.steps.into_iter().filter(|step| step.kind == Kind::Service).collect();
        if steps.is_empty() {
            return Ok((Vec::new(), None));
        }
        let families = steps.iter().filter_map(|step| Some(seen.services.get(&step.name)?.service_name()?.to_owned()));
        let (mut deeds, unknown) = match self.deeds(&families.collect()).await {
            Ok(deeds) => (deeds, None),
            Err(error) => (BTreeMap::new(), Some(format!("{error:#}"))),
        };
        let mut drifted = Vec::new();
        for step in steps {
            let found = seen.services.get(&step.name);
            let task_definition = found.and_then(|found| found.task_definition()).map(str::to_owned);
            let registered_by = match &task_definition {
                Some(arn) => self.task_definition(arn).await?.registered_by,
                None => None,
            };
            let deeds = found.and_then(|found| deeds.remove(found.service_name()?)).unwrap_or_default();
            let task_definition = task_definition.map(|arn| short(&arn).to_owned());
            drifted.push(Drifted { step, task_definition, registered_by, deeds });
        }
        Ok((drifted, unknown))
    }

    /// How revisions of these services differ.
    pub(crate) async fn compare(&self, names: &BTreeSet<String>, between: Between) -> anyhow::Result<Vec<Compared>> {
        let (desired, seen) = self.as_deployed().await?;
        let mut compared = Vec::new();
        for name in names {
            let family = self.manifests.services[name].ecs_name();
            let (from, before) = match between.from {
                Some(number) => self.numbered(name, &family, number).await?,
                None => running(name, &seen)?,
            };
            let (to, after) = match between.to {
                Some(number) => self.numbered(name, &family, number).await?,
                None => ("the manifest".to_owned(), desired.services[name].definition.clone()),
            };
            let changes = differences("", Some(&before), &after);
            compared.push(Compared { service: name.clone(), from, to, changes });
        }
        Ok(compared)
    }

    async fn numbered(&self, name: &str, family: &str, number: u64) -> anyhow::Result<(String, Definition)> {
        let revision = format!("{family}:{number}");
        let definition = self.described(name, &revision).await?;
        Ok((revision, definition))
    }

    /// What the manifests say, with the images that were deployed; and what is there.
    async fn as_deployed(&self) -> anyhow::Result<(Desired, Seen)> {
        let ledger = self.ledger();
        let (state, secrets, services) =
            futures::try_join!(ledger.state(), self.secrets(), self.ecs_services(BTreeSet::new()))?;
        let mut images = images(&state);
        for (name, service) in &self.manifests.services {
            if let Some(image) = service.build.as_ref().and_then(|build| build.image.as_ref()) {
                images.insert(name.clone(), image.parse::<Reference>()?.into());
            } else if !images.contains_key(name) {
                // Deployed by somebody else, or by a natsctl whose ledger is lost; or not at all.
                let there = services.get(&service.ecs_name()).and_then(|found| found.task_definition());
                let image = match there {
                    Some(arn) => image_of(&self.described(name, arn).await?),
                    None => Image::default(),
                };
                images.insert(name.clone(), image);
            }
        }
        let frame = Frame { manifests: &self.manifests, handover: &self.handover, secrets: &secrets, images: &images };
        let mut desired = frame.desired()?;
        desired.images.clear();
        let seen = self.observe(&desired).await?;
        Ok((desired, seen))
    }
}

/// What runs now.
fn running(name: &str, seen: &Seen) -> anyhow::Result<(String, Definition)> {
    let found = seen.services.get(name).and_then(|found| found.task_definition());
    let (Some(found), Some(there)) = (found, seen.observed.services.get(name)) else {
        let hint = format!("`natsctl deploy {name}` deploys it; `--from` and `--to` compare revisions");
        return Err(Hinted::new(format!("`{name}` is not deployed"), hint).into());
    };
    Ok((short(found).to_owned(), there.definition.clone()))
}

/// The images that natsctl has deployed.
fn images(state: &State) -> BTreeMap<String, Image> {
    let image = |text: &str| {
        let (repository, digest) = text.split_once('@')?;
        Some(Image { repository: repository.to_owned(), digest: digest.to_owned() })
    };
    state.services.iter().filter_map(|(name, known)| Some((name.clone(), image(&known.image)?))).collect()
}

fn image_of(definition: &Definition) -> Image {
    let repository = definition.ecs.as_ref().map(|task| task.repository.clone()).unwrap_or_default();
    Image { repository, digest: definition.artifact.clone() }
}

/// For people: what differs, and below it who did what.
pub(crate) fn text(drifted: &[Drifted], unknown: Option<&str>) -> String {
    let mut lines = Vec::new();
    for Drifted { step, task_definition, registered_by, deeds } in drifted {
        let what = match step.action {
            Action::Create => "is not there",
            Action::Delete => "is not in the manifests",
            Action::Start => "does not run as it should",
            Action::Update => "differs",
        };
        lines.push(format!("~ {} {what}", step.name));
        let changes = step.changes.iter().filter(|_| step.action != Action::Create);
        lines.extend(changes.map(|change| format!("    {change}")));
        if let (Some(definition), Some(by)) = (task_definition, registered_by) {
            lines.push(format!("    it is at {definition}, registered by {by}"));
        }
        lines.extend(deeds.iter().map(|deed| format!("    {deed}")));
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

/// For people.
pub(crate) fn compared_text(compared: &[Compared]) -> String {
    let one = |Compared { service, from, to, changes }: &Compared| {
        let mut lines = match changes.len() {
            0 => vec![format!("{service}: {from} and {to} say the same")],
            _ => vec![format!("~ {service}: from {from} to {to}")],
        };
        lines.extend(changes.iter().map(|change| format!("    {change}")));
        lines.join("\n")
    };
    compared.iter().map(one).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drifted(action: Action, deeds: Vec<Deed>) -> Drifted {
        let change = Change { field: "definition.cpu".to_owned(), from: Some(512.into()), to: Some(256.into()) };
        let step =
            Step { action, kind: Kind::Service, name: "auth".to_owned(), changes: vec![change], wave: 2, tasks: None };
        let by = Some("arn:aws:iam::123456789012:user/bob".to_owned());
        Drifted { step, task_definition: Some("auth-nats:7".to_owned()), registered_by: by, deeds }
    }

    #[test]
    fn who_changed_a_service_stands_under_what_differs() {
        let deed = Deed {
            when: "2026-11-21T06:41:00Z".parse().unwrap(),
            who: "bob".to_owned(),
            action: "UpdateService".to_owned(),
            agent: "aws-cli/2.1".to_owned(),
        };
        let expected = "~ auth differs\n    definition.cpu: 512 -> 256\n    it is at auth-nats:7, registered by \
                        arn:aws:iam::123456789012:user/bob\n    2026-11-21T06:41:00Z: UpdateService by bob (aws-cli/2.1)\n\
                        1 service is not as its manifest says; the arrows show what `deploy` would do";
        assert_eq!(text(&[drifted(Action::Update, vec![deed])], None), expected);
    }

    #[test]
    fn what_is_not_there_has_no_differences() {
        assert!(text(&[drifted(Action::Create, Vec::new())], None).starts_with("~ auth is not there\n    it is at"));
        assert!(text(&[], None).starts_with("everything is as the manifests say"));
        assert!(text(&[], Some("no right")).contains("who changed it is not known: no right"));
    }

    #[test]
    fn revisions_that_say_the_same_are_said_to() {
        let compared =
            |changes| Compared { service: "auth".to_owned(), from: "a:1".to_owned(), to: "a:2".to_owned(), changes };
        assert_eq!(compared_text(&[compared(Vec::new())]), "auth: a:1 and a:2 say the same");
        let change = Change { field: "cpu".to_owned(), from: Some(1.into()), to: Some(2.into()) };
        assert_eq!(compared_text(&[compared(vec![change])]), "~ auth: from a:1 to a:2\n    cpu: 1 -> 2");
    }
}
