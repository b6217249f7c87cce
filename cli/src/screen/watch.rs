//! A picture that is drawn again and again: in place on a terminal, one below the other elsewhere.

use std::io::{self, Write as _};

use jiff::Timestamp;

use super::layout::{self, Size};
use super::printable::Printable;
use super::{OutputError, write_line};

/// Where the pictures go, from the first until it is dropped.
#[derive(Debug)]
pub(crate) struct Canvas {
    is_live: bool,
    is_clear: bool,
}

impl Canvas {
    /// On standard output.
    pub(crate) fn new() -> Self {
        Self { is_live: layout::can_redraw(&io::stdout()), is_clear: false }
    }

    /// How large a picture may be; `None` if there is no limit.
    pub(crate) fn size(&self) -> Option<Size> {
        self.is_live.then(|| layout::size(&io::stdout()))
    }

    /// Replaces the picture before, line by line, so that nothing flickers. Where nothing can be replaced, it comes below, under the time.
    pub(crate) fn draw(&mut self, picture: &str) -> Result<(), OutputError> {
        if !self.is_live {
            let time = Timestamp::now();
            return write_line(&Printable::new(&format!("--- {time:.0}\n{picture}\n")));
        }
        let mut out = io::stdout().lock();
        out.write_all(frame(picture, self.is_clear, layout::size(&io::stdout())).as_bytes())?;
        self.is_clear = true;
        Ok(out.flush()?)
    }
}

impl Drop for Canvas {
    fn drop(&mut self) {
        if self.is_clear {
            // A terminal that is gone needs no cursor.
            let _ = io::stdout().lock().write_all(SHOW_CURSOR.as_bytes());
        }
    }
}

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
const CLEAR: &str = "\x1b[2J";
const HOME: &str = "\x1b[H";
const END_OF_LINE: &str = "\x1b[K\r\n";
const CLEAR_BELOW: &str = "\x1b[J";

/// What makes a terminal of this size show the picture. What was there before is cleared once; from then on only what is new is written.
fn frame(picture: &str, is_clear: bool, size: Size) -> String {
    let mut frame = if is_clear { HOME.to_owned() } else { format!("{HIDE_CURSOR}{CLEAR}{HOME}") };
    let printable = Printable::new(picture);
    // The cursor is in the line below the last one.
    for line in printable.as_str().lines().take(size.rows.saturating_sub(1)) {
        frame.extend([&*layout::cut(line, size.columns), END_OF_LINE]);
    }
    frame + CLEAR_BELOW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_replaces_the_one_before_and_fits_the_window() {
        let size = Size { columns: 5, rows: 3 };
        let first = frame("one\nfar too long\nleft out", false, size);
        assert_eq!(first, "\x1b[?25l\x1b[2J\x1b[Hone\x1b[K\r\nfar …\x1b[K\r\n\x1b[J");
        assert_eq!(frame("two", true, size), "\x1b[Htwo\x1b[K\r\n\x1b[J");
    }

    #[test]
    fn no_control_sequence_of_others_gets_to_the_terminal() {
        let size = Size { columns: 80, rows: 24 };
        assert_eq!(frame("a\x1b[2Jb", true, size), "\x1b[Ha\\u001b[2Jb\x1b[K\r\n\x1b[J");
    }
}
