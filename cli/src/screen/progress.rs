//! What moves while a command waits: each activity has a line on a terminal, redrawn in place until it ends; elsewhere it is printed when
//! it changes, and every ten seconds while it does not, as the logs of a CI pipeline need it.
//!
//! What is printed meanwhile comes above these lines: everything that prints does so inside [`above`].

use std::collections::BTreeMap;
use std::io;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::layout::{self, Size};
use super::live::Drawing;

/// How often the lines are redrawn.
const REDRAW: Duration = Duration::from_millis(100);
/// What takes less is not worth a line.
const SHORT: Duration = Duration::from_millis(300);
/// How often an activity is named again, where nothing can be redrawn.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
/// More lines would push everything else off a small screen.
const MOST_LINES: usize = 10;
/// Any terminal and any font has these.
const SPINNER: [char; 4] = ['|', '/', '-', '\\'];

/// Something that takes a while, from its start until it is dropped.
#[derive(Debug)]
pub(crate) struct Activity {
    id: u64,
}

impl Activity {
    /// `name` says what is done, or what it is done to.
    pub(crate) fn start(name: impl Into<String>) -> Self {
        let mut shown = shown();
        if !shown.is_drawn {
            shown.is_drawn = true;
            thread::spawn(redraw);
        }
        Self { id: shown.activities.start(name.into(), Instant::now()) }
    }

    /// Shows how long it may take.
    #[must_use]
    pub(crate) fn within(self, limit: Duration) -> Self {
        if let Some(line) = shown().activities.lines.get_mut(&self.id) {
            line.limit = Some(limit);
        }
        self
    }

    /// Names it anew.
    pub(crate) fn is_called(&self, name: String) {
        if let Some(line) = shown().activities.lines.get_mut(&self.id) {
            line.name = name;
        }
    }

    /// How far it is, and what it waits for, if that is known.
    pub(crate) fn is_at(&self, state: impl Into<String>, waits_for: Option<String>) {
        let mut shown = shown();
        let is_live = shown.bar.is_some();
        let news = shown.activities.change(self.id, state.into(), waits_for, Instant::now());
        drop(shown);
        if let Some(news) = news.filter(|_| !is_live) {
            super::note(&news);
        }
    }

    /// What it waits for, which may change often: it is printed with the next sign of life where nothing can be redrawn.
    pub(crate) fn waits_for(&self, what: String) {
        if let Some(line) = shown().activities.lines.get_mut(&self.id) {
            line.waits_for = Some(what);
        }
    }

    /// Ends it, with a line that stays: what became of it, and how long it took.
    pub(crate) fn end(self, verdict: &str) {
        let line = shown().activities.lines.get(&self.id).map(|line| line.ended(verdict, Instant::now()));
        drop(self);
        if let Some(line) = line {
            super::note(&line);
        }
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        let mut shown = shown();
        shown.activities.lines.remove(&self.id);
        if shown.activities.lines.is_empty()
            && let Some(bar) = &shown.bar
        {
            bar.finish_and_clear();
        }
    }
}

/// Does something, with a line while it takes long.
pub(crate) fn during<T>(name: &str, work: impl Future<Output = T>) -> impl Future<Output = T> {
    // What is done is mostly a whole command: on the heap, since the stack of a debug build would not have place for it.
    let work = Box::pin(work);
    async move {
        let _activity = Activity::start(name);
        work.await
    }
}

