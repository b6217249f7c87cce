//! A command at a pseudo-terminal, and what its window shows.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use vt100::Parser;

/// Nothing that these tests wait for takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Columns and rows.
pub(crate) type Size = (u16, u16);

/// Of the smallest terminal that people use.
pub(crate) const SMALL: Size = (80, 24);
/// Of a large window.
pub(crate) const LARGE: Size = (200, 50);

/// A terminal, with the command that runs at it.
pub(crate) struct Terminal {
    child: Child,
    keyboard: File,
    window: Arc<(Mutex<Window>, Condvar)>,
    shown: String,
}

/// What has been written to a terminal.
struct Window {
    parser: Parser,
    written: Vec<u8>,
    is_closed: bool,
}

/// A command that has ended, and what it has left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// The lines of the window, without trailing spaces.
    pub(crate) lines: Vec<String>,
    /// Everything that was written, control sequences too.
    pub(crate) written: String,
    pub(crate) is_cursor_hidden: bool,
}

impl Terminal {
    /// Starts a command at a terminal of its own, which is its controlling terminal: Ctrl-C reaches it.
    pub(crate) fn start(command: &Command, (columns, rows): Size) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
        let screen = File::options().read(true).write(true).open(name).unwrap();
        tcsetwinsize(&keyboard, size(columns, rows)).unwrap();
        // The standard library cannot start a session.
        let mut at_terminal = Command::new("setsid");
        at_terminal.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        at_terminal.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => at_terminal.env(name, value),
                None => at_terminal.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            at_terminal.current_dir(folder);
        }
        at_terminal.stdin(screen.try_clone().unwrap()).stdout(screen.try_clone().unwrap()).stderr(Stdio::from(screen));
        let child = at_terminal.spawn().unwrap();
        let parser = Parser::new(cells(rows), cells(columns), 0);
        let window = Window { parser, written: Vec::new(), is_closed: false };
        let window = Arc::new((Mutex::new(window), Condvar::new()));
        let keyboard = File::from(keyboard);
        let reader = (keyboard.try_clone().unwrap(), Arc::clone(&window));
        thread::spawn(move || read(reader.0, &reader.1));
        Self { child, keyboard, window, shown: format!("{command:?}") }
    }

    /// Presses keys.
    pub(crate) fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Makes the window smaller or larger.
    pub(crate) fn resize(&self, (columns, rows): Size) {
        self.window.0.lock().unwrap().parser.screen_mut().set_size(cells(rows), cells(columns));
        tcsetwinsize(&self.keyboard, size(columns, rows)).unwrap();
    }

    /// Waits until the window shows this text; gives the line in which it is.
    pub(crate) fn until(&self, text: &str) -> String {
        let found = |window: &Window| lines(&window.parser).into_iter().find(|line| line.contains(text));
        self.wait(&format!("it shows `{text}`"), found)
    }

    /// Waits until a line of the window is as described.
    pub(crate) fn until_line(&self, description: &str, is_it: impl Fn(&str) -> bool) -> String {
        self.wait(description, |window| lines(&window.parser).into_iter().find(|line| is_it(line)))
    }

    fn wait<T>(&self, description: &str, look: impl Fn(&Window) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut window = self.window.0.lock().unwrap();
        loop {
            if let Some(found) = look(&window) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let is_over = window.is_closed || left.is_zero();
            assert!(!is_over, "{} until {description}:\n{}", self.shown, lines(&window.parser).join("\n"));
            window = self.window.1.wait_timeout(window, left).unwrap().0;
        }
    }

    /// Waits until the command has ended.
    pub(crate) fn ended(mut self) -> Ended {
        self.wait("it ends", |window| window.is_closed.then_some(()));
        let code = self.child.wait().unwrap().code();
        let window = self.window.0.lock().unwrap();
        Ended {
            code,
            lines: lines(&window.parser),
            written: String::from_utf8_lossy(&window.written).into_owned(),
            is_cursor_hidden: window.parser.screen().hide_cursor(),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Closing the terminal hangs up what runs at it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// The whole text of the window.
    pub(crate) fn text(&self) -> String {
        self.lines.join("\n")
    }
}

/// Reads what is written, until the last process has closed the terminal.
fn read(mut terminal: File, window: &(Mutex<Window>, Condvar)) {
    let mut buffer = [0; 4096];
    loop {
        // The end is an error on Linux.
        let length = terminal.read(&mut buffer).unwrap_or(0);
        let mut shown = window.0.lock().unwrap();
        shown.parser.process(&buffer[..length]);
        shown.written.extend_from_slice(&buffer[..length]);
        shown.is_closed = length == 0;
        window.1.notify_all();
        if length == 0 {
            return;
        }
    }
}

fn lines(parser: &Parser) -> Vec<String> {
    let screen = parser.screen();
    let mut lines: Vec<String> = screen.rows(0, screen.size().1.get()).map(|row| row.trim_end().to_owned()).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

fn cells(number: u16) -> NonZero<u16> {
    NonZero::new(number).unwrap()
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
