//! AWS behind an HTTP proxy: everything goes through it, besides what NO_PROXY names.

use std::process::Command;

use super::fleet::{Fleet, Ran};
use crate::emulator::Emulator;

/// natsctl where AWS has an address that only the proxy knows.
fn behind_proxy(fleet: &Fleet, emulator: &Emulator, variable: &str, no_proxy: &str) -> Ran {
    let mut command: Command = fleet.command(emulator, &["history"]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.env("AWS_ENDPOINT_URL", "http://aws.invalid").env("AWS_MAX_ATTEMPTS", "1");
    command.env(variable, emulator.endpoint()).env("NO_PROXY", no_proxy);
    Ran::of(command.output().unwrap())
}

#[test]
fn calls_of_aws_go_through_the_proxy_except_where_no_proxy_says_otherwise() {
    let fleet = Fleet::of(3);
    let emulator = fleet.emulator();
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        emulator.reset_calls();
        behind_proxy(&fleet, &emulator, variable, "other.invalid").succeeded();
        assert!(emulator.counts().contains_key("ssm:GetParameter"), "{variable}: {:#?}", emulator.counts());
    }
    for no_proxy in ["aws.invalid", ".invalid", "*"] {
        emulator.reset_calls();
        behind_proxy(&fleet, &emulator, "HTTP_PROXY", no_proxy).failed(&["failed to find out who calls"]);
        assert!(emulator.calls().is_empty(), "{no_proxy}: {:#?}", emulator.counts());
    }
}
