//! Logs of services and nodes: one file per task, bounded in size and number, read together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::dir::Dir;
use crate::error::at;
use crate::model::log::{Filter, Line, timestamp};
pub use crate::pipeline::logs::Follower;
use crate::pipeline::logs::Logs;

/// A larger file is rotated; it replaces the one that was rotated before.
const MAX_SIZE: u64 = 10 << 20;

/// How many logs of ended tasks stay per service.
const MAX_ENDED: usize = 10;

/// How many bytes at the end of a file are read to find its last lines.
const MAX_TAIL: u64 = 1 << 20;

/// Between two reads of the files.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The logs of tasks and nodes, of those that have ended too, and of those that start later.
#[derive(Debug)]
pub struct TaskLogs {
    /// By service or node.
    dirs: BTreeMap<String, PathBuf>,
    /// By file.
    positions: BTreeMap<PathBuf, Position>,
}

#[derive(Debug, Default)]
struct Position {
    offset: u64,
    /// The last line, as long as its end has not been written.
    partial_line: Vec<u8>,
}

impl TaskLogs {
    /// The logs of the services or nodes with these names.
    pub fn new<'a>(state_dir: &Path, names: impl IntoIterator<Item = &'a str>) -> io::Result<Self> {
        let dir = Dir::new(state_dir)?;
        let dirs = names.into_iter().map(|name| (name.to_owned(), dir.logs(name))).collect();
        Ok(Self { dirs, positions: BTreeMap::new() })
    }
}

impl Logs for TaskLogs {
    async fn tail(&mut self, filter: &Filter, lines: usize) -> anyhow::Result<Vec<Line>> {
        // A filter drops lines, so the last ones that pass it can be anywhere.
        let enough = if *filter == Filter::default() { lines } else { usize::MAX };
        let mut found = Vec::new();
        for (name, dir) in &self.dirs {
            for (task, path) in files(dir)? {
                let (position, texts) = last_lines(&path, enough)?;
                let mut time = None;
                for text in texts {
                    time = timestamp(&text).or(time);
                    found.push(Line { service: name.clone(), task: task.clone(), time, text });
                }
                self.positions.insert(path, position);
            }
        }
        Ok(found)
    }

    async fn read_new(&mut self) -> anyhow::Result<Vec<Line>> {
        let mut new = Vec::new();
        for (name, dir) in &self.dirs {
            for (task, path) in files(dir)? {
                let position = self.positions.entry(path.clone()).or_default();
                for text in position.advance(&path)? {
                    new.push(Line { service: name.clone(), task: task.clone(), time: timestamp(&text), text });
                }
            }
        }
        Ok(new)
    }

    fn poll_interval(&self) -> Duration {
        POLL_INTERVAL
    }
}

impl Position {
    fn advance(&mut self, path: &Path) -> io::Result<Vec<String>> {
        let Some(mut file) = open(path)? else {
            return Ok(Vec::new());
        };
        let length = file.metadata().map_err(at("read", path))?.len();
        if length < self.offset {
            // It was rotated.
            *self = Self::default();
        }
        self.read(&mut file, MAX_TAIL).map_err(at("read", path))?;
        Ok(self.complete_lines())
    }

    /// Reads on from its offset, so many bytes at most.
    fn read(&mut self, file: &mut File, most: u64) -> io::Result<()> {
        file.seek(SeekFrom::Start(self.offset))?;
        self.offset += file.take(most).read_to_end(&mut self.partial_line)? as u64;
        Ok(())
    }

    fn complete_lines(&mut self) -> Vec<String> {
        let end = self.partial_line.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let complete: Vec<u8> = self.partial_line.drain(..end).collect();
        String::from_utf8_lossy(&complete).lines().map(str::to_owned).collect()
    }
}

/// The last lines of what has been written since the file had this length.
pub(super) fn tail_since(path: &Path, length: u64, lines: usize) -> Vec<String> {
    let mut position = Position { offset: length, partial_line: Vec::new() };
    let Ok(mut texts) = position.advance(path) else { return Vec::new() };
    let skipped = texts.len().saturating_sub(lines);
    texts.split_off(skipped)
}

