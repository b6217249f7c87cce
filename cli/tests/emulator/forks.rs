//! One process that has imported moto, of which each server of moto is a fork: `python/moto_forks.py`. All tests of a run share it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::{CommandExt as _, parent_id};
use std::path::Path;
use std::process::Stdio;

use super::children::python;

/// A connection to a new server, which has this folder for its files.
pub(super) fn connect(folder: &Path) -> UnixStream {
    let (name, owner) = run();
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let connected = UnixStream::connect_addr(&address).or_else(|_| {
        start(&name, owner, folder);
        UnixStream::connect_addr(&address)
    });
    let mut stream =
        connected.unwrap_or_else(|error| panic!("{error}: {}", super::children::complaint("moto", folder)));
    writeln!(stream, "{}", folder.display()).unwrap();
    stream
}

/// Name of the run that this process belongs to, and the process that ends with it: nextest, or this one.
fn run() -> (String, u32) {
    match std::env::var("NEXTEST_RUN_ID") {
        Ok(run) => (format!("natsctl-moto-{run}"), parent_id()),
        Err(_) => (format!("natsctl-moto-{}", std::process::id()), std::process::id()),
    }
}

/// Returns when it listens, or when another test was faster.
#[expect(clippy::zombie_processes, reason = "it outlives this process, and ends with its owner")]
fn start(name: &str, owner: u32, folder: &Path) {
    let log = super::children::log("moto", folder);
    let mut command = python("moto_forks");
    // Of no test's process group: it is not of one test alone.
    command.arg(name).arg(owner.to_string()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).process_group(0);
    let mut process = command.spawn().unwrap();
    let _ = BufReader::new(process.stdout.take().unwrap()).read_line(&mut String::new());
}
