//! Scripts on instances, by Run Command of Systems Manager: sent, followed until they have ended, their whole output read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::{CommandInvocation, CommandInvocationStatus as Status};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::time::{Instant, sleep};

use crate::aws::AT_ONCE;
use crate::aws::error::{code, failed};
use crate::cleanup;
use crate::error::Hinted;

const DOCUMENT: &str = "AWS-RunShellScript";
/// How long an agent may take to begin; the least that Systems Manager takes is 30 s.
const DELIVERY: Duration = Duration::from_secs(60);
/// How much longer Systems Manager may take to say that a script has ended.
const SLACK: Duration = Duration::from_secs(30);
/// Between two looks at a command, at first and later.
const POLL: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(3)];
/// Characters of a comment.
const LONGEST_COMMENT: usize = 100;
/// Bytes of output that one command shows. Systems Manager keeps 24 000 characters, and cuts the rest off.
const PAGE: usize = 20_000;
/// What the last line of a page begins with; the size of the whole output follows.
const TRAILER: &str = "natsctl-output ";

/// A script, and what people see of it.
pub(super) struct Script<'a> {
    /// For the console and the logs of AWS.
    pub(super) comment: &'a str,
    pub(super) text: &'a str,
    /// How long it may run.
    pub(super) timeout: Duration,
}

/// Names of nodes by the ids of their instances.
pub(super) type Instances = BTreeMap<String, String>;

/// What each node answered, or why it did not.
pub(super) type Outcomes = BTreeMap<String, Result<String, Hinted>>;

/// Runs a script on these instances at the same time.
///
/// # Errors
/// It could not be sent or followed. Why it failed on a node is in the outcomes.
pub(super) async fn run(ssm: &Client, instances: &Instances, script: &Script<'_>) -> anyhow::Result<Outcomes> {
    let id = format!("{:016x}", fastrand::u64(..));
    let comment = script.comment;
    let command = send(ssm, instances, comment, &wrapped(script.text, &id), script.timeout).await?;
    let ended = follow(ssm, instances, command, comment, script.timeout).await?;
    let read = ended.into_iter().map(|(instance, ended)| read(ssm, instance, ended, instances, &id));
    futures::stream::iter(read).buffered(AT_ONCE).try_collect().await
}

/// The same script, whose output is in a file as well, and is followed by its size.
fn wrapped(script: &str, id: &str) -> String {
    format!(
        "#!/bin/bash\numask 077\nmkdir -p /run/natsctl\nfind /run/natsctl -name '*.out' -mmin +60 -delete\n\
         output=/run/natsctl/{id}.out\n(\n{script}\n) >\"$output\" 2>&1 </dev/null\ncode=$?\n\
         head -c {PAGE} \"$output\"\nprintf '\\n{TRAILER}%s\\n' \"$(stat -c %s \"$output\")\"\nexit $code\n"
    )
}

/// A script that shows another page of the output.
fn page(id: &str, from: usize) -> String {
    format!("#!/bin/bash\ntail -c +{} /run/natsctl/{id}.out | head -c {PAGE}\nprintf '\\n{TRAILER}%s\\n' 0\n", from + 1)
}

/// The page, and the size of the whole output. `None` if the end is missing.
fn split(page: &str) -> Option<(&str, usize)> {
    let (page, size) = page.trim_end().rsplit_once(TRAILER)?;
    Some((page.strip_suffix('\n').unwrap_or(page), size.trim().parse().ok()?))
}

async fn send(
    ssm: &Client,
    instances: &Instances,
    comment: &str,
    script: &str,
    timeout: Duration,
) -> anyhow::Result<Cancelling> {
    let seconds = |duration: Duration| duration.as_secs().max(30);
    let call = ssm.send_command().document_name(DOCUMENT).set_instance_ids(Some(instances.keys().cloned().collect()));
    let call = call.comment(comment.chars().take(LONGEST_COMMENT).collect::<String>());
    let call = call.timeout_seconds(i32::try_from(seconds(DELIVERY)).unwrap_or(i32::MAX));
    let call = call.parameters("commands", vec![script.to_owned()]);
    let call = call.parameters("executionTimeout", vec![seconds(timeout).to_string()]);
    let names = || instances.values().cloned().collect::<Vec<_>>().join("`, `");
    let answer = call.send().await.map_err(|error| {
        let is_unreachable = code(&error) == Some("InvalidInstanceId");
        let error = failed(&format!("send a command to `{}`", names()), error);
        let hint =
            "an instance is not running, or its agent does not reach Systems Manager: `natsctl nats plan` says which";
        if is_unreachable { Hinted::with(format!("{error:#}"), Some(hint.to_owned())).into() } else { error }
    })?;
    let id = answer.command.and_then(|command| command.command_id);
    let id = id.ok_or_else(|| anyhow::anyhow!("Systems Manager gave no id for the command to `{}`", names()))?;
    Ok(Cancelling { ssm: ssm.clone(), command: Some(id) })
}