/// Prints something while no line of an activity is in its way.
pub(super) fn above<T>(print: impl FnOnce() -> T) -> T {
    let bar = shown().bar.clone();
    match bar {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

/// What is drawn, and where.
struct Shown {
    activities: Activities,
    /// All lines, one below the other; `None` where nothing can be redrawn.
    bar: Option<ProgressBar>,
    /// Whether a thread redraws.
    is_drawn: bool,
}

static SHOWN: LazyLock<Mutex<Shown>> = LazyLock::new(|| {
    let bar = layout::can_redraw(&io::stderr()).then(|| {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::term_like(Box::new(Drawing::default())));
        bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar
    });
    Mutex::new(Shown { activities: Activities::default(), bar, is_drawn: false })
});

fn shown() -> MutexGuard<'static, Shown> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Redraws until the process ends. A thread, because a command may compute or copy for long.
fn redraw() {
    loop {
        thread::park_timeout(REDRAW);
        let mut shown = shown();
        let now = Instant::now();
        let Some(bar) = shown.bar.clone() else {
            let signs = shown.activities.signs_of_life(now);
            drop(shown);
            signs.iter().for_each(|sign| super::note(sign));
            continue;
        };
        let lines = shown.activities.lines(now, layout::size(&io::stderr()));
        if !lines.is_empty() {
            bar.reset();
            bar.set_message(lines.join("\n"));
            bar.tick();
        }
    }
}

/// All activities of the process, in the order of their starts.
#[derive(Default)]
struct Activities {
    lines: BTreeMap<u64, Line>,
    started: u64,
}

struct Line {
    name: String,
    state: String,
    waits_for: Option<String>,
    since: Instant,
    limit: Option<Duration>,
    /// When it was printed last, where nothing can be redrawn.
    printed: Instant,
}

impl Activities {
    fn start(&mut self, name: String, now: Instant) -> u64 {
        self.started += 1;
        let line = Line { name, state: String::new(), waits_for: None, since: now, limit: None, printed: now };
        self.lines.insert(self.started, line);
        self.started
    }

    /// What there is to say, if anything has changed.
    fn change(&mut self, id: u64, state: String, waits_for: Option<String>, now: Instant) -> Option<String> {
        let line = self.lines.get_mut(&id)?;
        if line.state == state && line.waits_for == waits_for {
            return None;
        }
        (line.state, line.waits_for, line.printed) = (state, waits_for, now);
        Some(line.text(0, now))
    }

    fn signs_of_life(&mut self, now: Instant) -> Vec<String> {
        let quiet = self.lines.values_mut().filter(|line| now.duration_since(line.printed) >= SIGN_OF_LIFE);
        let sign = |line: &mut Line| {
            line.printed = now;
            line.text(0, now)
        };
        quiet.map(sign).collect()
    }

    /// What is on a terminal of this size.
    fn lines(&self, now: Instant, size: Size) -> Vec<String> {
        let slow: Vec<&Line> = self.lines.values().filter(|line| now.duration_since(line.since) >= SHORT).collect();
        let most = MOST_LINES.min(size.rows.saturating_sub(2)).max(1);
        let (most, rest) = if slow.len() > most { (most - 1, slow.len() + 1 - most) } else { (slow.len(), 0) };
        let width = slow[..most].iter().map(|line| layout::width(&line.name)).max().unwrap_or_default();
        let draw = |line: &&Line| {
            let turn = now.duration_since(line.since).as_millis() / REDRAW.as_millis();
            let spinner = SPINNER[usize::try_from(turn).unwrap_or_default() % SPINNER.len()];
            // A line as wide as the terminal would break on some.
            layout::cut(&format!("{spinner} {}", line.text(width, now)), size.columns.saturating_sub(1)).into_owned()
        };
        let mut lines: Vec<String> = slow[..most].iter().map(draw).collect();
        if rest > 0 {
            lines.push(format!("  and {rest} more"));
        }
        lines
    }
}

impl Line {
    /// What it says; its name as wide as those of the others.
    fn text(&self, width: usize, now: Instant) -> String {
        let mut text = layout::pad(&self.name, width);
        if !self.state.is_empty() {
            text += &format!("  {}", self.state);
        }
        let seconds = now.duration_since(self.since).as_secs();
        text += &match self.limit {
            Some(limit) => format!("  {seconds}/{} s", limit.as_secs()),
            None => format!("  {seconds} s"),
        };
        if let Some(waits_for) = &self.waits_for {
            text += &format!("  {waits_for}");
        }
        // One line, whatever it is made of.
        super::printable(&text).replace(['\n', '\t'], " ")
    }

    fn ended(&self, verdict: &str, now: Instant) -> String {
        format!("{} {verdict} ({})", self.name, layout::seconds(now.duration_since(self.since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Size = Size { columns: 80, rows: 24 };

    fn rollout(now: Instant) -> (Activities, u64) {
        let mut activities = Activities::default();
        let id = activities.start("quest-system r2".to_owned(), now);
        activities.lines.get_mut(&id).unwrap().limit = Some(Duration::from_secs(30));
        let waits_for = Some("/readyz: no answer".to_owned());
        activities.change(id, "new 0/2  old 2/2 serving".to_owned(), waits_for, now);
        (activities, id)
    }

    #[test]
    fn a_line_says_who_serves_how_long_it_takes_and_why() {
        let now = Instant::now();
        let (mut activities, _) = rollout(now);
        activities.start("auth r1".to_owned(), now);
        let lines = activities.lines(now + Duration::from_secs(12), WIDE);
        assert_eq!(
            lines,
            ["| quest-system r2  new 0/2  old 2/2 serving  12/30 s  /readyz: no answer", "| auth r1          12 s"]
        );
    }

    #[test]
    fn a_line_is_no_wider_than_the_terminal() {
        let now = Instant::now();
        let lines = rollout(now).0.lines(now + Duration::from_secs(12), Size { columns: 40, rows: 24 });
        assert_eq!(lines, ["| quest-system r2  new 0/2  old 2/2 se…"]);
    }

    #[test]
    fn what_takes_no_time_has_no_line() {
        let now = Instant::now();
        assert_eq!(rollout(now).0.lines(now + SHORT / 2, WIDE), [""; 0]);
    }

    #[test]
    fn more_activities_than_lines_are_counted() {
        let now = Instant::now();
        let mut activities = Activities::default();
        for number in 0..9 {
            activities.start(format!("stream {number}"), now);
        }
        let lines = activities.lines(now + Duration::from_secs(1), Size { columns: 80, rows: 6 });
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[3], "  and 6 more");
    }

    #[test]
    fn where_nothing_is_redrawn_a_change_is_said_once_and_then_every_ten_seconds() {
        let now = Instant::now();
        let (mut activities, id) = rollout(now);
        let again =
            activities.change(id, "new 0/2  old 2/2 serving".to_owned(), Some("/readyz: no answer".to_owned()), now);
        assert_eq!(again, None);
        let news = activities.change(id, "new 1/2  old 1/2 serving".to_owned(), None, now + Duration::from_secs(4));
        assert_eq!(news.unwrap(), "quest-system r2  new 1/2  old 1/2 serving  4/30 s");
        assert_eq!(activities.signs_of_life(now + Duration::from_secs(13)), [""; 0]);
        let signs = activities.signs_of_life(now + Duration::from_secs(14));
        assert_eq!(signs, ["quest-system r2  new 1/2  old 1/2 serving  14/30 s"]);
        assert_eq!(activities.signs_of_life(now + Duration::from_secs(15)), [""; 0]);
    }

    #[test]
    fn a_control_sequence_in_a_reason_is_not_obeyed() {
        let now = Instant::now();
        let mut activities = Activities::default();
        let id = activities.start("x".to_owned(), now);
        let said = activities.change(id, String::new(), Some("\x1b[2J\nno".to_owned()), now).unwrap();
        assert_eq!(said, "x  0 s  \\u001b[2J no");
    }
}
