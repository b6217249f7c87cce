//! `docs/screens.md`: what people see, made by running it at a terminal. `UPDATE=1` writes it; otherwise it must be current.

use std::fs;
use std::path::Path;

use crate::e2e::fleet::Fleet;
use crate::terminal::pty::{Ended, Terminal};

/// Wide enough that no path of this machine breaks a line.
const WIDE: (u16, u16) = (400, 60);

const HEAD: &str = "\
# Screens

What natsctl shows at a terminal. A test runs these commands and compares (`cli/tests/terminal/screens.rs`); times, numbers of versions,
ports and ids are the same ones here whatever they were.
";

/// A command and what it showed.
struct Screen {
    about: &'static str,
    typed: String,
    shown: String,
}

#[tokio::test]
async fn the_document_shows_what_is_on_the_screen() {
    let fleet = Fleet::deployed(1).await;
    let mut screens = Vec::new();
    let mut show = |about, arguments: &[&str]| {
        let ended = fleet.at_a_terminal(arguments, WIDE);
        screens.push(Screen { about, typed: typed(arguments), shown: steady(&fleet, &ended.lines) });
    };
    show("Everything is well, in the first and the last line:", &["status"]);
    show("One service:", &["status", "quest-system"]);
    show("A name that no service has:", &["status", "quest-sytem"]);
    show("The same for a program:", &["status", "quest-sytem", "--output", "json"]);

    let (manifest, text) = fleet.service_manifest("quest-system");
    fs::write(&manifest, format!("{text}tasks: 3\nmemory: 1 GiB\ncpu: 512\n")).unwrap();
    show("What a deployment would change, in units that people write:", &["plan", "quest-system", "--no-build"]);
    fs::write(&manifest, text).unwrap();
    let binaries = fleet.path("bin").display().to_string();
    show("A change ends with what it did:", &["restart", "quest-system"]);
    show("Nothing to do:", &["deploy", "quest-system", "--binaries", &binaries]);

    let hanging = fleet.binaries_with("quest-system", "exec sleep 600");
    let arguments = ["deploy", "quest-system", "--binaries", &hanging];
    let mut terminal = Terminal::start(&fleet.command(&arguments), WIDE);
    let is_rollout = |line: &str| line.contains("new 0/2  old 2/2 serving") && line.contains("/readyz");
    let line = terminal.until_line("it says why", is_rollout);
    // Its first sign turns.
    let line = format!("|{}", &line[1..]);
    terminal.types("\x03");
    let ended: Ended = terminal.ended();
    let about = "A rollout whose new task does not become ready; Ctrl-C after some time:";
    let (said, how_it_goes_on) = ended.lines.split_at(1);
    let lines = [said, &[line], how_it_goes_on].concat();
    screens.push(Screen { about, typed: typed(&arguments), shown: steady(&fleet, &lines) });

    let document = document(&screens);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/screens.md");
    if std::env::var_os("UPDATE").is_some() {
        return fs::write(&file, document).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(found, document, "docs/screens.md is not current: run this test with UPDATE=1");
}

fn document(screens: &[Screen]) -> String {
    let screen =
        |Screen { about, typed, shown }: &Screen| format!("\n{about}\n\n```console\n$ {typed}\n{shown}\n```\n");
    HEAD.to_owned() + &screens.iter().map(screen).collect::<String>()
}

/// As a person would type it: without the binaries of the test.
fn typed(arguments: &[&str]) -> String {
    let is_typed = |(place, argument): &(usize, &&str)| {
        **argument != "--binaries" && place.checked_sub(1).is_none_or(|before| arguments[before] != "--binaries")
    };
    let words: Vec<&str> = arguments.iter().enumerate().filter(is_typed).map(|(_, argument)| *argument).collect();
    format!("natsctl {}", words.join(" "))
}

/// The same whenever and wherever it was run.
fn steady(fleet: &Fleet, lines: &[String]) -> String {
    let folder = fleet.path("").display().to_string();
    // A machine that is busy makes natsctl wait for the servers' answers, and say so.
    let lines = lines.iter().filter(|line| !line.starts_with("waiting for "));
    let lines: Vec<String> = lines.map(|line| line.replace(folder.trim_end_matches('/'), "…")).collect();
    let mut blocks: Vec<String> = Vec::new();
    for block in lines.split(String::is_empty) {
        let is_table = block.first().is_some_and(|head| head.contains("  ") && *head == head.to_uppercase());
        blocks.push(if is_table {
            table(block)
        } else {
            block.iter().map(|line| words(line)).collect::<Vec<_>>().join("\n")
        });
    }
    blocks.join("\n\n")
}

/// A table whose columns are as wide as what is in them now.
fn table(lines: &[String]) -> String {
    let head: Vec<char> = lines[0].chars().collect();
    let begins =
        |place: &usize| *place == 0 || head[*place] != ' ' && head[place.saturating_sub(2)..*place] == [' ', ' '];
    let starts: Vec<usize> = (0..head.len()).filter(begins).collect();
    let (rows, rest): (Vec<&String>, Vec<&String>) = lines.iter().partition(|line| line.contains("  "));
    let cell = |line: &str, column: usize| {
        let end = starts.get(column + 1).copied().unwrap_or(usize::MAX);
        let text: String = line.chars().skip(starts[column]).take(end - starts[column]).collect();
        words(text.trim())
    };
    let cells: Vec<Vec<String>> =
        rows.iter().map(|line| (0..starts.len()).map(|column| cell(line, column)).collect()).collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let row = |row: &Vec<String>| {
        let padded = row.iter().enumerate().map(|(column, text)| format!("{text:<width$}", width = width(column)));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    cells.iter().map(row).chain(rest.into_iter().map(|line| words(line))).collect::<Vec<_>>().join("\n")
}

fn words(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let is_time = |place: usize| {
        let unit = words.get(place + 1).map(|unit| unit.trim_matches([')', ':', ',']));
        let number = words[place].trim_matches('(');
        unit == Some("s") && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    let one =
        |(place, one): (usize, &&str)| if is_time(place) { one.replace(one.trim_matches('('), "7") } else { word(one) };
    words.iter().enumerate().map(one).collect::<Vec<_>>().join(" ")
}

/// A word in which what differs from run to run is replaced.
fn word(word: &str) -> String {
    let inner = word.trim_matches(|letter: char| "()`,;".contains(letter));
    let is_hex = |text: &str, least: usize| text.len() >= least && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let replaced = if let Some((version, _)) = inner.split_once('+').filter(|(_, digest)| is_hex(digest, 12)) {
        format!("{version}+0123456789ab")
    } else if let Some((address, _)) = inner.rsplit_once(':').filter(|(address, _)| address.ends_with("127.0.0.1")) {
        format!("{address}:8000")
    } else if is_hex(inner, 8) && inner.bytes().any(|byte| byte.is_ascii_digit()) {
        "0123456789ab".to_owned()
    } else if inner.strip_suffix('s').is_some_and(is_number) {
        "7s".to_owned()
    } else if let Some((_, limit)) =
        inner.split_once('/').filter(|(now, limit)| is_number(now) && limit.len() > 2 && is_number(limit))
    {
        format!("7/{limit}")
    } else if is_number(inner) && inner.matches('.').count() == 2 {
        "2.15.0".to_owned()
    } else if matches!(inner, "|" | "/" | "\\") {
        "|".to_owned()
    } else {
        return word.to_owned();
    };
    word.replace(inner, &replaced)
}