/// A command that is cancelled when it is no longer followed.
struct Cancelling {
    ssm: Client,
    command: Option<String>,
}

impl Drop for Cancelling {
    fn drop(&mut self) {
        if let Some(command) = self.command.take() {
            let ssm = self.ssm.clone();
            cleanup::leave(async move {
                if let Err(error) = ssm.cancel_command().command_id(&command).send().await {
                    tracing::warn!(%command, error = format!("{:#}", failed("cancel the command", error)));
                }
            });
        }
    }
}

/// How a command has ended on an instance.
struct Ended {
    command: String,
    status: Status,
    details: String,
}

/// Waits until the command has ended everywhere.
async fn follow(
    ssm: &Client,
    instances: &Instances,
    mut command: Cancelling,
    comment: &str,
    timeout: Duration,
) -> anyhow::Result<BTreeMap<String, Ended>> {
    let id = command.command.clone().unwrap_or_default();
    let deadline = Instant::now() + DELIVERY + timeout + SLACK;
    let mut interval = POLL[0];
    loop {
        let pages = ssm.list_command_invocations().command_id(&id).into_paginator().items().send();
        let found: Vec<CommandInvocation> = pages
            .try_collect()
            .await
            .map_err(|error| failed(&format!("follow the command {id} ({comment})"), error))?;
        let has_ended = |found: &&CommandInvocation| {
            !matches!(
                found.status,
                None | Some(Status::Pending | Status::InProgress | Status::Delayed | Status::Cancelling)
            )
        };
        let ended = found.iter().filter(has_ended).filter_map(|one| {
            let details = one.status_details.clone().unwrap_or_default().replace(' ', "");
            Some((one.instance_id.clone()?, Ended { command: id.clone(), status: one.status.clone()?, details }))
        });
        let ended: BTreeMap<String, Ended> = ended.collect();
        // The list may be empty at first, and may lack some.
        if instances.keys().all(|instance| ended.contains_key(instance)) {
            command.command = None;
            return Ok(ended);
        }
        if Instant::now() >= deadline {
            let open: BTreeSet<&str> =
                instances.iter().filter(|(id, _)| !ended.contains_key(*id)).map(|(_, node)| node.as_str()).collect();
            let open = open.into_iter().collect::<Vec<_>>().join("`, `");
            let message = format!("the command {id} ({comment}) has not ended on `{open}`; it is cancelled");
            let hint = "see that the agents of these nodes work, and run the same command again: it goes on from there";
            return Err(Hinted::new(message, hint).into());
        }
        sleep(interval).await;
        interval = (interval * 3 / 2).min(POLL[1]);
    }
}

/// What a node answered, with all pages.
async fn read(
    ssm: &Client,
    instance: String,
    ended: Ended,
    instances: &Instances,
    id: &str,
) -> anyhow::Result<(String, Result<String, Hinted>)> {
    let node = instances.get(&instance).cloned().unwrap_or_else(|| instance.clone());
    let answer = ssm.get_command_invocation().command_id(&ended.command).instance_id(&instance).send().await;
    let answer = answer.map_err(|error| failed(&format!("read what `{node}` answered"), error))?;
    let text = answer.standard_output_content.unwrap_or_default();
    let whole = match split(&text) {
        Some((first, size)) => Some(all_pages(ssm, &instance, &node, id, first, size).await?),
        None => None,
    };
    Ok((node.clone(), outcome(&node, &ended, whole, &text, &answer.standard_error_content.unwrap_or_default())))
}

