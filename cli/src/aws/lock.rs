//! The lock of an environment, an item of the ledger: one change at a time, from all machines. Its holder renews it; a lock that has
//! not been renewed for a time may be taken over. Whoever waits measures that time by its own clock, as DynamoDB's lock clients do:
//! the clocks of two machines are never compared.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Aws;
use super::error::failed;
use super::ledger::{Ledger, number, text};
use crate::pipeline::lock::{IfHeld, Waiting};

/// How long a lock is seen without a renewal before it may be taken over.
const HELD_FOR: Duration = Duration::from_secs(60);
/// Between two renewals.
const RENEW_EVERY: Duration = Duration::from_secs(20);
/// When the lock may be taken: nobody has it, or whoever had it has not renewed it since. Locks of before renewals were counted have
/// none.
const FREE: &str =
    "attribute_not_exists(pk) OR (#owner = :owner AND (attribute_not_exists(#renewal) OR #renewal = :renewal))";
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
    /// Another text after each renewal.
    renewal: String,
}

/// A lock of somebody else, as it was last seen.
struct Seen {
    holder: Holder,
    since: Instant,
}

impl Seen {
    fn now(holder: Holder) -> Self {
        Self { holder, since: Instant::now() }
    }

    /// The same lock again, or another one.
    fn again(self, holder: Holder) -> Self {
        let is_unchanged = (&self.holder.owner, &self.holder.renewal) == (&holder.owner, &holder.renewal);
        if is_unchanged { self } else { Self::now(holder) }
    }

    fn has_expired(&self) -> bool {
        self.since.elapsed() >= HELD_FOR
    }
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
            renewal: renewal(),
        };
        let mut replaces = None;
        let mut seen: Option<Seen> = None;
        let mut waiting = Waiting::new(if_held);
        loop {
            let Some(other) = self.try_lock(&mine, replaces.as_ref()).await? else {
                let renewing = tokio::spawn(self.clone().renew(mine.owner.clone()));
                return Ok(Held { ledger: self.clone(), owner: mine.owner, renewing });
            };
            let other = match seen.take() {
                Some(before) => before.again(other),
                None => Seen::now(other),
            };
            // The answer of a call that took the lock was lost, or its holder has died.
            if other.holder.owner == mine.owner || other.holder.is_dead_here(&mine) || other.has_expired() {
                replaces = Some(other.holder.clone());
                seen = Some(other);
                continue;
            }
            waiting.held_by(&other.holder.describe())?;
            seen = Some(other);
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Tries once. If the lock is held, gives its holder.
    async fn try_lock(&self, mine: &Holder, replaces: Option<&Holder>) -> anyhow::Result<Option<Holder>> {
        let nobody = Holder { owner: "nobody".to_owned(), ..Holder::default() };
        let replaces = replaces.unwrap_or(&nobody);
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
            .item("renewal", text(&mine.renewal))
            .condition_expression(FREE)
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_names("#renewal", "renewal")
            .expression_attribute_values(":owner", text(&replaces.owner))
            .expression_attribute_values(":renewal", text(&replaces.renewal))
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

    /// Whether anyone holds the lock, or has not released it.
    pub(crate) async fn is_locked(&self) -> anyhow::Result<bool> {
        Ok(!self.holder().await?.owner.is_empty())
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
                .update_expression("SET #renewal = :renewal")
                .condition_expression("#owner = :owner")
                .expression_attribute_names("#renewal", "renewal")
                .expression_attribute_names("#owner", "owner")
                .expression_attribute_values(":renewal", text(renewal()))
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
            renewal: text("renewal"),
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

fn renewal() -> String {
    format!("{:016x}", fastrand::u64(..))
}

/// Name of this machine and id of its boot: after a restart the pids are other processes.
fn host() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{name}/{}", boot.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(owner: &str, renewal: &str) -> Holder {
        Holder { owner: owner.to_owned(), renewal: renewal.to_owned(), ..Holder::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_expires_when_it_has_not_been_renewed_for_a_time() {
        let seen = Seen::now(holder("a", "1"));
        tokio::time::advance(HELD_FOR - Duration::from_secs(1)).await;
        let seen = seen.again(holder("a", "1"));
        assert!(!seen.has_expired());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(seen.has_expired());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_that_is_renewed_or_changes_hands_does_not_expire() {
        for next in [holder("a", "2"), holder("b", "1")] {
            let seen = Seen::now(holder("a", "1"));
            tokio::time::advance(HELD_FOR).await;
            assert!(!seen.again(next).has_expired());
        }
    }
}
