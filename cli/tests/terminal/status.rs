//! What an on-call engineer looks at.

use rustix::process::Signal;

use crate::e2e::fleet::{Fleet, signal};
use crate::terminal::pty::{LARGE, SMALL, Terminal};

const CTRL_C: &str = "\x03";
const HEALTHY: &str = "environment test: healthy";

#[tokio::test]
async fn a_watched_status_stays_in_place_fits_the_window_and_survives_errors() {
    let fleet = Fleet::deployed(1).await;
    let mut terminal = Terminal::start(&fleet.command(&["status", "--watch"]), SMALL);
    terminal.until("state-manager");
    terminal.resize((50, 12));
    terminal.until("… 5 more healthy");
    terminal.until("nats: 1 node healthy, quorum: yes");
    terminal.until_line("the verdict is in sight", |line| line == HEALTHY);

    let supervisor = fleet.description().await.supervisor.unwrap().pid;
    signal(supervisor, Signal::STOP);
    terminal.until("environment test: UNKNOWN: the supervisor");
    signal(supervisor, Signal::CONT);
    terminal.until("… 5 more healthy");

    terminal.types(CTRL_C);
    let ended = terminal.ended();
    assert_eq!((ended.code, ended.is_cursor_hidden), (Some(130), false), "{}", ended.text());
    assert_eq!(ended.lines[0], HEALTHY, "{}", ended.text());
    assert_eq!(ended.written.matches("\x1b[2J").count(), 1, "it is cleared once");
}

#[tokio::test]
async fn levels_of_a_log_are_coloured_and_following_ends_without_a_word() {
    let fleet = Fleet::deployed(1).await;
    let mut terminal = Terminal::start(&fleet.command(&["logs", "quest-system", "--level", "info", "-f"]), LARGE);
    terminal.until("INFO  quest-system/");
    terminal.types(CTRL_C);
    let ended = terminal.ended();
    assert_eq!(ended.code, Some(130), "{}", ended.text());
    assert!(ended.written.contains("\x1b[32mINFO\x1b[0m"), "{:?}", ended.written);
    assert!(!ended.text().contains("interrupted"), "{}", ended.text());
}
