//! The program of a service as a process of its own, for tests that kill it.

use std::process::{Child, Command, ExitStatus, Stdio};

use super::NatsServer;

/// A task that is a process, killed when it is dropped.
pub struct Program(Child);

impl Program {
    /// Starts `path`, which is `env!("CARGO_BIN_EXE_<service>")` in a test of the service, with two workers.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(path: &str, service: &str, server: &NatsServer) -> Self {
        let child = Command::new(path)
            .env("NATS_URLS", server.connection().urls.join(","))
            .env("SERVICE_NAME", service)
            .env("HEALTH_ADDR", "127.0.0.1:0")
            .env("WORKERS", "2")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap_or_else(|error| panic!("`{path}` does not start: {error}")))
    }

    /// Asks it to stop, and returns how to wait for that.
    ///
    /// # Panics
    /// If it has ended already.
    pub fn stop(mut self) -> impl FnOnce() -> ExitStatus {
        let sent = Command::new("kill").arg(self.0.id().to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "the task takes the signal");
        move || self.0.wait().expect("the task ends")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How often a test kills tasks: what the environment variable `KILLS` says, or else `default`.
///
/// # Panics
/// If the variable is no number.
pub fn kills(default: usize) -> usize {
    std::env::var("KILLS").map_or(default, |text| text.parse().expect("KILLS is a number"))
}
