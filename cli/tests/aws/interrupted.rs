//! The interruption matrix: a deployment that is killed after each of its calls, and one in which each call fails once, comes to the
//! same end when it is run again: nothing doubled, nothing left behind.
//!
//! Every call of a deployment is tried. That of three services makes every kind of call, in three waves: a service, the one that calls it,
//! and the gateway. `NATSCTL_MATRIX=23` tries a deployment of 23, which takes many minutes, and prints how many points converged.

#![allow(clippy::print_stdout, reason = "how many points converged is a figure that people ask for")]

use std::collections::BTreeSet;
use std::process::Child;
use std::time::{Duration, Instant};

use super::fleet::{Fleet, Ran};
use super::world::World;
use crate::emulator::{Call, Emulator, Fault, Rule};

const PATIENCE: Duration = Duration::from_secs(30);
/// Fewer attempts than a test would want to wait for.
const IMPATIENT: [(&str, &str); 1] = [("AWS_MAX_ATTEMPTS", "3")];

/// What happens to one call of a deployment.
#[derive(Clone, Copy, Debug)]
enum Accident {
    /// natsctl is killed when the call has taken effect and has not been answered.
    Killed,
    Throttled,
    Failed,
    /// It takes effect, and is never answered.
    Lost,
}

/// What the deployment does that is struck.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    /// Everything is new.
    First,
    /// Every service runs, and gets another image.
    Update,
}

struct Matrix {
    fleet: Fleet,
    emulator: Emulator,
    change: Change,
    /// Where an undisturbed deployment comes to.
    end: World,
    /// The calls of an undisturbed deployment.
    calls: usize,
}

impl Matrix {
    fn new(change: Change) -> Self {
        let count = std::env::var("NATSCTL_MATRIX").ok().map_or(3, |count| count.parse().unwrap());
        let fleet = Fleet::of(count);
        let emulator = fleet.emulator();
        begin(&fleet, &emulator, change);
        fleet.deploy(&emulator, &[]).succeeded();
        let calls = emulator.calls().len();
        Self { end: World::of(&emulator), calls, fleet, emulator, change }
    }

    fn start(&self) -> Child {
        let mut command = self.fleet.command(&self.emulator, &["deploy", "--all", "--proof", "ecs"]);
        command.envs(IMPATIENT).spawn().unwrap()
    }

    /// Each call of a deployment in turn; returns those after which it did not come to the same end.
    fn each(&self, accident: Accident) -> Vec<String> {
        let mut astray = Vec::new();
        let mut struck = BTreeSet::new();
        for nth in 1..=self.calls {
            let _ = std::fs::remove_dir_all(self.fleet.cache());
            self.emulator.clean();
            begin(&self.fleet, &self.emulator, self.change);
            let call = match accident {
                Accident::Killed => self.kill_after(nth),
                Accident::Throttled => self.fail(nth, Fault::Throttle),
                Accident::Failed => self.fail(nth, Fault::ServerError),
                Accident::Lost => self.fail(nth, Fault::LostAnswer),
            };
            self.emulator.heal();
            let again = self.fleet.deploy(&self.emulator, &[]);
            let name = call.as_ref().map(Call::name).unwrap_or_default();
            struck.insert(name.clone());
            if again.code != Some(0) {
                astray.push(format!("{accident:?} at call {nth} ({name}): {}", again.stderr));
                continue;
            }
            let world = World::of(&self.emulator);
            if world != self.end {
                astray.push(format!("{accident:?} at call {nth} ({name}): {world:#?}"));
            }
        }
        let converged = self.calls - astray.len();
        println!("{:?}, {accident:?}: {} points tried, {converged} converged, at {struck:?}", self.change, self.calls);
        astray
    }

    fn kill_after(&self, nth: usize) -> Option<Call> {
        let gate = self.emulator.hold(nth);
        let mut natsctl = self.start();
        let deadline = Instant::now() + PATIENCE;
        // The number of polls differs from run to run: it may have ended before.
        let call = loop {
            if let Some(call) = gate.reached(Duration::from_millis(50)) {
                break Some(call);
            }
            if natsctl.try_wait().unwrap().is_some() {
                break None;
            }
            assert!(Instant::now() < deadline, "call {nth} was never made");
        };
        natsctl.kill().unwrap();
        natsctl.wait().unwrap();
        gate.release();
        call
    }

    fn fail(&self, nth: usize, fault: Fault) -> Option<Call> {
        self.emulator.inject(Rule::nth(nth, fault));
        // It may succeed or fail: the next one must succeed.
        Ran::of(self.start().wait_with_output().unwrap());
        self.emulator.calls().get(nth - 1).cloned()
    }
}

/// Up to the deployment that is struck.
fn begin(fleet: &Fleet, emulator: &Emulator, change: Change) {
    let to = |version| fleet.services.iter().for_each(|name| fleet.version(name, version));
    if change == Change::Update {
        to(1);
        fleet.deploy(emulator, &[]).succeeded();
        to(2);
    }
    emulator.reset_calls();
}

#[track_caller]
fn check(change: Change, accident: Accident) {
    let astray = Matrix::new(change).each(accident);
    assert!(astray.is_empty(), "{}", astray.join("\n\n"));
}

#[test]
fn killed_after_any_call_the_next_run_finishes_it() {
    check(Change::First, Accident::Killed);
}

#[test]
fn killed_after_any_call_of_an_update_the_next_run_finishes_it() {
    check(Change::Update, Accident::Killed);
}

#[test]
fn throttled_at_any_call_it_converges() {
    check(Change::First, Accident::Throttled);
}

#[test]
fn with_a_failure_of_aws_at_any_call_it_converges() {
    check(Change::First, Accident::Failed);
}

#[test]
fn with_any_answer_lost_it_converges() {
    check(Change::First, Accident::Lost);
}

#[test]
fn with_any_answer_to_an_update_lost_it_converges() {
    check(Change::Update, Accident::Lost);
}
