//! Text that must fit a terminal: its size, and the columns that text takes there.

use std::borrow::Cow;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::termios::tcgetwinsize;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Columns and rows of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

/// Of a terminal that does not say how large it is.
const USUAL: Size = Size { columns: 80, rows: 24 };

/// The size of the terminal that a stream goes to.
pub(crate) fn size(stream: &impl AsFd) -> Size {
    match tcgetwinsize(stream) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
        }
        _ => USUAL,
    }
}

/// Whether what is on a stream can be replaced in place: it is a terminal, and no dumb one.
pub(crate) fn can_redraw(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// The columns that a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// The text, followed by as many spaces as it takes to be so wide.
pub(crate) fn pad(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// The beginning of a text, as much as these columns have place for; `…` shows that it goes on.
pub(crate) fn cut(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    let mut cut = String::new();
    let mut taken = 1;
    for letter in text.chars() {
        taken += letter.width().unwrap_or_default();
        if taken > columns {
            break;
        }
        cut.push(letter);
    }
    Cow::Owned(cut + "…")
}

/// A duration as people say it: `0.3 s`, `42 s`, `3 min 5 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_by_the_columns_that_it_takes() {
        assert_eq!(cut("quest-system", 12), "quest-system");
        assert_eq!(cut("quest-system", 6), "quest…");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
    }

    #[test]
    fn durations_are_as_people_say_them() {
        let texts = [0.31, 42.9, 185.0].map(|seconds_| seconds(Duration::from_secs_f64(seconds_)));
        assert_eq!(texts, ["0.3 s", "42 s", "3 min 5 s"]);
    }
}
