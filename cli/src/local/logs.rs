//! Logs of services and nodes: one file per task, bounded in size and number, read together.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::dir::Dir;

/// A file that has grown larger is moved aside, in the place of the one that was moved aside before.
const LARGEST: u64 = 10 << 20;

/// So many logs of tasks that have ended are kept per service.
const KEPT: usize = 10;

/// No more of the end of a file is read to find its last lines.
const LONGEST_TAIL: u64 = 1 << 20;

/// How often files are looked at.
const POLL: Duration = Duration::from_millis(100);

/// What a task wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which task.
    pub task: String,
    /// Without its end.
    pub text: String,
}

/// The last lines of all tasks of a service or node, the ended ones too, in the order of their timestamps.
pub fn tail(state_dir: &Path, name: &str, lines: usize) -> io::Result<Vec<Line>> {
    Follower::new(state_dir, name, lines).map(|follower| follower.unread.into())
}

/// Reads on as the tasks of a service or node write, those that start later too.
#[derive(Debug)]
pub struct Follower {
    dir: PathBuf,
    read: BTreeMap<String, Position>,
    unread: VecDeque<Line>,
}

#[derive(Debug, Default)]
struct Position {
    offset: u64,
    /// The beginning of a line whose end has not been written yet.
    begun: Vec<u8>,
}

