//! The systemd unit of a NATS server: it stops in lame duck mode, and may do no more than a server needs.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// The variable in which a running server has the digest of the unit that it was started with.
pub const VARIABLE: &str = "NATSCTL_UNIT";

/// What a server may need after its lame duck mode, until it is killed.
pub(crate) const AFTER_LAME_DUCK: Duration = Duration::from_secs(30);

/// A unit, and what names its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The text of the file.
    pub text: String,
    /// SHA-256 of everything but itself, in hexadecimal, shortened.
    pub digest: String,
}

/// The unit of a server whose clients have `lame_duck` to leave it.
pub fn unit(lame_duck: Duration) -> Unit {
    let stop = (lame_duck + AFTER_LAME_DUCK).as_secs();
    let text = TEMPLATE.replace("{stop}", &stop.to_string());
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&text)[..8]);
    let environment = format!("Environment={VARIABLE}={digest}");
    Unit { text: text.replace("{environment}", &environment), digest }
}

// SIGUSR2 begins lame duck mode; systemd waits until the server has ended, or kills it after the time-out. `MemoryDenyWriteExecute`,
// `SystemCallFilter` and the empty sets of capabilities leave what a Go program needs; address families are those of its sockets,
// and netlink, by which it lists the addresses of its interfaces.
const TEMPLATE: &str = "\
# Written by natsctl; changes are overwritten.
[Unit]
Description=NATS server
Documentation=https://docs.nats.io
Wants=network-online.target
After=network-online.target
RequiresMountsFor=/var/lib/nats
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=exec
User=nats
Group=nats
{environment}
ExecStart=/opt/nats/current/nats-server --config /etc/nats/nats.conf
ExecReload=/bin/kill -s HUP $MAINPID
KillSignal=SIGUSR2
KillMode=mixed
TimeoutStopSec={stop}
Restart=on-failure
RestartSec=2
LimitNOFILE=262144
LimitCORE=0
TasksMax=4096
MemoryHigh=80%
MemoryMax=90%
OOMScoreAdjust=-500
UMask=0077

NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ReadWritePaths=/var/lib/nats/jetstream /var/log/nats
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
PrivateIPC=yes
DevicePolicy=closed
ProtectHostname=yes
ProtectClock=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectProc=invisible
ProcSubset=pid
RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_time_to_leave_before_it_is_killed() {
        let unit = unit(Duration::from_secs(120));
        assert!(unit.text.contains("\nKillSignal=SIGUSR2\nKillMode=mixed\nTimeoutStopSec=150\n"), "{}", unit.text);
        assert!(unit.text.contains(&format!("\nEnvironment=NATSCTL_UNIT={}\n", unit.digest)), "{}", unit.text);
    }

    #[test]
    fn another_unit_has_another_digest() {
        assert_ne!(unit(Duration::from_secs(30)).digest, unit(Duration::from_secs(31)).digest);
        assert_eq!(unit(Duration::from_secs(30)), unit(Duration::from_secs(30)));
    }
}
