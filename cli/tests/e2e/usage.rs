//! What is typed wrongly, or asked too early. Nothing runs here.

use std::fs;
use std::io::pipe;
use std::process::Stdio;

use serde_json::{Value, json};

use super::fleet::{Fleet, NATSCTL};
use crate::terminal::pty::{LARGE, SMALL};

#[tokio::test]
async fn wrong_usage_ends_with_64() {
    let fleet = Fleet::new(1);
    for arguments in [
        vec![],
        vec!["dploy"],
        vec!["deploy"],
        vec!["deploy", "--all", "quest-system"],
        vec!["deploy", "--everything"],
        vec!["restart"],
        vec!["scale", "quest-system"],
        vec!["scale", "quest-system", "many"],
        vec!["status", "--output", "xml"],
        vec!["completions", "cobol"],
        vec!["plan", "--observed", "a", "--save-observed", "b"],
        vec!["trace"],
        vec!["trace", "quest"],
        vec!["trace", "4bf"],
    ] {
        let run = fleet.run(&arguments).await.ends(64);
        assert!(run.out.is_empty() && !run.err.is_empty(), "{run:?}");
    }
    fleet.run(&["dploy"]).await.says(&["deploy"]);
    fleet
        .run(&["trace", "quest"])
        .await
        .says(&["an id has 32 hexadecimal digits, of which the first 4 or more will do"]);
    fleet.run(&["trace", "4bf92f35"]).await.ends(1).says(&["nothing is deployed"]);
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_named_with_the_way_out() {
    let fleet = Fleet::new(1);
    fs::write(fleet.path("file"), "").unwrap();
    let state = fleet.path("file/state").display().to_string();
    let binaries = fleet.path("bin").display().to_string();
    for arguments in [vec!["plan", "--binaries", &binaries], vec!["deploy", "--all", "--binaries", &binaries]] {
        let run = fleet.run(&[&["--state-dir", &state], arguments.as_slice()].concat()).await.ends(1);
        run.says(&[&format!("failed to read `{state}"), "hint: name another folder with `--state-dir`"]);
    }
    let schemas = fleet.manifest("schema");
    fs::write(&schemas, "").unwrap();
    fleet.run(&["schema"]).await.ends(1).says(&[&format!("failed to make `{}`", schemas.display())]);
}

#[tokio::test]
async fn a_current_folder_that_is_gone_is_said() {
    let fleet = Fleet::new(1);
    let gone = fleet.path("gone");
    fs::create_dir(&gone).unwrap();
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", r#"rmdir "$PWD" && exec "$0" validate"#, NATSCTL]).current_dir(&gone);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("error: the current folder is gone, or cannot be read: "), "{said}");
}

#[tokio::test]
async fn binaries_are_found_by_a_relative_path_too() {
    let fleet = Fleet::new(1);
    let plan = fleet.run(&["plan", "--binaries", "bin"]).await.ends(2).out;
    assert_eq!(plan, fleet.run(&["plan", "--binaries", fleet.path("bin").to_str().unwrap()]).await.ends(2).out);
    let nowhere = fleet.path("nowhere").display().to_string();
    for folder in ["nowhere", &nowhere] {
        fleet.run(&["plan", "--binaries", folder]).await.ends(1).says(&[&format!("in `{nowhere}`")]);
    }
}

#[tokio::test]
async fn help_documents_the_exit_codes() {
    let fleet = Fleet::new(1);
    let help = fleet.run(&["--help"]).await.ends(0).out;
    for code in ["0 ", "1 ", "2 ", "3 ", "64 ", "130 "] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(code)), "{help}");
    }
    assert!(help.contains("deploy") && !help.contains("supervise"), "{help}");
    let version = fleet.run(&["--version"]).await.ends(0).out;
    assert_eq!(version.trim(), format!("natsctl {}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn before_anything_is_deployed_every_command_says_so() {
    let fleet = Fleet::new(1);
    let status = fleet.status().await;
    assert_eq!((&status["healthy"], &status["services"]), (&json!(false), &json!([])));
    for arguments in [
        vec!["env"],
        vec!["logs", "quest-system"],
        vec!["nats", "status"],
        vec!["restart", "--all"],
        vec!["scale", "quest-system", "3"],
        vec!["rollback", "quest-system"],
    ] {
        fleet.run(&arguments).await.ends(1).says(&[
            "nothing is deployed in environment `test`",
            "hint: ",
            "natsctl deploy",
        ]);
    }
    fleet.run(&["down"]).await.ends(0);
    assert_eq!(fleet.processes().into_values().collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test]
async fn unknown_names_are_answered_with_those_that_there_are() {
    let fleet = Fleet::new(1);
    fleet.run(&["--env", "tset", "status"]).await.ends(1).says(&["environment `tset` does not exist", "`test`"]);
    let names = ["--env", "production", "status"];
    fleet.run(&names).await.ends(1).says(&["environment `production` does not exist", "test"]);
    let services = [vec!["deploy", "quest-sytem"], vec!["scale", "quest-sytem", "2"], vec!["plan", "quest-sytem"]];
    for arguments in services {
        fleet.run(&arguments).await.ends(1).says(&["`quest-sytem`", "hint: did you mean `quest-system`?"]);
    }
    fleet.run(&["scale", "quest-system", "11"]).await.ends(1).says(&["at most 10 tasks", "`autoscaling.max`"]);
}

#[tokio::test]
async fn all_that_is_wrong_with_the_manifests_is_reported_at_once() {
    let fleet = Fleet::new(1);
    fleet.append("quest-system", "tasts: 3\n");
    fleet.append("npc-behavior", "calls: [quest-sytem]\nstop_timeout: 10\n");
    fs::write(fleet.manifest("services/broken.yaml"), "name: [").unwrap();
    for command in [vec!["validate"], vec!["plan"], vec!["deploy", "--all"], vec!["status"]] {
        let run = fleet.run(&command).await.ends(1);
        run.says(&[
            "unknown key `tasts`",
            "quest-system.yaml:15:1",
            "hint: did you mean `tasks`?",
            "calls `quest-sytem`, which does not exist",
            "`10` has no unit",
            "broken.yaml:1:",
        ]);
    }
    let problems = fleet.run(&["validate", "--output", "json"]).await.ends(1).json();
    let problems = problems["problems"].as_array().unwrap();
    assert!(problems.len() >= 4, "{problems:#?}");
    let complete = |problem: &Value| {
        problem["file"].is_string()
            && problem["message"].is_string()
            && problem["line"].is_u64()
            && problem["column"].is_u64()
    };
    assert!(problems.iter().all(complete), "{problems:#?}");
}

#[tokio::test]
async fn a_plan_against_a_saved_state_needs_nothing_that_runs() {
    let fleet = Fleet::new(1);
    let file = fleet.path("observed.json").display().to_string();
    let count = |plan: &Value| plan["steps"].as_array().unwrap().len();
    let plan = fleet.plan(&["--save-observed", &file]).await.ends(2).json();
    assert_eq!(count(&fleet.plan(&["--observed", &file]).await.ends(2).json()), count(&plan));

    fs::write(&file, r#"{ "services": { "#).unwrap();
    fleet.plan(&["--observed", &file]).await.ends(1).says(&["observed.json` is not an observed state"]);
    fleet.plan(&["--observed", "nowhere.json"]).await.ends(1).says(&["cannot read `nowhere.json`"]);
    assert_eq!(fleet.processes().into_values().collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_failure() {
    let fleet = Fleet::new(1);
    let commands = [vec!["--help"], vec!["validate"], vec!["completions", "bash"], vec!["doctor"], vec!["status"]];
    for arguments in commands {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let mut command = fleet.command(&arguments);
        let run = command.stdin(Stdio::null()).stdout(writer).output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success() && said.is_empty(), "{arguments:?}: {:?} {said}", run.status);
    }
}

/// What a person sees is not what a pipe gets: colours, width, and code that only runs at a terminal.
#[tokio::test]
async fn every_command_works_at_a_terminal() {
    let fleet = Fleet::new(1);
    for (size, arguments) in [SMALL, LARGE].into_iter().flat_map(|size| {
        [
            "validate",
            "plan --observed nowhere.json",
            "status",
            "down",
            "history",
            "doctor",
            "deploy --help",
            "-vv status",
        ]
        .map(|arguments| (size, arguments))
    }) {
        let ended = fleet.at_a_terminal(&arguments.split(' ').collect::<Vec<_>>(), size);
        let shown = &ended.written;
        assert!(!shown.contains("panicked") && !shown.contains("feature is required"), "{arguments}: {shown}");
        assert!(matches!(ended.code, Some(0 | 1 | 3)), "{arguments}: {:?} {shown}", ended.code);
    }
}

#[tokio::test]
async fn completions_know_the_commands() {
    let fleet = Fleet::new(1);
    for shell in ["bash", "zsh", "fish"] {
        let script = fleet.run(&["completions", shell]).await.ends(0).out;
        assert!(script.contains("rollback") && script.contains("natsctl"), "{shell}: {script}");
    }
    let script = fleet.path("completions.bash");
    fs::write(&script, fleet.run(&["completions", "bash"]).await.out).unwrap();
    let checked = std::process::Command::new("bash").arg("-n").arg(&script).status();
    assert!(checked.is_ok_and(|status| status.success()), "bash refuses the completions of {NATSCTL}");
}
