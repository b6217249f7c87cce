//! The lock of an environment, an item of the ledger: one change at a time, from all machines. Its holder renews it; a lock that has
//! expired may be taken over.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use tokio::task::JoinHandle;

use super::Aws;
use super::error::failed;
use super::ledger::{Ledger, number, text};
use crate::pipeline::lock::{IfHeld, Waiting};

/// When a lock expires that is not renewed.
const HELD_FOR: Duration = Duration::from_secs(60);
/// Between two renewals.
const RENEW_EVERY: Duration = Duration::from_secs(20);
/// Between two tries to take a lock that is held.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// A lock that is held: renewed until it is released or dropped.
pub(crate) struct Held {
    ledger: Ledger,
    owner: String,
    renewing: JoinHandle<()>,
}

/// The holder of a lock.
#[derive(Clone, Debug, Default, PartialEq)]
struct Holder {
    owner: String,
    who: String,
    host: String,
    pid: i32,
    command: String,
    since: String,
    until: i64,
}

impl Ledger {
    /// Takes the lock.
    ///
    /// # Errors
    /// The lock is held, and `if_held` is not to wait.
    pub(crate) async fn lock(&self, who: &str, command: &str, if_held: IfHeld) -> anyhow::Result<Held> {
        let mine = Holder {
            owner: format!("{:016x}", fastrand::u64(..)),
            who: who.to_owned(),
            host: host(),
            pid: i32::try_from(std::process::id()).unwrap_or(0),
            command: command.to_owned(),
            since: format!("{:.0}", jiff::Timestamp::now()),
            until: 0,
        };
        let mut replaces = None;
        let mut waiting = Waiting::new(if_held);
        loop {
            let Some(other) = self.try_lock(&mine, replaces.as_deref()).await? else {
                let renewing = tokio::spawn(self.clone().renew(mine.owner.clone()));
                return Ok(Held { ledger: self.clone(), owner: mine.owner, renewing });
            };
            if other.owner == mine.owner {
                // The answer of a call that took the lock was lost.
                replaces = Some(mine.owner.clone());
                continue;
            }
            if other.is_dead_here(&mine) {
                replaces = Some(other.owner);
                continue;
            }
            waiting.held_by(&other.describe())?;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Tries once. If the lock is held, gives its holder.
    async fn try_lock(&self, mine: &Holder, replaces: Option<&str>) -> anyhow::Result<Option<Holder>> {
        let now = jiff::Timestamp::now().as_second();
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item("pk", text("lock"))
            .item("sk", text("environment"))
            .item("owner", text(&mine.owner))
            .item("who", text(&mine.who))
            .item("host", text(&mine.host))
            .item("pid", number(mine.pid.into()))
            .item("command", text(&mine.command))
            .item("since", text(&mine.since))
            .item("until", number(until(now)))
            .condition_expression("attribute_not_exists(pk) OR #until < :now OR #owner = :replaces")
            .expression_attribute_names("#until", "until")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":now", number(now))
            .expression_attribute_values(":replaces", text(replaces.unwrap_or("nobody")))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match put.send().await {
            Ok(_) => Ok(None),
            Err(error) => {
                let refused = error.as_service_error().filter(|error| error.is_conditional_check_failed_exception());
                if refused.is_none() {
                    return Err(failed(&format!("take the lock in the ledger `{}`", self.table), error));
                }
                self.holder().await.map(Some)
            }
        }
    }

    async fn holder(&self) -> anyhow::Result<Holder> {
        let item = self.client.get_item().table_name(&self.table).consistent_read(true);
        let answer = item.key("pk", text("lock")).key("sk", text("environment")).send().await;
        let answer = answer.map_err(|error| failed(&format!("read the lock in the ledger `{}`", self.table), error))?;
        Ok(answer.item().map(Holder::read).unwrap_or_default())
    }

    /// Renews the lock until the task is aborted.
    async fn renew(self, owner: String) {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            let update = self
                .client
                .update_item()
                .table_name(&self.table)
                .key("pk", text("lock"))
                .key("sk", text("environment"))
                .update_expression("SET #until = :until")
                .condition_expression("#owner = :owner")
                .expression_attribute_names("#until", "until")
                .expression_attribute_names("#owner", "owner")
                .expression_attribute_values(":until", number(until(jiff::Timestamp::now().as_second())))
                .expression_attribute_values(":owner", text(&owner));
            if let Err(error) = update.send().await {
                // It is tried again before the lock expires.
                tracing::warn!(error = format!("{:#}", failed("renew the lock", error)));
            }
        }
    }
}

/// Makes a change under the lock of the environment.
///
/// # Errors
/// Those of the change; the lock is held, and `if_held` is not to wait.
pub(crate) async fn locked<T>(
    aws: &Aws,
    if_held: IfHeld,
    change: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let held = Ledger::of(aws).lock(&aws.caller, &aws.command_line, if_held).await?;
    let outcome = change.await;
    let released = held.release().await;
    let done = outcome?;
    released?;
    Ok(done)
}

impl Held {
    /// Deletes the item, so that another run can take the lock.
    pub(crate) async fn release(self) -> anyhow::Result<()> {
        self.renewing.abort();
        let delete = self
            .ledger
            .client
            .delete_item()
            .table_name(&self.ledger.table)
            .key("pk", text("lock"))
            .key("sk", text("environment"))
            .condition_expression("#owner = :owner")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":owner", text(&self.owner));
        match delete.send().await {
            Ok(_) => Ok(()),
            // A call whose answer was lost has released it, or it was taken over.
            Err(error)
                if error.as_service_error().is_some_and(|error| error.is_conditional_check_failed_exception()) =>
            {
                Ok(())
            }
            Err(error) => Err(failed("release the lock", error)),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

impl Holder {
    fn read(item: &HashMap<String, AttributeValue>) -> Self {
        let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned().unwrap_or_default();
        let number = |name: &str| item.get(name).and_then(|value| value.as_n().ok()?.parse().ok()).unwrap_or(0_i64);
        Self {
            owner: text("owner"),
            who: text("who"),
            host: text("host"),
            pid: i32::try_from(number("pid")).unwrap_or(0),
            command: text("command"),
            since: text("since"),
            until: number("until"),
        }
    }

    /// Whether it was a process of this machine that has ended: its lock can be taken over before it expires.
    fn is_dead_here(&self, mine: &Self) -> bool {
        let pid = rustix::process::Pid::from_raw(self.pid);
        let is_gone = |pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH);
        !self.owner.is_empty() && self.host == mine.host && pid.is_some_and(is_gone)
    }

    fn describe(&self) -> String {
        let Self { who, host, command, since, .. } = self;
        let host = host.split('/').next().unwrap_or(host);
        format!("`{command}` of {who} (on {host}, since {since})")
    }
}

fn until(now: i64) -> i64 {
    now + i64::try_from(HELD_FOR.as_secs()).unwrap_or(60)
}

/// Name of this machine and id of its boot: after a restart the pids are other processes.
fn host() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{name}/{}", boot.trim())
}
