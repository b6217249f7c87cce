//! A state directory in which files are damaged: each names itself and the way out, and the doctor still works.

use std::fs;
use std::path::{Path, PathBuf};

use super::fleet::Fleet;

/// What a file becomes.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Empty,
    Cut,
    Garbage,
    Folder,
}

use Damage::{Cut, Empty, Folder, Garbage};

const ALL: &[Damage] = &[Empty, Cut, Garbage, Folder];

/// A file, or a file and its backup, that is damaged until this is dropped.
struct Damaged(Vec<(PathBuf, Vec<u8>)>);

impl Damaged {
    fn new(files: &[PathBuf], damage: Damage) -> Self {
        let damaged = Self(files.iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect());
        for (file, content) in &damaged.0 {
            match damage {
                Empty => fs::write(file, "").unwrap(),
                Cut => fs::write(file, &content[..content.len() / 2]).unwrap(),
                Garbage => fs::write(file, b"\0\xff\xfe{nonsense\n").unwrap(),
                Folder => {
                    fs::remove_file(file).unwrap();
                    fs::create_dir(file).unwrap();
                }
            }
        }
        damaged
    }
}

impl Drop for Damaged {
    fn drop(&mut self) {
        for (file, content) in &self.0 {
            let _ = fs::remove_dir(file);
            fs::write(file, content).unwrap();
        }
    }
}

/// The file with its backup, if it has one.
fn with_backup(file: &Path) -> Vec<PathBuf> {
    let backup = PathBuf::from(format!("{}.backup", file.display()));
    [file.to_owned(), backup].into_iter().filter(|file| file.exists()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_files_name_themselves_and_the_doctor_still_works() {
    let fleet = Fleet::deployed(1).await;
    while_it_runs(&fleet).await;
    let supervisor = fleet.description().await.supervisor.unwrap().pid;
    super::fleet::signal(supervisor, rustix::process::Signal::KILL);
    super::fleet::eventually("no process is left", || async { fleet.processes().is_empty().then_some(()) }).await;
    while_nothing_runs(&fleet).await;
    fleet.deploy(&["--all"]).await.ends(0);
    fleet.is_healthy().await;
}

async fn while_it_runs(fleet: &Fleet) {
    let names: [(&str, &[Damage]); 10] = [
        ("ports.json", ALL),
        ("endpoints.json", ALL),
        ("identities/keys/operator.nk", ALL),
        ("identities/keys/account-STORE.nk", ALL),
        ("identities/users/sys.creds", ALL),
        ("pki/ca.crt", ALL),
        ("pki/routes/ca.key", ALL),
        ("history.jsonl", &[Garbage, Folder]),
        ("lock", &[Folder]),
        ("keys.lock", &[Folder]),
    ];
    for (name, damages) in names {
        for damage in damages {
            let _damaged = Damaged::new(&with_backup(&fleet.state().join(name)), *damage);
            let doctor = fleet.run(&["doctor"]).await.ends(1).out;
            assert!(doctor.contains(name) && doctor.contains("nats-server"), "{name} {damage:?}: {doctor}");
        }
    }
    // The way out is in the hint of every command that needs the file.
    let file = fleet.state().join("ports.json");
    let damaged = Damaged::new(&with_backup(&file), Garbage);
    fleet.plan(&[]).await.ends(1).says(&["ports.json`, which is damaged", "hint: delete it"]);
    drop(damaged);
    let damaged = Damaged::new(&with_backup(&fleet.state().join("identities/users/sys.creds")), Garbage);
    fleet.plan(&[]).await.ends(1).says(&["identities/users/sys.creds` is damaged", "hint: remove it and deploy again"]);
    drop(damaged);
    // One copy is enough, and how clients connect can be told again from the rest.
    let damaged = Damaged::new(&[file], Cut);
    fleet.plan(&[]).await.ends(0);
    drop(damaged);
    let damaged = Damaged::new(&with_backup(&fleet.state().join("endpoints.json")), Empty);
    fleet.plan(&[]).await.ends(1).says(&["endpoints.json`, which is damaged", "hint: delete it"]);
    fleet.deploy(&["--all"]).await.ends(0);
    fleet.is_healthy().await;
    drop(damaged);
}

async fn while_nothing_runs(fleet: &Fleet) {
    for damage in ALL {
        let _damaged = Damaged::new(&with_backup(&fleet.state().join("state.json")), *damage);
        for command in ["status", "down", "logs"] {
            fleet.run(&[command]).await.ends(1).says(&["state.json`", "hint: "]);
        }
        fleet.deploy(&["--all"]).await.ends(1).says(&["state.json`", "hint: "]);
        let doctor = fleet.run(&["doctor"]).await.ends(1).out;
        assert!(doctor.contains("state.json"), "{damage:?}: {doctor}");
    }
    for name in ["supervisor.lock", "supervisor.log"] {
        let _damaged = Damaged::new(&[fleet.state().join(name)], Folder);
        fleet.deploy(&["--all"]).await.ends(1).says(&[name, "if it is no file, remove it"]);
        let doctor = fleet.run(&["doctor"]).await.ends(1).out;
        assert!(doctor.contains(name), "{doctor}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_environment_whose_state_is_damaged_can_be_removed_with_its_data() {
    let fleet = Fleet::deployed(1).await;
    super::fleet::signal(fleet.description().await.supervisor.unwrap().pid, rustix::process::Signal::KILL);
    super::fleet::eventually("no process is left", || async { fleet.processes().is_empty().then_some(()) }).await;
    std::mem::forget(Damaged::new(&with_backup(&fleet.state().join("state.json")), Garbage));
    fleet.run(&["down", "--data"]).await.ends(0);
    assert!(!fleet.state().exists());
}

/// As root only: another user is needed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "what is skipped is reported")]
async fn a_fleet_of_another_user_is_an_error_and_not_nothing() {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let fleet = Fleet::new(1);
    fs::create_dir_all(fleet.state()).unwrap();
    if !rustix::process::geteuid().is_root() || chown(fleet.state(), Some(65_534), None).is_err() {
        eprintln!("skipped: a fleet of another user: only root can make one");
        return;
    }
    // The folders above are closed to others too, as natsctl makes them.
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    let other = |arguments: &[&str]| {
        let natsctl = fleet.command(arguments);
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", "65533", "--clear-groups"]).arg(natsctl.get_program()).args(natsctl.get_args());
        command.current_dir("/").envs(natsctl.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    };
    for folder in fleet.state().ancestors().take_while(|folder| *folder != Path::new("/")).skip(1) {
        if fs::metadata(folder).unwrap().permissions().mode() & 0o005 != 0o005 && folder.starts_with(fleet.path(".")) {
            open(folder);
        }
    }
    for command in ["status", "down", "logs", "history", "env"] {
        let run = super::run::Running::start(other(&[command])).ended().await;
        if run.err.contains("setpriv") || run.err.contains("manifests") {
            return;
        }
        run.ends(1).says(&[
            "state/test`, which belongs to user",
            "(65534), cannot be read",
            "hint: run natsctl as that user",
        ]);
    }
}