/// The last lines of a file, continued in the rotated one if they are too few. A last line without an end counts.
pub(super) fn tail_of(path: &Path, lines: usize) -> Vec<String> {
    let Ok((position, mut texts)) = last_lines(path, lines) else {
        return Vec::new();
    };
    if !position.partial_line.is_empty() {
        texts.push(String::from_utf8_lossy(&position.partial_line).into_owned());
    }
    let skipped = texts.len().saturating_sub(lines);
    texts.split_off(skipped)
}

/// Reads from the end: what is before [`MAX_TAIL`] only if it has too few of the lines.
fn last_lines(path: &Path, lines: usize) -> io::Result<(Position, Vec<String>)> {
    let Some(mut file) = open(path)? else {
        return Ok((Position::default(), Vec::new()));
    };
    let length = file.metadata().map_err(at("read", path))?.len();
    let mut start = if lines == usize::MAX { 0 } else { length.saturating_sub(MAX_TAIL) };
    let (position, mut texts) = loop {
        let mut position = Position { offset: start, partial_line: Vec::new() };
        position.read(&mut file, length - start).map_err(at("read", path))?;
        let mut texts = position.complete_lines();
        if start == 0 {
            break (position, texts);
        }
        if texts.len() > lines {
            // The first line is cut.
            texts.remove(0);
            break (position, texts);
        }
        start = 0;
    };
    let rotated = rotated(path);
    if texts.len() < lines && path != rotated && rotated.exists() {
        let (_, mut earlier) = last_lines(&rotated, lines - texts.len())?;
        earlier.append(&mut texts);
        texts = earlier;
    }
    let skipped = texts.len().saturating_sub(lines);
    Ok((position, texts.split_off(skipped)))
}

/// Rotates a log that has grown too large. It is copied and truncated, because its writer keeps it open for appending; what is written in
/// between is lost.
pub(super) fn rotate(path: &Path) {
    rotate_above(MAX_SIZE, path);
}

fn rotate_above(max_size: u64, path: &Path) {
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() > max_size) {
        let copied = fs::copy(path, rotated(path)).and_then(|_| File::options().write(true).open(path)?.set_len(0));
        if let Err(error) = copied {
            tracing::warn!(path = %path.display(), %error, "log not rotated");
        }
    }
}

/// Removes the oldest logs of tasks that have ended.
pub(super) fn prune(dir: &Dir, name: &str, running: &[&str]) {
    let Ok(files) = files(&dir.logs(name)) else { return };
    let ended: Vec<_> = files.into_iter().filter(|(task, _)| !running.contains(&task.as_str())).collect();
    let surplus = ended.len().saturating_sub(MAX_ENDED);
    for (_, path) in ended.into_iter().take(surplus) {
        let _ = fs::remove_file(rotated(&path));
        let _ = fs::remove_file(path);
    }
}

/// Services and nodes that have logs.
pub(super) fn names(dir: &Dir) -> io::Result<BTreeSet<String>> {
    let logs = dir.logs("");
    let entries = match fs::read_dir(&logs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(at("read", &logs)(error)),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        names.extend(entry.map_err(at("read", &logs))?.file_name().into_string().ok());
    }
    Ok(names)
}

/// Tasks and their files, by the time of their last change.
fn files(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at("read", dir)(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(at("read", dir))?.path();
        if path.extension().is_some_and(|extension| extension == "log")
            && let Some(task) = path.file_stem().and_then(|stem| stem.to_str())
        {
            let written =
                fs::metadata(&path).and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            files.push((written, task.to_owned(), path));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, task, path)| (task, path)).collect())
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        // It has just been pruned.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("read", path)(error)),
    }
}

