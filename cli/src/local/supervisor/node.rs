//! The controller of one NATS server: keeps it running, and restarts it when its specification changes. Like the controller of a service it
//! has no processes and no clock.

use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::service::Effect;
use super::task::Moment;
use crate::local::cluster_files::LAME_DUCK;
use crate::local::protocol::{Exit, FailedCheck, NodeSpec, NodeStatus};

/// How long a server may take to close its streams before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// How long it may take to leave by lame duck: [`LAME_DUCK`], and what [`STOP_TIMEOUT`] is for.
pub(in crate::local) const LEAVE_TIMEOUT: Duration = LAME_DUCK.saturating_add(Duration::from_secs(20));

#[derive(Clone)]
pub(super) struct NodeController {
    spec: NodeSpec,
    deleting: bool,
    shutting_down: bool,
    process: Option<NodeProcess>,
    retry_at: Option<Instant>,
    backoff: Backoff,
    restarts: u32,
    last_exit: Option<Exit>,
    /// The id of the latest process, which names its log, also after the process has exited.
    last_task: Option<String>,
}

#[derive(Clone)]
struct NodeProcess {
    task: String,
    spec: NodeSpec,
    pid: Option<u32>,
    started: Moment,
    /// It is to be replaced by another process of the same specification.
    restarting: bool,
    /// Its clients and leaders move to others before that.
    leaving: bool,
    stopping: Option<Stopping>,
    has_been_healthy: bool,
    failing: Option<FailedCheck>,
}

#[derive(Clone)]
struct Stopping {
    how: How,
    kill_at: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// It waits until its clients have left.
    LameDuck,
    /// Nobody is left, or nobody is waited for.
    AtOnce,
    Killed,
}

impl NodeController {
    pub(super) fn new(spec: NodeSpec) -> Self {
        Self {
            spec,
            deleting: false,
            shutting_down: false,
            process: None,
            retry_at: None,
            backoff: Backoff::default(),
            restarts: 0,
            last_exit: None,
            last_task: None,
        }
    }

    pub(super) fn put(&mut self, spec: NodeSpec) {
        self.spec = spec;
        self.deleting = false;
        self.retry_at = None;
    }

    /// Like [`Self::put`], and a process that runs is replaced in any case.
    pub(super) fn restart(&mut self, spec: NodeSpec) {
        self.put(spec);
        if let Some(process) = &mut self.process {
            process.restarting = true;
        }
    }

    /// Like [`Self::restart`], by lame duck.
    pub(super) fn roll(&mut self, spec: NodeSpec) {
        self.put(spec);
        if let Some(process) = &mut self.process {
            process.leaving = true;
        }
    }

    /// It has no clients left.
    pub(super) fn left(&mut self, task: &str) {
        if let Some(process) = self.process.as_mut().filter(|process| process.task == task && process.leaving) {
            process.restarting = true;
        }
    }

    pub(super) fn delete(&mut self) {
        self.deleting = true;
    }

    pub(super) fn shut_down(&mut self) {
        self.shutting_down = true;
    }

    pub(super) fn is_deleting(&self) -> bool {
        self.deleting
    }

    pub(super) fn has_process(&self) -> bool {
        self.process.is_some()
    }

    pub(super) fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// What its process was started with.
    pub(super) fn running_spec(&self) -> Option<&NodeSpec> {
        self.process.as_ref().map(|process| &process.spec)
    }

    pub(super) fn last_task(&self) -> Option<&str> {
        self.last_task.as_deref()
    }

    pub(super) fn started(&mut self, task: &str, pid: u32) {
        if let Some(process) = self.process.as_mut().filter(|process| process.task == task) {
            process.pid = Some(pid);
        }
    }

    /// What its health check says.
    pub(super) fn checked(&mut self, task: &str, result: Result<(), String>, now: Moment) {
        let Some(process) = self.process.as_mut().filter(|process| process.task == task) else {
            return;
        };
        let since_ms = process.failing.as_ref().map_or(now.unix_ms, |failing| failing.since_ms);
        process.has_been_healthy |= result.is_ok();
        process.failing = result.err().map(|reason| FailedCheck { reason, since_ms });
    }

    pub(super) fn exited(&mut self, task: &str, exit: Exit, now: Moment) {
        let Some(process) = self.process.take_if(|process| process.task == task) else {
            return;
        };
        if process.stopping.is_none() {
            self.restarts += 1;
            self.retry_at = Some(now.at + self.backoff.next(now.at - process.started.at));
        }
        self.last_exit = Some(exit);
    }

