//! Ports that stay the same from one start to the next, and the process that listens on a port in use.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::dir::lock_briefly;
use super::state_file;

/// Free ports are picked from this range. It is below the ephemeral ports, which outgoing connections may hold when a port has to be opened
/// again after a restart.
const RANGE: Range<u16> = 20_000..32_000;

/// How many ports are tried.
const MAX_ATTEMPTS: usize = 1_000;

/// Port numbers by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports(BTreeMap<String, u16>);

impl Ports {
    /// A port for every name. 0 asks for any free port: the one in the file, or else a new one, which is added to the file. Other numbers are
    /// used as they are, free or not. Names in the file that are not asked for stay there.
    pub fn ensure(file: &Path, wanted: &BTreeMap<String, u16>) -> io::Result<Self> {
        Self::locked(file, |stored| {
            let mut ports = Self::default();
            for (name, port) in wanted {
                let port = match (*port, stored.0.get(name)) {
                    (0, Some(port)) => *port,
                    (0, None) => stored.unused(wanted.values())?,
                    (fixed, _) => fixed,
                };
                if wanted[name] == 0 {
                    stored.0.insert(name.clone(), port);
                }
                ports.0.insert(name.clone(), port);
            }
            Ok(ports)
        })
    }

    /// Another free port in place of the stored one, which another process has taken.
    pub fn renew(file: &Path, name: &str) -> io::Result<u16> {
        Self::locked(file, |stored| {
            let port = stored.unused([].into_iter())?;
            stored.0.insert(name.to_owned(), port);
            Ok(port)
        })
    }

    /// The port of this name; 0 if there is none.
    pub fn port(&self, name: &str) -> u16 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Two processes may ask for ports at the same time.
    fn locked<T>(file: &Path, work: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        let _lock = lock_briefly(&with_suffix(file, ".lock"))?;
        let mut stored = state_file::read::<Self>(file)?.unwrap_or_default();
        let before = stored.clone();
        let result = work(&mut stored)?;
        if stored != before {
            state_file::write(file, &stored)?;
        }
        Ok(result)
    }

    fn unused<'a>(&'a self, wanted: impl Iterator<Item = &'a u16>) -> io::Result<u16> {
        let taken: BTreeSet<u16> = wanted.chain(self.0.values()).copied().collect();
        for _ in 0..MAX_ATTEMPTS {
            let port = fastrand::u16(RANGE);
            if !taken.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(port);
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port found"))
    }
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// The process that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// The name of its program.
    pub command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (pid {})", self.command, self.pid)
    }
}

/// The process that listens on this port, as far as this user may see it.
pub fn holder(port: u16) -> Option<Holder> {
    if Path::new("/proc/net/tcp").exists() { from_proc(port) } else { from_lsof(port) }
}

fn from_proc(port: u16) -> Option<Holder> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().filter_map(|table| fs::read_to_string(table).ok());
    let sockets: Vec<_> =
        tables.flat_map(|table| listening(&table, port)).map(|inode| format!("socket:[{inode}]")).collect();
    let processes =
        fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            return false;
        };
        let targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        targets.into_iter().any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
    };
    let pid = processes.filter(|_| !sockets.is_empty()).find(holds)?;
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(Holder { pid, command: command.trim().to_owned() })
}

/// Inodes of the sockets that listen on this port, from the text of `/proc/net/tcp`.
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let here = rows.filter(|row| row.len() > 9 && row[1].ends_with(&suffix) && row[3] == LISTEN);
    here.map(|row| row[9].to_owned()).collect()
}

fn from_lsof(port: u16) -> Option<Holder> {
    let output = Command::new("lsof").args(["-nP", &format!("-iTCP:{port}"), "-sTCP:LISTEN", "-Fpc"]).output().ok()?;
    let output = String::from_utf8_lossy(&output.stdout);
    let field = |name: char| output.lines().find_map(|line| line.strip_prefix(name));
    Some(Holder { pid: field('p')?.parse().ok()?, command: field('c')?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(names: &[(&str, u16)]) -> BTreeMap<String, u16> {
        names.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect()
    }

    #[test]
    fn a_free_port_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ports.json");
        let first = Ports::ensure(&file, &wanted(&[("a", 0), ("b", 0)])).unwrap();
        assert_ne!(first.port("a"), first.port("b"));
        let second = Ports::ensure(&file, &wanted(&[("a", 0), ("c", 0)])).unwrap();
        assert_eq!(first.port("a"), second.port("a"));
        let third = Ports::ensure(&file, &wanted(&[("b", 0)])).unwrap();
        assert_eq!(first.port("b"), third.port("b"));
    }

    #[test]
    fn a_fixed_port_is_taken_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ports.json");
        assert_eq!(Ports::ensure(&file, &wanted(&[("a", 4222)])).unwrap().port("a"), 4222);
        assert_ne!(Ports::ensure(&file, &wanted(&[("a", 0)])).unwrap().port("a"), 4222);
    }

    #[test]
    fn a_renewed_port_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ports.json");
        let old = Ports::ensure(&file, &wanted(&[("a", 0)])).unwrap().port("a");
        let new = Ports::renew(&file, "a").unwrap();
        assert_ne!(old, new);
        assert_eq!(Ports::ensure(&file, &wanted(&[("a", 0)])).unwrap().port("a"), new);
    }

    #[test]
    fn ports_stay_the_same_when_their_file_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ports.json");
        let before = Ports::ensure(&file, &wanted(&[("a", 0)])).unwrap();
        fs::write(&file, "").unwrap();
        assert_eq!(Ports::ensure(&file, &wanted(&[("a", 0)])).unwrap(), before);
    }

    #[test]
    fn the_holder_of_a_port_is_found() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(holder(port).map(|holder| holder.pid), Some(std::process::id()));
        drop(listener);
        assert_eq!(holder(port), None);
    }

    #[test]
    fn the_output_of_lsof_is_read_where_it_is_installed() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        if Command::new("lsof").arg("-v").output().is_ok() {
            let holder = from_lsof(listener.local_addr().unwrap().port());
            assert_eq!(holder.map(|holder| holder.pid), Some(std::process::id()));
        }
    }
}
