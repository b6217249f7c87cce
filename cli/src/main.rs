//! natsctl.

use std::process::ExitCode;

fn main() -> ExitCode {
    natsctl::run(std::env::args_os())
}