    pub(super) fn reconcile(&mut self, now: Moment) -> Option<Effect> {
        let should_run = !self.deleting && !self.shutting_down;
        let Some(process) = &mut self.process else {
            if !should_run || self.retry_at.is_some_and(|retry_at| now.at < retry_at) {
                return None;
            }
            let task = format!("{:08x}", fastrand::u32(..));
            let spec = self.spec.clone();
            self.process = Some(NodeProcess {
                task: task.clone(),
                spec,
                pid: None,
                started: now,
                restarting: false,
                leaving: false,
                stopping: None,
                has_been_healthy: false,
                failing: None,
            });
            self.last_task = Some(task.clone());
            return Some(Effect::Start { task, revision: 0 });
        };
        let task = process.task.clone();
        match &mut process.stopping {
            None if should_run && !process.restarting && process.leaving => {
                process.stopping = Some(Stopping { how: How::LameDuck, kill_at: now.at + LEAVE_TIMEOUT });
                Some(Effect::LameDuck { task })
            }
            None if should_run && !process.restarting && process.spec.differs_in_accounts_only(&self.spec) => {
                process.spec = self.spec.clone();
                Some(Effect::Reload { task })
            }
            None if !should_run || process.restarting || process.spec != self.spec => {
                process.stopping = Some(Stopping { how: How::AtOnce, kill_at: now.at + STOP_TIMEOUT });
                Some(Effect::Terminate { task })
            }
            Some(stopping) if stopping.how == How::LameDuck && (!should_run || process.restarting) => {
                *stopping = Stopping { how: How::AtOnce, kill_at: now.at + STOP_TIMEOUT };
                Some(Effect::Interrupt { task })
            }
            Some(stopping) if stopping.how != How::Killed && now.at >= stopping.kill_at => {
                stopping.how = How::Killed;
                Some(Effect::Kill { task })
            }
            _ => None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.process {
            None => self.retry_at.filter(|_| !self.deleting && !self.shutting_down),
            Some(process) => process
                .stopping
                .as_ref()
                .filter(|stopping| stopping.how != How::Killed)
                .map(|stopping| stopping.kill_at),
        }
    }

    pub(super) fn status(&self, log_tail: Vec<String>) -> NodeStatus {
        NodeStatus {
            spec: self.spec.clone(),
            running: self.process.as_ref().is_some_and(|process| process.pid.is_some()),
            pid: self.process.as_ref().and_then(|process| process.pid),
            started_at_ms: self.process.as_ref().map(|process| process.started.unix_ms),
            restarts: self.restarts,
            last_exit: self.last_exit.clone(),
            log_tail,
            has_been_healthy: self.process.as_ref().is_some_and(|process| process.has_been_healthy),
            failing: self.process.as_ref().and_then(|process| process.failing.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::desired;

    fn spec(config: &str) -> NodeSpec {
        NodeSpec {
            node: desired::Node { version: "2.15.1".to_owned(), config: config.to_owned(), accounts: String::new() },
            program: "/bin/nats-server".into(),
            args: Vec::new(),
            config_path: "/etc/nats.conf".into(),
            monitor: None,
        }
    }

    fn later(moment: Moment, millis: u64) -> Moment {
        Moment { at: moment.at + Duration::from_millis(millis), unix_ms: moment.unix_ms + millis }
    }

    fn started(node: &mut NodeController, now: Moment) -> String {
        match node.reconcile(now) {
            Some(Effect::Start { task, .. }) => {
                node.started(&task, 1);
                task
            }
            other => panic!("expected a start, got {other:?}"),
        }
    }

    #[test]
    fn an_equal_specification_changes_nothing() {
        let now = Moment::now();
        let mut node = NodeController::new(spec("a"));
        started(&mut node, now);
        node.put(spec("a"));
        assert_eq!(node.reconcile(now), None);
    }

    #[test]
    fn another_specification_restarts_it_after_it_has_stopped() {
        let now = Moment::now();
        let mut node = NodeController::new(spec("a"));
        let task = started(&mut node, now);
        node.put(spec("b"));
        assert_eq!(node.reconcile(now), Some(Effect::Terminate { task: task.clone() }));
        assert_eq!(node.reconcile(later(now, 14_999)), None);
        assert_eq!(node.reconcile(later(now, 15_000)), Some(Effect::Kill { task: task.clone() }));
        assert_eq!(node.reconcile(later(now, 16_000)), None);
        node.exited(&task, Exit::Signal(9), later(now, 16_000));
        started(&mut node, later(now, 16_000));
        assert_eq!(node.status(Vec::new()).restarts, 0);
    }

    #[test]
    fn a_restart_replaces_the_process_of_an_equal_specification_once() {
        let now = Moment::now();
        let mut node = NodeController::new(spec("a"));
        let task = started(&mut node, now);
        node.restart(spec("a"));
        assert_eq!(node.reconcile(now), Some(Effect::Terminate { task: task.clone() }));
        node.exited(&task, Exit::Signal(15), now);
        let next = started(&mut node, now);
        assert_ne!(next, task);
        assert_eq!(node.reconcile(now), None);
        assert_eq!(node.status(Vec::new()).restarts, 0);
    }

    #[test]
    fn a_node_that_is_rolled_ends_when_its_clients_have_left() {
        let now = Moment::now();
        let mut node = NodeController::new(spec("a"));
        let task = started(&mut node, now);
        node.roll(spec("b"));
        assert_eq!(node.reconcile(now), Some(Effect::LameDuck { task: task.clone() }));
        // Asked for again, as by a roll that is resumed.
        node.roll(spec("b"));
        assert_eq!(node.reconcile(later(now, 1)), None);
        node.left(&task);
        assert_eq!(node.reconcile(later(now, 2)), Some(Effect::Interrupt { task: task.clone() }));
        assert_eq!(node.reconcile(later(now, 3)), None);
        node.exited(&task, Exit::Code(0), later(now, 4));
        started(&mut node, later(now, 4));
        assert_eq!((node.status(Vec::new()).restarts, node.reconcile(later(now, 5))), (0, None));
    }

    #[test]
    fn a_node_that_does_not_leave_is_killed_and_one_that_is_deleted_meanwhile_does_not_wait_for_its_clients() {
        let now = Moment::now();
        let mut node = NodeController::new(spec("a"));
        let task = started(&mut node, now);
        node.roll(spec("a"));
        node.reconcile(now);
        let mut deleted = node.clone();
        assert_eq!(node.reconcile(later(now, 49_999)), None);
        assert_eq!(node.reconcile(later(now, 50_000)), Some(Effect::Kill { task: task.clone() }));
        deleted.delete();
        assert_eq!(deleted.reconcile(later(now, 1)), Some(Effect::Interrupt { task: task.clone() }));
        assert_eq!(deleted.reconcile(later(now, 15_001)), Some(Effect::Kill { task }));
    }

    #[test]
    fn a_restart_of_a_node_that_is_down_starts_it() {
        let now = Moment::now();
        let mut node = NodeController::new(spec("a"));
        let task = started(&mut node, now);
        node.exited(&task, Exit::Code(1), now);
        node.restart(spec("a"));
        started(&mut node, now);
        assert_eq!(node.reconcile(now), None);
    }

    #[test]
    fn a_health_check_that_fails_says_since_when() {
        let now = Moment::now();
        let mut node = NodeController::new(spec("a"));
        let task = started(&mut node, now);
        node.checked(&task, Err("starting".to_owned()), later(now, 1));
        node.checked(&task, Err("catching up".to_owned()), later(now, 2));
        node.checked("another", Ok(()), later(now, 3));
        let failing = node.status(Vec::new()).failing.unwrap();
        assert_eq!((&*failing.reason, failing.since_ms), ("catching up", now.unix_ms + 1));
        assert!(!node.status(Vec::new()).has_been_healthy);
        node.checked(&task, Ok(()), later(now, 4));
        assert_eq!(node.status(Vec::new()).failing, None);
        node.checked(&task, Err("does not answer".to_owned()), later(now, 5));
        assert!(node.status(Vec::new()).has_been_healthy);
    }

    #[test]
    fn other_accounts_are_read_without_a_restart() {
        let now = Moment::now();
        let mut node = NodeController::new(spec("a"));
        let task = started(&mut node, now);
        let mut other = spec("a");
        other.node.accounts = "other".to_owned();
        node.put(other.clone());
        assert_eq!(node.reconcile(now), Some(Effect::Reload { task }));
        assert_eq!(node.reconcile(now), None);
        assert_eq!(node.status(Vec::new()).spec, other);
    }

    #[test]
    fn a_node_that_exits_is_started_again_after_a_backoff() {
        let now = Moment::now();
        let mut node = NodeController::new(spec("a"));
        let task = started(&mut node, now);
        node.exited(&task, Exit::Code(1), now);
        assert_eq!(node.reconcile(now), None);
        assert_eq!(node.deadline(), Some(later(now, 200).at));
        started(&mut node, later(now, 200));
        assert_eq!(node.status(Vec::new()).restarts, 1);
    }

    #[test]
    fn putting_it_again_ends_the_backoff() {
        let now = Moment::now();
        let mut node = NodeController::new(spec("a"));
        let task = started(&mut node, now);
        node.exited(&task, Exit::Code(1), now);
        node.put(spec("a"));
        started(&mut node, now);
    }
}
