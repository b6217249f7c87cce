//! Files that are no files, texts that no process can be given, and more of everything than anybody writes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Tree, said};

/// What is said when something lies at a place where manifests are read from.
#[track_caller]
fn check_file(file: &str, put: impl FnOnce(&Path), expected: &str) {
    let tree = Tree::valid();
    let path = tree.folder().join(file);
    let _ = fs::remove_file(&path);
    put(&path);
    let said = said(&tree);
    assert!(said.iter().any(|problem| problem == expected), "{said:#?}");
}

#[test]
fn only_files_are_manifests() {
    let pipe = |path: &Path| rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).unwrap();
    let hint = "(remove it, or put a regular file in its place)";
    for file in ["services/extra.yaml", "services/quest-system.yaml", "fleet.yaml", "environments/local.yaml"] {
        let refused = |kind: &str| format!("{file}:1:1: `{file}` is {kind}, not a file {hint}");
        check_file(file, pipe, &refused("a named pipe"));
        check_file(file, |path| symlink("/dev/zero", path).unwrap(), &refused("a device"));
        check_file(file, |path| fs::create_dir(path).unwrap(), &refused("a folder"));
        let huge = |path: &Path| fs::File::create(path).unwrap().set_len(10 << 30).unwrap();
        let hint = "(this is not the file that is meant, or it holds what does not belong in it)";
        let message = format!("`{file}` has 10737418240 bytes; natsctl reads at most 16777216 bytes of a file");
        check_file(file, huge, &format!("{file}:1:1: {message} {hint}"));
    }
}

/// What is said of a line in the quest system's manifest, its second.
#[track_caller]
fn check_line(line: &str, expected: &str) {
    let mut tree = Tree::valid();
    tree.replace("services/quest-system.yaml", "serves", &format!("{line}\nserves"));
    let said = said(&tree);
    let expected = format!("services/quest-system.yaml:2:{expected}");
    assert!(said.iter().any(|problem| problem.starts_with(&expected)), "{said:.300?}");
}

#[test]
fn a_nul_character_is_refused_wherever_it_is() {
    check_line(r#"environment: { KEY: "a\0b" }"#, "21: `KEY` has a NUL character (remove it");
    check_line(r#"environment: { "K\x00": a }"#, "16: a key has a NUL character");
    check_line(r#"build: { dockerfile: "a\u0000" }"#, "22: `dockerfile` has a NUL character");
    check_line(r#"publishes: ["\0"]"#, "13: item 1 of `publishes` has a NUL character");
    check_line(r#"aws: [{ actions: ["\0"], resources: [] }]"#, "19: item 1 of `actions` has a NUL character");
    check_line(r#""\0": 1"#, "1: a key has a NUL character");
    check_line(r#"ecs_name: "a\0""#, "11: `ecs_name` has a NUL character");
    check_line("tasks: 2 # \0", "12: the file has a NUL character here (remove it)");
}

#[test]
fn a_text_that_no_process_can_be_given_is_refused() {
    let long = |length: usize| "x".repeat(length);
    let refused = |length: usize| format!("has {length} bytes, and at most 32768 are allowed (shorten it");
    for length in [200_000, 131_072, 32_769] {
        let text = long(length);
        check_line(&format!("environment: {{ KEY: {text} }}"), &format!("21: `KEY` {}", refused(length)));
        check_line(&format!("environment: {{ ? {text} : a }}"), &format!("18: a key {}", refused(length)));
        check_line(&format!("calls: [{text}]"), &format!("9: item 1 of `calls` {}", refused(length)));
        check_line(&format!("build: {{ image: {text} }}"), &format!("17: `image` {}", refused(length)));
        check_line(&format!("secrets: {{ KEY: {text} }}"), &format!("17: `KEY` {}", refused(length)));
    }
    let mut tree = Tree::valid();
    let line = format!("environment: {{ KEY: {} }}\nserves", long(32_768));
    tree.replace("services/quest-system.yaml", "serves", &line);
    assert_eq!(said(&tree), Vec::<String>::new());
}

#[test]
fn more_variables_than_a_task_definition_can_hold_are_refused() {
    let variables: Vec<String> = (0..2_000).map(|number| format!("KEY_{number}: {}", "x".repeat(30))).collect();
    check_line(
        &format!("environment: {{ A: {}, {} }}", "x".repeat(100), variables.join(", ")),
        "16: names and values in `environment` have 74991 bytes, and at most 49152 are allowed; `A` alone has 101",
    );
}

#[test]
fn as_many_items_as_anybody_can_write_are_checked_at_once() {
    const ITEMS: usize = 40_000;
    let lines = |prefix: &str, line: fn(usize) -> String| {
        let lines: Vec<String> = (0..ITEMS).map(line).collect();
        format!("{prefix}\n{}\nserves", lines.join("\n"))
    };
    for text in [
        lines("aws:\n  - resources: []\n    actions:", |number| format!("      - s3:Get{number}")),
        lines("environment:", |number| format!("  V{number}: a")),
        lines("calls:", |_| "  - npc-behavior".to_owned()),
    ] {
        let mut tree = Tree::valid();
        tree.replace("services/quest-system.yaml", "serves", &text);
        let start = Instant::now();
        let _ = tree.load();
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}: {:.60}", start.elapsed(), text);
    }
}
