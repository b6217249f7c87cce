//! Deployments, as those who wait for them see them.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::e2e::fleet::Fleet;
use crate::terminal::pty::{Ended, LARGE, SMALL, Size, Terminal};

/// A deployment of all services, with the binaries as they were when the test began.
fn deploy(fleet: &Fleet, size: Size) -> Terminal {
    let binaries = fleet.path("bin").display().to_string();
    Terminal::start(&fleet.command(&["deploy", "--all", "--binaries", &binaries]), size)
}

/// A service whose task never becomes ready.
fn deploy_hanging(fleet: &Fleet, size: Size) -> Terminal {
    let binaries = fleet.binaries_with("quest-system", "exec sleep 600");
    Terminal::start(&fleet.command(&["deploy", "quest-system", "--binaries", &binaries]), size)
}

#[track_caller]
fn is_tidy(ended: &Ended, (columns, _): Size) {
    let of_progress = |line: &&String| line.starts_with(['|', '/', '\\']) || line.starts_with("- ");
    assert_eq!(ended.lines.iter().find(of_progress), None, "a line of progress was left:\n{}", ended.text());
    assert!(!ended.is_cursor_hidden, "the cursor is hidden:\n{}", ended.text());
    let longest = ended.lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    assert!(longest <= usize::from(columns), "{}", ended.text());
}

#[tokio::test]
async fn a_deployment_leaves_whole_lines_in_windows_of_all_sizes() {
    let fleet = Fleet::new(1);
    for (size, done) in [(SMALL, "deployed in "), (LARGE, "nothing had to be done (")] {
        let ended = deploy(&fleet, size).ended();
        assert_eq!(ended.code, Some(0), "{}", ended.text());
        is_tidy(&ended, size);
        let last = ended.lines.last().unwrap();
        assert!(last.starts_with(done), "{}", ended.text());
    }
    fleet.is_healthy().await;
}

#[tokio::test]
async fn a_rollout_says_who_serves_how_long_it_may_take_and_what_it_waits_for() {
    let fleet = Fleet::deployed(1).await;
    let terminal = deploy_hanging(&fleet, LARGE);
    let is_rollout = |line: &str| line.contains("quest-system  r2  new 0/2  old 2/2 serving");
    let line = terminal.until_line("a line shows the rollout", is_rollout);
    assert!(line.contains("/120 s"), "{line}");
    let line = terminal.until_line("it says why", |line| is_rollout(line) && line.contains("/readyz"));
    let begun = Instant::now();
    // Its clock moves, so it is seen to be alive.
    terminal.until_line("it is redrawn", |other| is_rollout(other) && other != line);
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_restart_tells_old_tasks_from_new_ones_of_the_same_revision() {
    let fleet = Fleet::deployed(1).await;
    let run = fleet.run(&["restart", "quest-system"]).await.ends(0);
    assert!(run.err.contains("quest-system  r1  new 0/2  old 2/2 serving"), "{}", run.err);
    assert!(run.err.contains("quest-system  r1  new 2/2  "), "{}", run.err);
}

#[tokio::test]
async fn a_line_is_cut_where_the_window_is_made_smaller() {
    let fleet = Fleet::deployed(1).await;
    let terminal = deploy_hanging(&fleet, SMALL);
    terminal.until("quest-system  r2  new 0/2  old 2/2 serving");
    terminal.resize((40, 10));
    let line = terminal.until_line("a cut line", |line| line.contains("quest-system") && line.ends_with('…'));
    assert!(line.chars().count() < 40, "{line}");
}

#[tokio::test]
async fn ctrl_c_leaves_a_tidy_window_and_what_was_begun_goes_on() {
    let fleet = Fleet::deployed(1).await;
    let mut terminal = deploy_hanging(&fleet, SMALL);
    terminal.until("quest-system  r2  new 0/2");
    terminal.types("\x03");
    let ended = terminal.ended();
    assert_eq!(ended.code, Some(130), "{}", ended.text());
    is_tidy(&ended, SMALL);
    assert!(ended.text().contains("interrupted; started steps continue"), "{}", ended.text());
    // Closing the terminal ends nothing that was started at it.
    assert_eq!(fleet.service("quest-system").await.revision, 2);
}

#[tokio::test]
async fn a_terminal_that_cannot_redraw_gets_lines() {
    let fleet = Fleet::new(1);
    let binaries = fleet.path("bin").display().to_string();
    let mut command = fleet.command(&["deploy", "--all", "--binaries", &binaries]);
    command.env("TERM", "dumb").env("NO_COLOR", "1");
    let ended = Terminal::start(&command, (200, 200)).ended();
    assert_eq!(ended.code, Some(0), "{}", ended.text());
    assert!(!ended.written.contains('\x1b'), "{:?}", ended.written);
    assert!(ended.text().contains("quest-system  r1  new 2/2"), "{}", ended.text());
}

#[tokio::test]
async fn what_is_read_later_has_times_and_no_control_sequences() {
    let fleet = Fleet::new(1);
    let run = fleet.deploy(&["--all"]).await.ends(0);
    assert!(!run.err.contains('\x1b'), "{}", run.err);
    for line in run.err.lines() {
        let (time, _) = line.split_once(' ').unwrap_or_default();
        assert!(time.len() == 9 && time.ends_with('Z') && time.matches(':').count() == 2, "{line}");
    }
    assert!(run.err.contains(" quest-system  r1  new 2/2  "), "{}", run.err);
}

#[tokio::test]
async fn a_reader_that_has_read_enough_does_not_end_a_deployment() {
    let fleet = Fleet::new(1);
    let binaries = fleet.path("bin").display().to_string();
    let mut command = fleet.command(&["deploy", "--all", "--binaries", &binaries]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Both ends are closed before anything is written.
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    fleet.is_healthy().await;
}
