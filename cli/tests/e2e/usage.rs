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
        vec!["top", "--once", "--watch"],
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
    for code in ["0 ", "1 ", "2 ", "3 ", "64 ", "70 ", "130 "] {
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
        vec!["top"],
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
    let problems = problems["error"]["problems"].as_array().unwrap();
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

/// What bash offers after `typed`, whose last word is being typed.
fn completed(fleet: &Fleet, typed: &[&str]) -> Vec<String> {
    let script = r#"source <("$0" completions bash)
        natsctl() { "$NATSCTL" "$@"; }
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
        _clap_complete_natsctl natsctl "${COMP_WORDS[COMP_CWORD]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", script, NATSCTL]).args(typed).env("NATSCTL", NATSCTL).current_dir(fleet.path("."));
    let natsctl = fleet.command(&[]);
    bash.envs(natsctl.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = bash.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line.trim().to_owned()).collect()
}

#[tokio::test]
async fn completions_know_commands_and_names() {
    let fleet = Fleet::new(1);
    for shell in ["bash", "zsh", "fish"] {
        let script = fleet.run(&["completions", shell]).await.ends(0).out;
        assert!(script.contains("COMPLETE=") && script.contains("natsctl"), "{shell}: {script}");
    }
    fs::write(fleet.manifest("environments/staging.yaml"), "").unwrap();
    for (typed, expected) in [
        (&["natsctl", "rollb"][..], &["rollback"][..]),
        (&["natsctl", "restart", "que"], &["quest-system"]),
        (&["natsctl", "--env", "st"], &["staging"]),
        (&["natsctl", "call", "quest.v1.Quest/Gen"], &["quest.v1.Quest/Generate"]),
        (&["natsctl", "nats", "step-down", "KV_que"], &["KV_quests"]),
        (&["natsctl", "explain", "services.autoscaling.ma"], &["services.autoscaling.max"]),
        (&["natsctl", "deploy", "--force", "rep"], &["replicas"]),
        (&["natsctl", "superv"], &[""]),
    ] {
        assert_eq!(completed(&fleet, typed), expected, "{typed:?}");
    }
}

#[tokio::test]
async fn every_error_is_also_json() {
    let fleet = Fleet::new(1);
    for (arguments, code, kind) in [
        (vec!["dploy"], 64, "usage"),
        (vec!["scale", "quest-system"], 64, "usage"),
        (vec![], 64, "usage"),
        (vec!["scale", "quest-sytem", "2"], 1, "unknown_name"),
        (vec!["restart", "--all"], 1, "not_deployed"),
        (vec!["--env", "tset", "status"], 1, "invalid_manifest"),
        (vec!["deploy", "--all", "--proof", "ecs"], 1, "wrong_platform"),
        (vec!["plan", "--observed", "nowhere.json"], 1, "failed"),
        (vec!["explain", "services.x"], 1, "unknown_name"),
    ] {
        let run = fleet.run(&[&["-o", "json"], arguments.as_slice()].concat()).await.ends(code);
        let error = run.json()["error"].clone();
        assert_eq!(
            (&error["code"], error["message"].is_string(), error["causes"].is_array()),
            (&json!(kind), true, true)
        );
        assert!(!run.err.is_empty(), "{run:?}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_device_is_a_failure_that_is_said() {
    let fleet = Fleet::new(1);
    let commands = [
        vec!["--help"],
        vec!["validate"],
        vec!["completions", "bash"],
        vec!["status", "-o", "json"],
        vec!["dploy", "-o", "json"],
    ];
    for arguments in commands {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let run = fleet.command(&arguments).stdin(Stdio::null()).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        if arguments[0] == "dploy" {
            assert_eq!(run.status.code(), Some(64), "{said}");
        } else {
            assert_eq!(run.status.code(), Some(1), "{arguments:?}: {said}");
            assert!(said.contains("failed to write to standard output: No space left on device"), "{said}");
        }
    }
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let run = fleet.command(&["dploy"]).stdin(Stdio::null()).stderr(full).output().unwrap();
    assert_eq!(run.status.code(), Some(64));
}

#[tokio::test]
async fn help_is_a_command_too_and_has_examples() {
    let fleet = Fleet::new(1);
    let help = fleet.run(&["help", "nats", "roll"]).await.ends(0).out;
    assert!(help.contains("Examples:") && help.contains("natsctl nats roll --restart"), "{help}");
    assert_eq!(help, fleet.run(&["nats", "roll", "--help"]).await.ends(0).out);
    let all = fleet.run(&["help"]).await.ends(0).out;
    assert!(!all.contains("supervise") && !all.contains("remote-task"), "{all}");
}

#[tokio::test]
async fn a_setting_is_explained() {
    let fleet = Fleet::new(1);
    fleet.run(&["explain", "services.autoscaling.max"]).await.ends(0).shows(&["integer", "1 to 100", "Most tasks."]);
    fleet.run(&["explain"]).await.ends(0).shows(&["services", "fleet", "environments"]);
    let explained = fleet.run(&["explain", "fleet.nats.replicas", "-o", "json"]).await.ends(0).json();
    assert_eq!(explained[0]["type"], "integer");
    assert_eq!(explained[0]["examples"][0]["value"], 3);
}

#[tokio::test]
async fn every_command_has_a_manual_page_that_man_can_read() {
    let fleet = Fleet::new(1);
    let folder = fleet.path("man");
    fleet.run(&["man", "--dir", folder.to_str().unwrap()]).await.ends(0).shows(&["natsctl.1", "natsctl-nats-roll.1"]);
    for page in fs::read_dir(&folder).unwrap() {
        let page = page.unwrap().path();
        let text = fs::read_to_string(&page).unwrap();
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{}", page.display());
        let checked = std::process::Command::new("groff").args(["-man", "-z", "-Tutf8"]).arg(&page).output();
        // Not everywhere.
        let Ok(checked) = checked else { continue };
        assert!(checked.stderr.is_empty(), "{}: {}", page.display(), String::from_utf8_lossy(&checked.stderr));
    }
    fleet.run(&["man"]).await.ends(0).shows(&["EXIT STATUS", "natsctl"]);
}
