//! The history of a local environment: one line of JSON for each state of a run, appended to `history.jsonl` in the state directory.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::dir::write_atomically;
use crate::error::Hinted;
use crate::pipeline::history::Record;

/// A longer file is rewritten with the last runs alone.
const LONGEST: u64 = 4 << 20;
/// Runs that stay then.
const MAX_RUNS: usize = 500;

/// `history.jsonl` of a state directory.
#[derive(Clone, Debug)]
pub(crate) struct History(PathBuf);

impl History {
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.join("history.jsonl"))
    }

    /// Appends a run as it is now; its last line counts.
    pub(crate) fn put(&self, record: &Record) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let length = self.append(&line).map_err(|error| self.failed("write", error))?;
        if length > LONGEST { self.shorten() } else { Ok(()) }
    }

    /// Returns how long the file is then.
    fn append(&self, line: &[u8]) -> io::Result<u64> {
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&self.0)?;
        // A line that was cut off by a crash would take this one with it.
        let mut end = file.seek(SeekFrom::End(0))?;
        let mut last = [b'\n'];
        if end > 0 {
            file.seek(SeekFrom::Start(end - 1))?;
            file.read_exact(&mut last)?;
        }
        if last != [b'\n'] {
            let content = fs::read(&self.0)?;
            end = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1) as u64;
            file.set_len(end)?;
            file.seek(SeekFrom::Start(end))?;
        }
        let written = file.write_all(line).and_then(|()| file.sync_data());
        if written.is_err() {
            // On a full disk half a line may be there.
            let _ = file.set_len(end);
        }
        written.map(|()| end + line.len() as u64)
    }

    fn failed(&self, what: &str, error: io::Error) -> anyhow::Error {
        let hint = "make it readable and writable, and make room on its disk; if it is no file, remove it";
        Hinted::new(format!("failed to {what} `{}`", self.0.display()), hint).because(error).into()
    }

    /// The last runs, the newest first.
    ///
    /// # Errors
    /// A file that cannot be read. A line that was cut off by a crash is left out; one that is damaged in another way is an error.
    pub(crate) fn records(&self, limit: usize) -> anyhow::Result<Vec<Record>> {
        let text = match fs::read(&self.0) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed("read", error)),
        };
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut records: Vec<Record> = Vec::new();
        for (number, line) in (1..).zip(complete.lines()).collect::<Vec<_>>().into_iter().rev() {
            let record: Record = serde_json::from_str(line).map_err(|error| {
                let message = format!("`{}` is damaged in line {number}", self.0.display());
                Hinted::new(message, "remove that line: the others stay as they are").because(error)
            })?;
            if records.iter().all(|newer| newer.id != record.id) {
                records.push(record);
            }
            if records.len() == limit {
                break;
            }
        }
        Ok(records)
    }

    fn shorten(&self) -> anyhow::Result<()> {
        let mut text = Vec::new();
        for record in self.records(MAX_RUNS)?.iter().rev() {
            serde_json::to_writer(&mut text, record)?;
            text.push(b'\n');
        }
        Ok(write_atomically(&self.0, &text)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn record(command: &str) -> Record {
        Record::start("ann", command, Path::new("/"), BTreeSet::new())
    }

    #[test]
    fn the_last_line_of_a_run_counts_and_the_newest_run_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::new(dir.path());
        assert_eq!(history.records(10).unwrap(), []);
        let (mut first, second) = (record("natsctl deploy --all"), record("natsctl scale quest-system 3"));
        history.put(&first).unwrap();
        history.put(&second).unwrap();
        first.end(&Ok(()));
        history.put(&first).unwrap();
        assert_eq!(history.records(10).unwrap(), [first.clone(), second]);
        assert_eq!(history.records(1).unwrap(), [first]);
    }

    #[test]
    fn a_line_that_was_cut_off_is_left_out_and_a_damaged_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::new(dir.path());
        let run = record("natsctl restart --all");
        history.put(&run).unwrap();
        let file = dir.path().join("history.jsonl");
        let good = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{good}{{\"id\": ")).unwrap();
        assert_eq!(history.records(10).unwrap(), [run]);
        fs::write(&file, format!("nonsense\n{good}")).unwrap();
        let error = format!("{:#}", history.records(10).unwrap_err());
        assert!(error.contains("history.jsonl` is damaged in line 1"), "{error}");
    }

    #[test]
    fn a_line_that_was_cut_off_does_not_take_the_next_one_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::new(dir.path());
        let file = dir.path().join("history.jsonl");
        for cut in ["{\"id\": ", "\0\u{fffd}"] {
            let (first, second) = (record("natsctl restart --all"), record("natsctl stop a"));
            fs::write(&file, "").unwrap();
            history.put(&first).unwrap();
            fs::write(&file, fs::read_to_string(&file).unwrap() + cut).unwrap();
            history.put(&second).unwrap();
            assert_eq!(history.records(10).unwrap(), [second, first]);
        }
    }

    #[test]
    fn a_history_that_is_no_text_or_no_file_names_itself_and_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::new(dir.path());
        let file = dir.path().join("history.jsonl");
        fs::write(&file, b"\xff\xfe\n").unwrap();
        let error = history.records(10).unwrap_err();
        assert!(format!("{error:#}").contains("history.jsonl` is damaged in line 1"), "{error:#}");
        assert!(crate::error::hint(&error).unwrap().contains("remove that line"));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        for error in [history.records(10).unwrap_err(), history.put(&record("natsctl stop a")).unwrap_err()] {
            assert!(format!("{error:#}").contains("history.jsonl`: "), "{error:#}");
            assert!(crate::error::hint(&error).unwrap().contains("remove it"));
        }
    }

    #[test]
    fn a_long_history_is_shortened_to_the_last_runs() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::new(dir.path());
        let long = Record { error: Some("x".repeat(usize::try_from(LONGEST).unwrap())), ..record("natsctl deploy a") };
        history.put(&record("natsctl deploy b")).unwrap();
        history.put(&long).unwrap();
        assert_eq!(history.records(10).unwrap().len(), 2);
    }
}