fn rotated(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::pipeline::logs::{Query, show};

    struct State(tempfile::TempDir);

    impl State {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("logs/quest")).unwrap();
            Self(dir)
        }

        fn path(&self, task: &str) -> PathBuf {
            self.0.path().join("logs/quest").join(format!("{task}.log"))
        }

        fn write(&self, task: &str, text: &str) {
            let mut file = File::options().append(true).create(true).open(self.path(task)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        async fn follow(&self, filter: Filter, lines: usize) -> Follower<TaskLogs> {
            let logs = TaskLogs::new(self.0.path(), ["quest", "unknown"]).unwrap();
            Follower::new(logs, filter, lines).await.unwrap()
        }

        async fn tail(&self, filter: Filter) -> Vec<String> {
            let mut shown = Vec::new();
            let logs = TaskLogs::new(self.0.path(), ["quest", "unknown"]).unwrap();
            let print = |line: &Line| {
                shown.push(format!("{} {}", line.task, line.text));
                Ok(())
            };
            show(logs, Query { filter, lines: 4, follow: false }, print).await.unwrap();
            shown
        }
    }

    fn at(second: u8) -> String {
        format!("{{\"timestamp\":\"2026-11-21T06:41:0{second}Z\"}}")
    }

    async fn next(follower: &mut Follower<TaskLogs>) -> String {
        let line = tokio::time::timeout(Duration::from_secs(5), follower.next()).await.expect("a line").unwrap();
        format!("{} {}", line.task, line.text)
    }

    #[tokio::test]
    async fn lines_of_several_tasks_are_ordered_by_their_time() {
        let logs = State::new();
        logs.write("a", &format!("{}\npanic\n{}\n", at(1), at(4)));
        logs.write("b", &format!("{}\n{}\n", at(2), at(3)));
        let expected = ["a panic".to_owned(), format!("b {}", at(2)), format!("b {}", at(3)), format!("a {}", at(4))];
        assert_eq!(logs.tail(Filter::default()).await, expected);
    }

    #[tokio::test]
    async fn lines_are_filtered_by_time_and_text() {
        let logs = State::new();
        logs.write("a", &format!("{}\npanic\n{}\n{}\nat main\n{}\n", at(1), at(2), at(4), at(5)));
        let since = Filter { since: Some("2026-11-21T06:41:04Z".parse().unwrap()), ..Filter::default() };
        assert_eq!(logs.tail(since).await, [format!("a {}", at(4)), "a at main".to_owned(), format!("a {}", at(5))]);
        let grep = Filter { grep: Some("panic".to_owned()), ..Filter::default() };
        assert_eq!(logs.tail(grep).await, ["a panic"]);
    }

    #[tokio::test]
    async fn a_service_without_logs_has_no_lines() {
        let logs = State::new();
        assert_eq!(logs.tail(Filter::default()).await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn following_continues_where_the_tail_ends() {
        let logs = State::new();
        logs.write("a", "1\n2\nha");
        let mut follower = logs.follow(Filter::default(), 1).await;
        assert_eq!(next(&mut follower).await, "a 2");
        logs.write("a", "lf\n");
        assert_eq!(next(&mut follower).await, "a half");
        logs.write("b", "new\n");
        assert_eq!(next(&mut follower).await, "b new");
    }

    #[tokio::test]
    async fn following_survives_rotation() {
        let logs = State::new();
        logs.write("a", "a long first line\n");
        let mut follower = logs.follow(Filter::default(), 1).await;
        assert_eq!(next(&mut follower).await, "a a long first line");
        rotate_above(0, &logs.path("a"));
        logs.write("a", "second\n");
        assert_eq!(next(&mut follower).await, "a second");
        assert_eq!(tail_of(&logs.path("a"), 5), ["a long first line", "second"]);
    }

    #[tokio::test]
    async fn a_long_log_is_read_as_far_back_as_is_asked_for() {
        let logs = State::new();
        let text = "x".repeat(1 << 18);
        for number in 0..12 {
            logs.write("a", &format!("{number} {text}\n"));
        }
        let first = |found: &[String]| found.iter().map(|line| line.split(' ').next().unwrap()).collect::<String>();
        assert_eq!(first(&tail_of(&logs.path("a"), 2)), "1011");
        assert_eq!(first(&tail_of(&logs.path("a"), 9)), "34567891011");
        let grep = Filter { grep: Some("1 x".to_owned()), ..Filter::default() };
        assert_eq!(logs.tail(grep).await.len(), 2);
    }

    #[test]
    fn a_last_line_without_an_end_is_part_of_a_tail() {
        let logs = State::new();
        logs.write("a", "1\n2\ncut off");
        assert_eq!(tail_of(&logs.path("a"), 2), ["2", "cut off"]);
    }

    #[test]
    fn pruning_leaves_the_logs_of_running_tasks_and_of_those_that_ended_last() {
        let logs = State::new();
        for task in 0..20 {
            let file = File::create(logs.path(&format!("{task:02}"))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(task)).unwrap();
        }
        prune(&Dir::new(logs.0.path()).unwrap(), "quest", &["03"]);
        let left = files(&logs.0.path().join("logs/quest")).unwrap();
        let left: Vec<_> = left.iter().map(|(task, _)| task.as_str()).collect();
        assert_eq!(left, ["03", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19"]);
    }
}
