//! Input that means harm: text that a terminal would obey, and files whose reading does not end.

use std::fs;
use std::fs::File;
use std::os::unix::fs::symlink;

use super::fleet::Fleet;
use super::run::Run;
use crate::terminal::pty::LARGE;

/// Clears the screen, changes the title, and hides a line.
const SEQUENCES: &str = "\x1b[2J\x1b]0;owned\x07\r\u{9b}1A\u{202e}";
const SHOWN: &str = r"\u001b[2J\u001b]0;owned\u0007\u000d\u009b1A\u202e";

/// Asserts that a terminal would only show what a command said.
#[track_caller]
fn is_harmless(run: &Run) {
    let harmful = |letter: char| letter.is_control() && letter != '\n' && letter != '\t' || letter == '\u{202e}';
    assert!(!run.out.contains(harmful) && !run.err.contains(harmful), "{run:?}");
}

#[tokio::test]
async fn what_a_manifest_says_is_shown_and_not_obeyed() {
    let fleet = Fleet::new(1);
    let escaped = r#"\e[2J\e]0;owned\a\r\x9b1A\u202e"#;
    fleet.append("quest-system", &format!("\"{escaped}\": 1\n"));
    fleet.append("npc-behavior", &format!("stop_timeout: \"{escaped}\"\n"));
    for command in ["validate", "plan", "doctor"] {
        let run = fleet.run(&[command]).await.ends(1);
        is_harmless(&run);
        assert!(command == "doctor" || run.err.contains(&format!("unknown key `{SHOWN}`")), "{run:?}");
    }
    let run = fleet.run(&["validate", "--output", "json"]).await.ends(1);
    is_harmless(&run);
    let problems = run.json()["error"]["problems"].to_string();
    assert!(problems.contains(r"\u001b[2J"), "{problems}");
}

#[tokio::test]
async fn what_was_typed_is_shown_and_not_obeyed() {
    let fleet = Fleet::new(1);
    for (arguments, code) in [
        (vec!["scale", SEQUENCES, "2"], 1),
        (vec!["--env", SEQUENCES, "status"], 1),
        (vec!["plan", "--observed", SEQUENCES], 1),
        (vec!["--manifests", SEQUENCES, "validate"], 1),
        (vec![SEQUENCES], 64),
        (vec!["status", "--output", SEQUENCES], 64),
    ] {
        let run = fleet.run(&arguments).await.ends(code);
        is_harmless(&run);
        run.says(&[SHOWN]);
    }
}

#[tokio::test]
async fn the_log_of_a_failed_service_is_shown_and_not_obeyed() {
    let fleet = Fleet::new(1);
    let script = r"printf '\033[2J\033]0;owned\007\r\302\2331A\342\200\256 is the reason\n'; exit 1";
    let binaries = fleet.binaries_with("quest-system", script);
    let run = fleet.run(&["deploy", "--all", "--binaries", &binaries]).await.ends(1);
    is_harmless(&run);
    run.says(&[&format!("{SHOWN} is the reason")]);
    let explanation = fs::read_dir(fleet.state().join("failures")).unwrap().next().unwrap().unwrap().path();
    assert!(fs::read_to_string(explanation).unwrap().contains(&format!("{SHOWN} is the reason")));
    let logs = fleet.run(&["logs", "quest-system", "-n", "1"]).await.ends(0);
    is_harmless(&logs);
    assert!(logs.out.ends_with(&format!(" {SHOWN} is the reason\n")), "{logs:?}");
    let raw = fleet.run(&["logs", "quest-system", "-n", "1", "--raw"]).await.ends(0).out;
    assert_eq!(raw, format!("{SEQUENCES} is the reason\n"), "a pipe gets what was written");
    let logs = fleet.run(&["logs", "quest-system", "-n", "1", "--output", "json"]).await.ends(0);
    is_harmless(&logs);
    assert_eq!(logs.json()["line"], format!("{SEQUENCES} is the reason"));
    let shown = fleet.at_a_terminal(&["logs", "quest-system", "-n", "1"], LARGE).text();
    assert!(shown.contains(&format!("{SHOWN} is the reason")), "{shown:?}");
}

#[tokio::test]
async fn only_files_are_read() {
    let fleet = Fleet::new(1);
    let manifest = fleet.manifest("services/extra.yaml");
    let observed = fleet.path("observed").display().to_string();
    let pipe = |path: &str| rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).unwrap();

    pipe(manifest.to_str().unwrap());
    fleet.run(&["validate"]).await.ends(1).says(&["extra.yaml` is a named pipe, not a file", "hint: "]);
    fs::remove_file(&manifest).unwrap();
    symlink("/dev/zero", &manifest).unwrap();
    fleet.run(&["validate"]).await.ends(1).says(&["extra.yaml` is a device, not a file", "hint: "]);
    fs::remove_file(&manifest).unwrap();
    File::create(&manifest).unwrap().set_len(10 << 30).unwrap();
    fleet.run(&["validate"]).await.ends(1).says(&["extra.yaml` has 10737418240 bytes; natsctl reads at most"]);
    fs::remove_file(&manifest).unwrap();

    pipe(&observed);
    fleet.plan(&["--observed", &observed]).await.ends(1).says(&["observed` is a named pipe, not a file"]);
    fleet.deploy(&["--all", "--plan", &observed]).await.ends(1).says(&["observed` is a named pipe, not a file"]);
    let contract = fleet.path("proto/quest/v1");
    fs::create_dir_all(&contract).unwrap();
    pipe(contract.join("quest.proto").to_str().unwrap());
    fleet.run(&["proto", "check"]).await.ends(1).says(&["quest.proto` is a named pipe, not a file"]);
}
