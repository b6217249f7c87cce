//! The terminal on standard error, as indicatif draws on it: what it draws at once is written at once.

use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use indicatif::TermLike;

use super::layout;

/// Standard error. indicatif leaves the cursor behind the last column, where the `^C` of a terminal would begin another line, and one of
/// indicatif's would be left; so each drawing ends with the cursor at the beginning of its line, before anything else can be written.
#[derive(Debug, Default)]
pub(super) struct Drawing {
    pending: Mutex<Vec<u8>>,
}

impl Drawing {
    fn add(&self, text: &str) -> io::Result<()> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn moves(&self, lines_or_columns: usize, direction: char) -> io::Result<()> {
        if lines_or_columns == 0 { Ok(()) } else { self.add(&format!("\x1b[{lines_or_columns}{direction}")) }
    }
}

impl TermLike for Drawing {
    fn width(&self) -> u16 {
        layout::size(&io::stderr()).columns.try_into().unwrap_or(u16::MAX)
    }

    fn height(&self) -> u16 {
        layout::size(&io::stderr()).rows.try_into().unwrap_or(u16::MAX)
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.moves(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.moves(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.moves(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.moves(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(text)?;
        self.add("\r\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let mut pending = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        if pending.is_empty() {
            return Ok(());
        }
        pending.push(b'\r');
        io::stderr().write_all(&pending)
    }
}
