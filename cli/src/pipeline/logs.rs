//! Showing logs, and following them: the same for every platform.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::log::{Filter, Line, last};

/// The logs of some tasks. A platform only reads them: which lines are shown, and when, is decided by the [`Follower`].
pub trait Logs {
    /// Lines that have been written so far: at least the newest `lines` of those that the filter keeps, if there are so many. Lines of
    /// the same task are in the order in which they were written.
    fn tail(&mut self, filter: &Filter, lines: usize) -> impl Future<Output = anyhow::Result<Vec<Line>>>;

    /// Lines that no call has returned yet, in the order in which they are shown. Cancel safe: no line is lost when the future is dropped.
    fn read_new(&mut self) -> impl Future<Output = anyhow::Result<Vec<Line>>>;

    /// How long to wait before new lines are read.
    fn poll_interval(&self) -> Duration;
}

/// What is shown of the logs.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub filter: Filter,
    /// How many of the lines that have been written already.
    pub lines: usize,
    /// Whether new lines are shown as they are written.
    pub follow: bool,
}

/// Hands each line to `print` as soon as it is read. Following has no end: the caller drops the future.
pub(crate) async fn show(
    logs: impl Logs,
    query: Query,
    mut print: impl FnMut(&Line) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut follower = Follower::new(logs, query.filter, query.lines).await?;
    if query.follow {
        loop {
            print(&follower.next().await?)?;
        }
    }
    follower.unread.iter().try_for_each(print)
}

/// Reads the last lines of logs, and then those that are added.
#[derive(Debug)]
pub struct Follower<L> {
    logs: L,
    filter: Filter,
    unread: VecDeque<Line>,
}

impl<L: Logs> Follower<L> {
    /// Starts with the last `lines` that have been written and pass the filter, in the order of their timestamps.
    pub async fn new(mut logs: L, filter: Filter, lines: usize) -> anyhow::Result<Self> {
        let mut found = logs.tail(&filter, lines).await?;
        found.retain(|line| filter.keeps(line));
        // The sort is stable, so lines of the same time stay in their order.
        found.sort_by_key(|line| line.time);
        Ok(Self { logs, filter, unread: last(found, lines).into() })
    }

    /// The next line. Waits until there is one. Cancel safe: no line is lost when the future is dropped.
    pub async fn next(&mut self) -> anyhow::Result<Line> {
        loop {
            if let Some(line) = self.unread.pop_front() {
                return Ok(line);
            }
            tokio::time::sleep(self.logs.poll_interval()).await;
            let new = self.logs.read_new().await?;
            self.unread.extend(new.into_iter().filter(|line| self.filter.keeps(line)));
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    /// Logs whose lines are `<second> <text>`: first the tail, then what each later read returns, and then a failure.
    struct Script(VecDeque<&'static [&'static str]>);

    impl Script {
        fn read(&mut self) -> anyhow::Result<Vec<Line>> {
            let Some(lines) = self.0.pop_front() else { bail!("the end") };
            Ok(lines.iter().map(|text| line(text)).collect())
        }
    }

    impl Logs for Script {
        async fn tail(&mut self, _: &Filter, _: usize) -> anyhow::Result<Vec<Line>> {
            self.read()
        }

        async fn read_new(&mut self) -> anyhow::Result<Vec<Line>> {
            self.read()
        }

        fn poll_interval(&self) -> Duration {
            Duration::ZERO
        }
    }

    fn line(text: &str) -> Line {
        let (second, text) = text.split_once(' ').unwrap();
        let time = format!("2026-11-21T06:41:{second}Z").parse().unwrap();
        Line { service: "quest".to_owned(), task: "a".to_owned(), time: Some(time), text: text.to_owned() }
    }

    /// The lines that are shown, and how it ends.
    async fn shown(reads: &[&'static [&'static str]], query: Query) -> (Vec<String>, anyhow::Result<()>) {
        let mut shown = Vec::new();
        let script = Script(reads.iter().copied().collect());
        let ended = show(script, query, |line| {
            shown.push(line.text.clone());
            Ok(())
        });
        let ended = ended.await;
        (shown, ended)
    }

    fn query(lines: usize, follow: bool) -> Query {
        Query { filter: Filter::default(), lines, follow }
    }

    #[tokio::test]
    async fn the_last_lines_are_shown_in_the_order_of_their_times() {
        let (shown, ended) = shown(&[&["03 c", "01 a", "02 b", "02 b2"], &["04 d"]], query(3, false)).await;
        ended.unwrap();
        assert_eq!(shown, ["b", "b2", "c"]);
    }

    #[tokio::test]
    async fn new_lines_follow_the_last_ones_until_reading_fails() {
        let (shown, ended) = shown(&[&["01 a", "02 b"], &[], &["04 d", "03 late"], &["05 e"]], query(1, true)).await;
        assert_eq!(ended.unwrap_err().to_string(), "the end");
        assert_eq!(shown, ["b", "d", "late", "e"]);
    }

    #[tokio::test]
    async fn the_last_lines_and_new_ones_are_filtered() {
        let grep = Filter { grep: Some("error".to_owned()), ..Filter::default() };
        let reads: [&[&str]; 2] = [&["01 error 1", "02 fine"], &["03 fine", "04 error 2"]];
        let (shown, _) = shown(&reads, Query { filter: grep, lines: 1, follow: true }).await;
        assert_eq!(shown, ["error 1", "error 2"]);
    }

    #[tokio::test]
    async fn a_line_that_cannot_be_printed_ends_following() {
        let script = Script([&["01 a"][..], &["02 b"]].into());
        let ended = show(script, query(1, true), |line| bail!("no room for {}", line.text)).await;
        assert_eq!(ended.unwrap_err().to_string(), "no room for a");
    }
}
