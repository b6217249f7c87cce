//! Text that a terminal shows and does not obey.
//!
//! Names, error texts and log lines come from manifests, servers and services. A control character among them could move the
//! cursor, change the window's title, hide a line or reorder it, so everything that is printed goes through [`Printable`].

use std::borrow::Cow;
use std::fmt;

/// Text in which control characters are written as `\u001b`, which reads the same in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Printable<'a>(Cow<'a, str>);

/// What happens to the colours (SGR sequences, `ESC [ … m`) that are in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colours {
    /// They stay, and end with the line.
    Keep,
    /// They are left out.
    Drop,
}

/// A colour of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    /// What matters less.
    Dim,
    Red,
    Yellow,
    Green,
    Blue,
}

impl Paint {
    fn sequence(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Dim => Some("\x1b[2m"),
            Self::Red => Some("\x1b[31m"),
            Self::Yellow => Some("\x1b[33m"),
            Self::Green => Some("\x1b[32m"),
            Self::Blue => Some("\x1b[34m"),
        }
    }
}

impl<'a> Printable<'a> {
    /// For people and, as JSON, for programs: control characters other than the end of a line and the tabulator are escaped.
    pub(super) fn new(text: &'a str) -> Self {
        if !text.contains(is_control) {
            return Self(Cow::Borrowed(text));
        }
        let mut escaped = String::with_capacity(text.len() + 16);
        text.chars().for_each(|letter| push(&mut escaped, letter));
        Self(Cow::Owned(escaped))
    }

    /// For text that may be coloured, as that of a log or of clap: the same, but for the colours.
    pub(super) fn log(text: &'a str, colours: Colours) -> Self {
        if !text.contains(is_control) {
            return Self(Cow::Borrowed(text));
        }
        let mut escaped = String::with_capacity(text.len() + 16);
        let mut rest = text;
        let mut is_coloured = false;
        while let Some(letter) = rest.chars().next() {
            let length = match colour(rest) {
                Some(length) => {
                    if colours == Colours::Keep {
                        is_coloured = true;
                        escaped.push_str(&rest[..length]);
                    }
                    length
                }
                None => {
                    push(&mut escaped, letter);
                    letter.len_utf8()
                }
            };
            rest = &rest[length..];
        }
        if is_coloured {
            escaped.push_str(RESET);
        }
        Self(Cow::Owned(escaped))
    }

    /// Parts of one line, each in a colour of ours, with what may be coloured in them as in [`Self::log`].
    pub(super) fn painted<'b>(
        parts: impl IntoIterator<Item = (Paint, &'b str)>,
        colours: Colours,
    ) -> Printable<'static> {
        let mut line = String::new();
        for (paint, part) in parts {
            let part = Printable::log(part, colours);
            match paint.sequence().filter(|_| colours == Colours::Keep && !part.0.is_empty()) {
                Some(sequence) => line.extend([sequence, part.as_str(), RESET]),
                None => line.push_str(part.as_str()),
            }
        }
        Printable(Cow::Owned(line))
    }

    /// Text that is no terminal's: the reader gets what was written.
    pub(super) fn verbatim(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// Colours the lines by their first sign: `+`, `~`, `>`, `-`.
    pub(super) fn diff(self) -> Printable<'static> {
        let line = |line: &str| match line.chars().next() {
            _ if line.trim_start().starts_with("! ") => format!("\x1b[31m{line}{RESET}"),
            Some('+') => format!("\x1b[32m{line}{RESET}"),
            Some('~' | '>' | '?') => format!("\x1b[33m{line}{RESET}"),
            Some('-' | '!') => format!("\x1b[31m{line}{RESET}"),
            _ => line.to_owned(),
        };
        Printable(Cow::Owned(self.0.lines().map(line).collect::<Vec<_>>().join("\n")))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Ends all colours.
const RESET: &str = "\x1b[0m";

fn push(text: &mut String, letter: char) {
    if is_control(letter) {
        text.push_str(&format!("\\u{:04x}", u32::from(letter)));
    } else {
        text.push(letter);
    }
}

/// Whether a terminal may obey this character: C0 but for the end of a line and the tabulator, DEL, C1, and what changes the direction of
/// text or ends a line in Unicode.
fn is_control(letter: char) -> bool {
    match letter {
        '\n' | '\t' => false,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        letter => letter.is_control(),
    }
}

/// The length of the colour sequence that a text begins with.
fn colour(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    let end = parameters.find(|letter: char| !letter.is_ascii_digit() && letter != ';' && letter != ':')?;
    parameters[end..].starts_with('m').then_some("\x1b[".len() + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(Printable::new(text).as_str(), expected);
    }

    #[track_caller]
    fn check_log(text: &str, kept: &str, dropped: &str) {
        assert_eq!(Printable::log(text, Colours::Keep).as_str(), kept);
        assert_eq!(Printable::log(text, Colours::Drop).as_str(), dropped);
    }

    #[test]
    fn control_characters_are_written_out() {
        check("key \x1b[2J\x1b]0;title\x07", r"key \u001b[2J\u001b]0;title\u0007");
        check("healthy\r\x08\x7f\0", r"healthy\u000d\u0008\u007f\u0000");
        check("\u{9b}2J", r"\u009b2J");
    }

    #[test]
    fn characters_that_reorder_or_break_a_line_are_written_out() {
        check("a\u{202e}b\u{2066}c\u{200f}\u{61c}", r"a\u202eb\u2066c\u200f\u061c");
        check("one\u{2028}two", r"one\u2028two");
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for text in ["", "two\nlines\tand a tab", "prêt ✓ 日本 👩\u{200d}🚀", r"C:\u001b"] {
            check(text, text);
            check_log(text, text, text);
        }
    }

    #[test]
    fn escaped_json_is_the_same_json() {
        let value = serde_json::json!({ "\u{9b}key": "\x1b[2J\u{202e}\x7f" });
        let text = format!("{value:#}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(Printable::new(&text).as_str()).unwrap(), value);
        assert!(!Printable::new(&text).as_str().contains(is_control));
    }

    #[test]
    fn colours_of_a_log_line_stay_and_end_with_it() {
        check_log("\x1b[1;31merror\x1b[0m: x", "\x1b[1;31merror\x1b[0m: x\x1b[0m", "error: x");
        check_log("\x1b[38:2:1:2:3mx", "\x1b[38:2:1:2:3mx\x1b[0m", "x");
    }

    #[test]
    fn other_sequences_of_a_log_line_are_written_out() {
        for text in ["\x1b[2J", "\x1b[31", "\x1b[?25l", "\x1b]8;;x\x07", "\x1bc", "\x1b[3\x1b[A"] {
            let escaped = text.replace('\x1b', r"\u001b").replace('\x07', r"\u0007");
            check_log(text, &escaped, &escaped);
        }
    }

    #[test]
    fn only_our_own_colours_are_in_a_diff() {
        let text = Printable::new("+ create \x1b[8mx\n  same").diff();
        assert_eq!(text.as_str(), "\x1b[32m+ create \\u001b[8mx\x1b[0m\n  same");
    }
}
