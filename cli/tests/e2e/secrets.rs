//! Secrets on one machine: files that the user writes, variables that tasks get.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::fleet::{Fleet, serving};

const VALUE: &str = "squeamish-ossifrage";

fn write(file: &Path, value: &str) {
    use std::io::Write as _;
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let mut options = fs::File::options();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .unwrap()
        .write_all(value.as_bytes())
        .unwrap();
}

/// The value of a variable in every task of a service.
async fn values(fleet: &Fleet, service: &str, variable: &str) -> Vec<Option<String>> {
    let pids: Vec<u32> = fleet.service(service).await.tasks.iter().filter_map(|task| task.pid).collect();
    let value = |pid: u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let environment = String::from_utf8(environment).unwrap();
        let value = environment.split('\0').find_map(|entry| entry.strip_prefix(variable)?.strip_prefix('='));
        value.map(str::to_owned)
    };
    pids.into_iter().map(value).collect()
}

/// All files under a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_a_file_of_the_user_and_a_variable_of_the_task() {
    let fleet = Fleet::new(1);
    fleet.append("quest-system", "secrets: { API_KEY: payment/api-key, TOKEN: token }\n");
    let (key, token) = (fleet.state().join("secrets/payment/api-key"), fleet.state().join("secrets/token"));

    for command in [vec!["plan"], vec!["deploy", "--all"]] {
        let run = fleet.run(&[command.as_slice(), &["--no-build"]].concat()).await.ends(1);
        run.says(&[
            "secret `payment/api-key` (variable `API_KEY` of `quest-system`): cannot read `",
            "state/test/secrets/payment/api-key`",
            "secret `token` (variable `TOKEN` of `quest-system`)",
            "hint: write the value into the file",
        ]);
    }
    let doctor = fleet.run(&["doctor"]).await.ends(1).out;
    assert!(doctor.contains("secret `token` (variable `TOKEN` of `quest-system`)"), "{doctor}");
    // Others need no secrets.
    fleet.plan(&["npc-behavior"]).await.ends(2);

    write(&key, &format!("{VALUE}\n"));
    write(&token, "1");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    fleet.plan(&[]).await.ends(1).says(&["can be read or changed by others: its mode is 644", "hint: `chmod 600 "]);
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    fleet.deploy(&["--all"]).await.ends(0);
    fleet.plan(&[]).await.ends(0);
    assert_eq!(values(&fleet, "quest-system", "API_KEY").await, [Some(VALUE.to_owned()), Some(VALUE.to_owned())]);
    assert_eq!(values(&fleet, "npc-behavior", "API_KEY").await, [None, None]);

    a_changed_value_comes_with_new_tasks(&fleet, &key).await;
    a_value_that_is_gone_is_named_and_old_tasks_go_on(&fleet, &key).await;
    the_value_is_nowhere_else(&fleet, &key);

    fleet.run(&["down", "--data"]).await.ends(0).says(&["the values of secrets are left in"]);
    let left: Vec<_> = fs::read_dir(fleet.state()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["secrets"]);
    assert!(token.is_file());
}

async fn a_changed_value_comes_with_new_tasks(fleet: &Fleet, key: &Path) {
    write(key, &format!("new-{VALUE}"));
    fleet.plan(&[]).await.ends(0);
    fleet.run(&["restart", "quest-system"]).await.ends(0);
    let new = Some(format!("new-{VALUE}"));
    assert_eq!(values(fleet, "quest-system", "API_KEY").await, [new.clone(), new]);
}

async fn a_value_that_is_gone_is_named_and_old_tasks_go_on(fleet: &Fleet, key: &Path) {
    fs::remove_file(key).unwrap();
    let run = fleet.run(&["restart", "quest-system"]).await.ends(1);
    run.says(&["could not be started: cannot read `", "secrets/payment/api-key`"]);
    assert_eq!(serving(&fleet.service("quest-system").await), 2);
    write(key, VALUE);
    fleet.run(&["restart", "quest-system"]).await.ends(0);
}

fn the_value_is_nowhere_else(fleet: &Fleet, key: &Path) {
    let mut found = Vec::new();
    files(&fleet.state(), &mut found);
    let artifacts = fleet.state().join("artifacts");
    for file in found.iter().filter(|file| *file != key && !file.starts_with(&artifacts)) {
        // The supervisor's socket has no content.
        let content = fs::read(file).unwrap_or_default();
        let has = content.windows(VALUE.len()).any(|part| part == VALUE.as_bytes());
        assert!(!has, "`{}` has the value of a secret", file.display());
    }
}