impl Follower {
    /// Begins with the last lines that are there.
    pub fn new(state_dir: &Path, name: &str, lines: usize) -> io::Result<Self> {
        let dir = Dir::new(state_dir)?.logs(name);
        let (mut read, mut found) = (BTreeMap::new(), Vec::new());
        for (task, path) in files(&dir)? {
            let (position, texts) = last_lines(&path, lines)?;
            let mut time = String::new();
            for text in texts {
                time = timestamp(&text).unwrap_or(time);
                found.push((time.clone(), Line { task: task.clone(), text }));
            }
            read.insert(task, position);
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        let skipped = found.len().saturating_sub(lines);
        let unread = found.into_iter().skip(skipped).map(|(_, line)| line).collect();
        Ok(Self { dir, read, unread })
    }

    /// The next line. Waits until there is one; nothing is lost if the wait is given up.
    pub async fn next(&mut self) -> io::Result<Line> {
        loop {
            if let Some(line) = self.unread.pop_front() {
                return Ok(line);
            }
            for (task, path) in files(&self.dir)? {
                let position = self.read.entry(task.clone()).or_default();
                let texts = position.advance(&path)?;
                self.unread.extend(texts.into_iter().map(|text| Line { task: task.clone(), text }));
            }
            if self.unread.is_empty() {
                tokio::time::sleep(POLL).await;
            }
        }
    }
}

impl Position {
    fn advance(&mut self, path: &Path) -> io::Result<Vec<String>> {
        let Some(mut file) = open(path)? else {
            return Ok(Vec::new());
        };
        if file.metadata()?.len() < self.offset {
            // It was moved aside, and begins anew.
            *self = Self::default();
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let read = file.take(LONGEST_TAIL).read_to_end(&mut self.begun)?;
        self.offset += read as u64;
        Ok(self.complete_lines())
    }

    fn complete_lines(&mut self) -> Vec<String> {
        let end = self.begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let complete: Vec<u8> = self.begun.drain(..end).collect();
        String::from_utf8_lossy(&complete).lines().map(str::to_owned).collect()
    }
}

/// The last lines of what was written after the file had this length.
pub(super) fn tail_since(path: &Path, length: u64, lines: usize) -> Vec<String> {
    let mut position = Position { offset: length, begun: Vec::new() };
    let Ok(mut texts) = position.advance(path) else { return Vec::new() };
    let skipped = texts.len().saturating_sub(lines);
    texts.split_off(skipped)
}

/// The last lines of one file, and of the one that was moved aside if they are too few. A last line without an end counts.
pub(super) fn tail_of(path: &Path, lines: usize) -> Vec<String> {
    let Ok((position, mut texts)) = last_lines(path, lines) else {
        return Vec::new();
    };
    if !position.begun.is_empty() {
        texts.push(String::from_utf8_lossy(&position.begun).into_owned());
    }
    let skipped = texts.len().saturating_sub(lines);
    texts.split_off(skipped)
}

fn last_lines(path: &Path, lines: usize) -> io::Result<(Position, Vec<String>)> {
    let Some(mut file) = open(path)? else {
        return Ok((Position::default(), Vec::new()));
    };
    let length = file.metadata()?.len();
    let start = length.saturating_sub(LONGEST_TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut position = Position { offset: start, begun: Vec::new() };
    position.offset += file.take(LONGEST_TAIL).read_to_end(&mut position.begun)? as u64;
    let mut texts = position.complete_lines();
    if start > 0 && !texts.is_empty() {
        // Only the end of this one was read.
        texts.remove(0);
    }
    let aside = aside(path);
    if texts.len() < lines && path != aside && aside.exists() {
        let (_, mut earlier) = last_lines(&aside, lines - texts.len())?;
        earlier.append(&mut texts);
        texts = earlier;
    }
    let skipped = texts.len().saturating_sub(lines);
    Ok((position, texts.split_off(skipped)))
}

/// Moves a log aside that has grown too large. Its writer goes on at the beginning, because it appends; what it writes in this very moment
/// may be lost.
pub(super) fn rotate(path: &Path) {
    rotate_above(LARGEST, path);
}

fn rotate_above(largest: u64, path: &Path) {
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() > largest) {
        let moved = fs::copy(path, aside(path)).and_then(|_| File::options().write(true).open(path)?.set_len(0));
        if let Err(error) = moved {
            tracing::warn!(path = %path.display(), %error, "log not rotated");
        }
    }
}

/// Removes the oldest logs of tasks that do not run any more.
pub(super) fn prune(dir: &Dir, name: &str, live: &[&str]) {
    let Ok(files) = files(&dir.logs(name)) else { return };
    let ended: Vec<_> = files.into_iter().filter(|(task, _)| !live.contains(&task.as_str())).collect();
    let surplus = ended.len().saturating_sub(KEPT);
    for (_, path) in ended.into_iter().take(surplus) {
        let _ = fs::remove_file(aside(&path));
        let _ = fs::remove_file(path);
    }
}

/// Tasks and their files, the one that was written to last at the end.
fn files(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
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
        // It was pruned just now.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn aside(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// Of a line of JSON. Others belong to the line before them.
fn timestamp(line: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Stamped {
        timestamp: String,
    }
    serde_json::from_str::<Stamped>(line).ok().map(|stamped| stamped.timestamp)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    struct Logs(tempfile::TempDir);

    impl Logs {
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

        fn follow(&self, lines: usize) -> Follower {
            Follower::new(self.0.path(), "quest", lines).unwrap()
        }
    }

    fn shown(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| format!("{} {}", line.task, line.text)).collect()
    }

    async fn next(follower: &mut Follower) -> String {
        let line = tokio::time::timeout(Duration::from_secs(5), follower.next()).await.expect("a line").unwrap();
        format!("{} {}", line.task, line.text)
    }

    #[test]
    fn lines_of_several_tasks_are_ordered_by_their_time() {
        let logs = Logs::new();
        logs.write("a", "{\"timestamp\":\"1\"}\npanic\n{\"timestamp\":\"4\"}\n");
        logs.write("b", "{\"timestamp\":\"2\"}\n{\"timestamp\":\"3\"}\n");
        let expected = ["a panic", "b {\"timestamp\":\"2\"}", "b {\"timestamp\":\"3\"}", "a {\"timestamp\":\"4\"}"];
        assert_eq!(shown(&tail(logs.0.path(), "quest", 4).unwrap()), expected);
    }

    #[test]
    fn a_service_without_logs_has_no_lines() {
        let logs = Logs::new();
        assert_eq!(tail(logs.0.path(), "nobody", 4).unwrap(), []);
    }

    #[tokio::test]
    async fn following_goes_on_where_the_tail_ends() {
        let logs = Logs::new();
        logs.write("a", "1\n2\nha");
        let mut follower = logs.follow(1);
        assert_eq!(next(&mut follower).await, "a 2");
        logs.write("a", "lf\n");
        assert_eq!(next(&mut follower).await, "a half");
        logs.write("b", "new\n");
        assert_eq!(next(&mut follower).await, "b new");
    }

    #[tokio::test]
    async fn following_survives_rotation() {
        let logs = Logs::new();
        logs.write("a", "a long first line\n");
        let mut follower = logs.follow(1);
        assert_eq!(next(&mut follower).await, "a a long first line");
        rotate_above(0, &logs.path("a"));
        logs.write("a", "second\n");
        assert_eq!(next(&mut follower).await, "a second");
        assert_eq!(tail_of(&logs.path("a"), 5), ["a long first line", "second"]);
    }

    #[test]
    fn a_last_line_without_an_end_counts_for_an_explanation() {
        let logs = Logs::new();
        logs.write("a", "1\n2\nlast words");
        assert_eq!(tail_of(&logs.path("a"), 2), ["2", "last words"]);
    }

    #[test]
    fn logs_of_the_living_and_of_the_last_dead_are_kept() {
        let logs = Logs::new();
        for task in 0..20 {
            let file = File::create(logs.path(&format!("{task:02}"))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(task)).unwrap();
        }
        prune(&Dir::new(logs.0.path()).unwrap(), "quest", &["03"]);
        let kept = files(&logs.0.path().join("logs/quest")).unwrap();
        let kept: Vec<_> = kept.iter().map(|(task, _)| task.as_str()).collect();
        assert_eq!(kept, ["03", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19"]);
    }
}
