//! Carries out a roll: observes, asks the machine, and has the platform do what it says.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::machine::{Action, Machine};
use super::observation::Observation;
use super::obstacle::Obstacle;

/// The nodes of one platform. It decides nothing: every method does what it is told, and may be called again after an interruption.
pub(crate) trait Executor {
    /// How long the platform lets a server take to stop.
    fn timing(&self) -> StopTiming;

    /// Names of the servers that the environment has.
    fn nodes(&self) -> BTreeSet<String>;

    /// What the servers say now. What cannot be read is unknown in the answer, with its reason. `away` is a server that was taken:
    /// it is asked, and no connection is made through it.
    async fn observe(&mut self, away: Option<&str>) -> Observation;

    /// Takes a server out of the load balancer, if there is one, and returns when no new client reaches it.
    ///
    /// # Errors
    /// It may still be in.
    async fn drain(&mut self, node: &str) -> anyhow::Result<()>;

    /// Has a server leave by lame duck and start again, with what is rolled out. Returns as soon as that goes on by itself, even if this
    /// process ends; a server that does not run is started.
    ///
    /// # Errors
    /// It was not accepted; nothing was changed.
    async fn restart(&mut self, node: &str) -> anyhow::Result<()>;

    /// Puts a server into the load balancer again, if there is one.
    ///
    /// # Errors
    /// It may still be out.
    async fn admit(&mut self, node: &str) -> anyhow::Result<()>;
}

/// How long a platform lets a server take to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopTiming {
    /// `lame_duck_duration` of the configuration.
    pub(crate) lame_duck: Duration,
    /// After which the platform kills the server: `TimeoutStopSec`.
    pub(crate) stop: Duration,
    /// How long the command may take that stops it, where there is one.
    pub(crate) command: Option<Duration>,
}

/// What a server needs for stopping besides lame duck.
const STOPPING: Duration = Duration::from_secs(20);

impl StopTiming {
    /// Refuses to roll servers that would be killed while their clients move.
    pub(crate) fn obstacle(self) -> Option<Obstacle> {
        let Self { lame_duck, stop, command } = self;
        let is_long_enough = lame_duck + STOPPING <= stop && command.is_none_or(|command| stop <= command);
        (!is_long_enough).then(|| Obstacle::Timing {
            lame_duck: lame_duck.as_secs(),
            stop: stop.as_secs(),
            command: command.map(|command| command.as_secs()),
        })
    }
}

/// What happens on the way.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// A server is taken.
    Taken { node: &'a str, observation: &'a Observation },
    /// It is waited for: for the server that was taken, or before one is.
    Waiting { obstacles: &'a [Obstacle] },
    /// A server that was taken is back, and everything is well.
    Back { node: &'a str, after: Duration, observation: &'a Observation },
}

/// How a roll ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything is done, and well.
    Finished,
    /// It stopped for these reasons; the same roll can be resumed.
    Aborted {
        /// The server that was taken and is not back.
        node: Option<String>,
        obstacles: Vec<Obstacle>,
    },
}

/// Between two observations.
const POLL: Duration = Duration::from_millis(200);

/// Carries out a roll until it is finished or must stop.
///
/// # Errors
/// The platform could not do what it was told. What was done stays, and the same roll can be resumed.
pub(crate) async fn drive<E: Executor>(
    executor: &mut E,
    machine: &mut Machine,
    mut told: impl FnMut(Event<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<End> {
    let start = Instant::now();
    let mut since = start;
    let mut away: Option<String> = None;
    loop {
        let observation = executor.observe(away.as_deref()).await;
        let action = machine.next(&observation, start.elapsed());
        if let Some(node) = away.take_if(|node| machine.current() != Some(node.as_str())) {
            told(Event::Back { node: &node, after: since.elapsed(), observation: &observation })?;
            since = Instant::now();
        }
        match action {
            Action::Wait(obstacles) => {
                told(Event::Waiting { obstacles: &obstacles })?;
                sleep(POLL).await;
            }
            Action::Take(node) => {
                since = Instant::now();
                told(Event::Taken { node: &node, observation: &observation })?;
                executor.drain(&node).await?;
                executor.restart(&node).await?;
                away = Some(node);
            }
            Action::Admit(node) => executor.admit(&node).await?,
            Action::Abort(obstacles) => {
                return Ok(End::Aborted { node: machine.current().map(str::to_owned), obstacles });
            }
            Action::Finished => return Ok(End::Finished),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stop: u64, command: Option<u64>, expected: Option<&str>) {
        let timing = StopTiming {
            lame_duck: Duration::from_secs(30),
            stop: Duration::from_secs(stop),
            command: command.map(Duration::from_secs),
        };
        let text = timing.obstacle().map(|obstacle| obstacle.to_string());
        assert_eq!(text.as_deref(), expected);
    }

    #[test]
    fn a_server_must_have_time_for_its_clients_before_it_is_killed() {
        check(50, None, None);
        check(50, Some(50), None);
        check(49, None, Some("lame duck takes 30 s and 20 s more, and a server is killed after 49 s"));
        let cut = "lame duck takes 30 s and 20 s more, and a server is killed after 60 s, the command after 55 s";
        check(60, Some(55), Some(cut));
    }
}