async fn all_pages(
    ssm: &Client,
    instance: &str,
    node: &str,
    id: &str,
    first: &str,
    size: usize,
) -> anyhow::Result<String> {
    let mut whole = first.to_owned();
    let instances = BTreeMap::from([(instance.to_owned(), node.to_owned())]);
    let mut from = PAGE;
    while from < size {
        let comment = format!("natsctl: more of the output on {node}");
        let timeout = Duration::from_secs(30);
        let command = send(ssm, &instances, &comment, &page(id, from), timeout).await?;
        let ended = follow(ssm, &instances, command, &comment, timeout).await?;
        let command = ended.into_values().next().map(|ended| ended.command).unwrap_or_default();
        let answer = ssm.get_command_invocation().command_id(&command).instance_id(instance).send().await;
        let answer = answer.map_err(|error| failed(&format!("read what `{node}` answered"), error))?;
        let text = answer.standard_output_content.unwrap_or_default();
        let (more, _) = split(&text).ok_or_else(|| {
            Hinted::new(format!("the output of `{node}` is not complete"), "run the same command again")
        })?;
        whole.push_str(more);
        from += PAGE;
    }
    Ok(whole)
}

/// What the end of a script on a node means.
fn outcome(node: &str, ended: &Ended, whole: Option<String>, text: &str, errors: &str) -> Result<String, Hinted> {
    const AGAIN: &str = "run the same command again: it goes on from there";
    let said = |text: &str| {
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let reason = lines.iter().rev().find_map(|line| line.strip_prefix("failed: "));
        reason.or(lines.last().copied()).unwrap_or("it says nothing").to_owned()
    };
    match (&ended.status, whole) {
        (Status::Success, Some(whole)) => Ok(whole),
        (Status::Success, None) => {
            Err(Hinted::new(format!("the output of the script on `{node}` is not complete"), AGAIN))
        }
        (Status::Failed, whole) => {
            let whole = whole.unwrap_or_else(|| format!("{text}\n{errors}"));
            Err(Hinted::new(format!("`{node}`: {}", said(&whole)), AGAIN))
        }
        (Status::TimedOut, _) if ended.details == "DeliveryTimedOut" => {
            let hint = "the instance or its agent does not answer: see it in the console, restart the agent, and run this again";
            Err(Hinted::new(format!("`{node}` did not take the command within {} s", DELIVERY.as_secs()), hint))
        }
        (Status::TimedOut, whole) => {
            let last = said(&whole.unwrap_or_else(|| text.to_owned()));
            Err(Hinted::new(
                format!("`{node}`: the script did not end in time, and was stopped; the last was: {last}"),
                AGAIN,
            ))
        }
        (Status::Cancelled, _) => {
            Err(Hinted::new(format!("`{node}`: another user has cancelled the command {}", ended.command), AGAIN))
        }
        (status, _) => {
            let details = if ended.details.is_empty() { status.as_str() } else { &ended.details };
            Err(Hinted::new(format!("`{node}`: the script did not run: {details}"), AGAIN))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: Status, details: &str, output: &str, expected: Result<&str, &str>) {
        let ended = Ended { command: "c-1".to_owned(), status, details: details.to_owned() };
        let whole = split(output).map(|(text, _)| text.to_owned());
        let found = outcome("nats-1", &ended, whole, output, "");
        assert_eq!(found.as_deref().map_err(ToString::to_string), expected.map_err(str::to_owned));
    }

    #[test]
    fn the_end_of_a_script_is_told_in_words() {
        check(Status::Success, "Success", "name: nats-1\nnatsctl-output 12\n", Ok("name: nats-1"));
        check(Status::Success, "Success", "cut", Err("the output of the script on `nats-1` is not complete"));
        let output = "did: installed\nfailed: the volume is not mounted\nnatsctl-output 50\n";
        check(Status::Failed, "Failed", output, Err("`nats-1`: the volume is not mounted"));
        check(Status::Failed, "Failed", "bash: no", Err("`nats-1`: bash: no"));
        check(Status::TimedOut, "DeliveryTimedOut", "", Err("`nats-1` did not take the command within 60 s"));
        check(
            Status::TimedOut,
            "ExecutionTimedOut",
            "did: installed\n",
            Err("`nats-1`: the script did not end in time, and was stopped; the last was: did: installed"),
        );
        check(Status::Cancelled, "Cancelled", "", Err("`nats-1`: another user has cancelled the command c-1"));
        check(Status::Failed, "Undeliverable", "", Err("`nats-1`: it says nothing"));
    }

    #[test]
    fn a_page_ends_with_the_size_of_the_output() {
        assert_eq!(split("a\nb\n\nnatsctl-output 4\n"), Some(("a\nb\n", 4)));
        assert_eq!(split("a\nb"), None);
    }
}
