//! Both environments, applied to emulators of AWS with all services: a second plan is empty, natsctl reads the handover, a new
//! service is one more manifest, and nothing remains after `destroy`. It takes some minutes; `docs/testing-aws.md` says what
//! emulators cannot test.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "skipped tests and durations are printed")]

mod inventory;
mod manifests;
mod schema;
mod tree;

use std::thread;

use tree::{Environment, Tree};

use crate::emulator::Emulator;

#[test]
fn both_environments_are_applied_stay_unchanged_take_a_new_service_and_are_destroyed() {
    let Some(tree) = Tree::new() else { return };
    let emulator = Emulator::start();
    // At the same time in one account: their names do not clash.
    thread::scope(|scope| {
        for name in ["development", "production"] {
            let environment = tree.environment(name, &emulator);
            let emulator = &emulator;
            scope.spawn(move || live(&environment, emulator));
        }
    });
    inventory::nothing_is_left(&emulator);
}

/// The whole life of an environment.
fn live(environment: &Environment<'_>, emulator: &Emulator) {
    let outputs = environment.apply();
    environment.second_plan_is_empty();
    inventory::everything_is_there(environment, emulator, &outputs);
    if environment.name == "development" {
        environment.a_new_manifest_is_a_new_service();
        environment.destroy();
    } else {
        environment.destroy_is_refused();
        environment.remove_protection(emulator);
        environment.destroy();
    }
}
