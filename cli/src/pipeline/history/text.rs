//! The history of an environment, for people.

use super::{Record, RunResult};
use crate::model::task;
use crate::screen::table;

/// More services than this are counted, not named.
const NAMED: usize = 3;

/// One line for each run, and under those that failed the reason.
pub(crate) fn text(records: &[Record]) -> String {
    if records.is_empty() {
        return "nothing was changed yet".to_owned();
    }
    let header = ["when", "who", "result", "took", "revision", "services", "command"];
    let rows = records.iter().map(row);
    let listed = table(&header, rows);
    let mut lines = listed.lines();
    let mut text: Vec<String> = lines.next().map(str::to_owned).into_iter().collect();
    for (line, record) in lines.zip(records) {
        text.push(line.to_owned());
        let reason = record.error.iter().filter(|_| record.result != RunResult::Done);
        text.extend(reason.flat_map(|error| error.lines()).map(|line| format!("    {line}")));
    }
    text.join("\n")
}

fn row(record: &Record) -> Vec<String> {
    let result = match record.result {
        RunResult::Started => "not ended",
        RunResult::Done => "done",
        RunResult::RolledBack => "rolled back",
        RunResult::Failed => "failed",
        RunResult::Interrupted => "interrupted",
    };
    let took = match record.ended {
        Some(_) => format!("{} s", record.duration().as_secs()),
        None => String::new(),
    };
    let services = match record.services.as_slice() {
        few if few.len() <= NAMED => few.join(", "),
        many => format!("{} services", many.len()),
    };
    vec![
        format!("{:.0}", record.started),
        // `arn:aws:sts::123456789012:assumed-role/deploy/ann` is `deploy/ann`.
        record.who.split_once('/').map_or(record.who.as_str(), |(_, name)| name).to_owned(),
        result.to_owned(),
        took,
        short(&record.git_revision),
        services,
        record.command.clone(),
    ]
}

fn short(revision: &str) -> String {
    let (commit, dirty) = revision.split_once('-').unwrap_or((revision, ""));
    let commit = task::short(commit);
    if dirty.is_empty() { commit.to_owned() } else { format!("{commit}-{dirty}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_one_line_and_a_failed_one_says_why() {
        let record = Record {
            id: "2026".to_owned(),
            who: "arn:aws:sts::123456789012:assumed-role/deploy/ann".to_owned(),
            command: "natsctl deploy auth".to_owned(),
            git_revision: format!("{}-dirty", "a".repeat(40)),
            started: "2026-11-21T06:41:00Z".parse().unwrap(),
            ended: Some("2026-11-21T06:42:30Z".parse().unwrap()),
            result: RunResult::RolledBack,
            error: Some("`auth` crashed\nexit code 1".to_owned()),
            services: vec!["auth".to_owned()],
            roll: None,
            steps: Vec::new(),
        };
        let shown = text(&[record]);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 4, "{shown}");
        for part in ["2026-11-21T06:41:00Z", "deploy/ann", "rolled back", "90 s", "aaaaaaaaaaaa-dirty", "auth"] {
            assert!(lines[1].contains(part), "`{part}` is missing: {shown}");
        }
        assert_eq!(lines[2..], ["    `auth` crashed", "    exit code 1"]);
    }
}
