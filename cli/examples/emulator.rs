//! AWS on this machine for the aws CLI, Terraform and benchmarks: `cargo run --example emulator [-- --foundation [MANIFESTS]]`.
//!
//! Prints a line for each environment variable, in a form that a shell can evaluate, then `# ready`, and runs until its
//! standard input ends. With `--foundation` it also makes what Terraform would have made for these manifests, or those of this repository.
//! Lines on standard input are commands: `clean` goes back to the beginning, `reset` forgets the calls, `calls` prints how
//! often each action was called, `behave <image> <JSON>` says what containers do. Each is answered by one line.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

#[path = "../tests/emulator/mod.rs"]
mod emulator;

use emulator::{Emulator, Foundation};

fn main() -> io::Result<()> {
    let emulator = Emulator::start();
    let mut arguments = std::env::args().skip(1);
    if arguments.next().is_some_and(|argument| argument == "--foundation") {
        let here = || concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests").to_owned();
        let manifests = Path::new(&arguments.next().unwrap_or_else(here)).join("services");
        emulator.foundation(&Foundation::of_manifests(&manifests));
    }
    let mut out = io::stdout().lock();
    for (name, value) in emulator.env() {
        writeln!(out, "export {name}={value}")?;
    }
    writeln!(out, "# ready")?;
    out.flush()?;
    for line in io::stdin().lines() {
        writeln!(out, "{}", obey(&emulator, &line?))?;
        out.flush()?;
    }
    Ok(())
}

fn obey(emulator: &Emulator, line: &str) -> Value {
    let words: Vec<_> = line.splitn(3, ' ').collect();
    match words[..] {
        ["clean"] => emulator.clean(),
        ["reset"] => emulator.reset_calls(),
        ["calls"] => return calls(emulator),
        ["behave", image, behaviour] => match serde_json::from_str(behaviour) {
            Ok(behaviour) => emulator.behave(image, behaviour),
            Err(problem) => return json!({ "problem": problem.to_string() }),
        },
        _ => return json!({ "problem": format!("`{line}` is no command") }),
    }
    json!("done")
}

fn calls(emulator: &Emulator) -> Value {
    let counts: BTreeMap<String, usize> = emulator.counts();
    let writes = emulator.calls().iter().filter(|call| call.is_write).count();
    let pushed: usize = emulator.transfers().iter().map(|transfer| transfer.sent).sum();
    json!({ "calls": counts.values().sum::<usize>(), "writes": writes, "bytes_pushed": pushed, "by_action": counts })
}
