//! Both environments, applied to emulators of AWS with all services: a second plan is empty, natsctl reads the handover, a new
//! service is one more manifest, and nothing is left after `destroy`. It takes some minutes; `docs/testing-aws.md` says what
//! emulators cannot show.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what is skipped and how long it takes is told")]

mod look;
mod manifests;
mod schema;
mod tree;

use std::thread;

use crate::emulator::Emulator;

use tree::{Frame, Tree};

#[test]
fn both_environments_come_up_stay_as_they_are_grow_by_a_manifest_and_go() {
    let Some(tree) = Tree::new() else { return };
    let emulator = Emulator::start();
    // Side by side in one account: nothing that the one makes is in the other's way.
    thread::scope(|scope| {
        for environment in ["development", "production"] {
            let frame = tree.frame(environment, &emulator);
            let emulator = &emulator;
            scope.spawn(move || live(&frame, emulator));
        }
    });
    look::nothing_is_left(&emulator);
}

/// The whole life of an environment.
fn live(frame: &Frame<'_>, emulator: &Emulator) {
    let made = frame.apply();
    frame.second_plan_is_empty();
    look::everything_is_there(frame, emulator, &made);
    if frame.environment == "development" {
        frame.a_new_manifest_is_a_new_service();
        frame.destroy();
    } else {
        frame.destroy_is_refused();
        frame.give_up_protection(emulator);
        frame.destroy();
    }
}
