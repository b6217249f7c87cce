//! A pull parser for JSON. Its errors have a position and say what was expected.

use std::borrow::Cow;

use super::InvalidBody;

/// The maximum nesting of objects and arrays.
const MAX_DEPTH: usize = 64;

/// A parser with its position in the text.
pub(super) struct Json<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

/// The kind of a value, by its first character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

impl Start {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Number => "a number",
            Self::True | Self::False => "a boolean",
            Self::Null => "null",
        }
    }
}

impl<'a> Json<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, InvalidBody> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self { text, at: 0, depth: 0 }),
            Err(error) => Err(InvalidBody::new(error.valid_up_to(), "text is not UTF-8")),
        }
    }

    /// Skips white space, and returns the position of the next value.
    pub(super) fn position(&mut self) -> usize {
        self.skip_space();
        self.at
    }

    /// The kind of the next value.
    pub(super) fn start(&mut self) -> Result<Start, InvalidBody> {
        match self.next() {
            Some(b'{') => Ok(Start::Object),
            Some(b'[') => Ok(Start::Array),
            Some(b'"') => Ok(Start::String),
            Some(b'-' | b'0'..=b'9') => Ok(Start::Number),
            Some(b't') => self.word("true").map(|()| Start::True),
            Some(b'f') => self.word("false").map(|()| Start::False),
            Some(b'n') => self.word("null").map(|()| Start::Null),
            _ => Err(self.unexpected("a value")),
        }
    }

    /// Reads the literal whose start [`Self::start`] returned.
    pub(super) fn take_word(&mut self, start: Start) {
        self.at += if start == Start::False { 5 } else { 4 };
    }

    /// Enters the next object or array.
    pub(super) fn enter(&mut self) -> Result<(), InvalidBody> {
        if self.depth == MAX_DEPTH {
            return Err(InvalidBody::new(self.at, format!("objects and arrays are nested deeper than {MAX_DEPTH}")));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// Advances to the next element of the current array. Returns `false` at its end.
    pub(super) fn element(&mut self, first: &mut bool) -> Result<bool, InvalidBody> {
        match self.next() {
            Some(b']') => self.leave(),
            Some(b',') if !*first => {
                self.at += 1;
                match self.next() {
                    Some(b']') => Err(self.unexpected("a value after `,`")),
                    _ => Ok(true),
                }
            }
            Some(_) if *first => {
                *first = false;
                Ok(true)
            }
            _ if *first => Err(self.unexpected("a value or `]`")),
            _ => Err(self.unexpected("`,` or `]`")),
        }
    }

    /// Reads the next key of the current object, with its colon. Returns `None` at the end of the object.
    pub(super) fn key(&mut self, first: &mut bool) -> Result<Option<(usize, Cow<'a, str>)>, InvalidBody> {
        match self.next() {
            Some(b'}') => return self.leave().map(|_| None),
            Some(b',') if !*first => self.at += 1,
            Some(b'"') if *first => *first = false,
            _ if *first => return Err(self.unexpected("a key in double quotes or `}`")),
            _ => return Err(self.unexpected("`,` or `}`")),
        }
        if self.next() != Some(b'"') {
            return Err(self.unexpected("a key in double quotes"));
        }
        let at = self.at;
        let key = self.string()?;
        if self.next() != Some(b':') {
            return Err(self.unexpected("`:`"));
        }
        self.at += 1;
        Ok(Some((at, key)))
    }

    /// Reads the next string.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, InvalidBody> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut at = start;
        loop {
            match bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(Cow::Borrowed(&self.text[start..at]));
                }
                Some(b'\\') => return self.escaped(start, at).map(Cow::Owned),
                Some(0..0x20) => return Err(InvalidBody::new(at, "control characters in a string must be escaped")),
                Some(_) => at += 1,
                None => return Err(InvalidBody::new(at, "text ends within a string")),
            }
        }
    }

    /// Reads the next number as text.
    pub(super) fn number(&mut self) -> Result<&'a str, InvalidBody> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        match self.peek() {
            Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'.' | b'_' | b'+' | b'-') => {
                Err(self.unexpected("the end of the number"))
            }
            _ => Ok(&self.text[start..self.at]),
        }
    }

    /// Checks that the text ends.
    pub(super) fn end(&mut self) -> Result<(), InvalidBody> {
        match self.next() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("the end of the text")),
        }
    }

    fn escaped(&mut self, start: usize, escape: usize) -> Result<String, InvalidBody> {
        let bytes = self.text.as_bytes();
        let mut out = String::with_capacity(escape - start + 16);
        let (mut plain, mut at) = (start, escape);
        loop {
            match bytes.get(at) {
                Some(b'"') => {
                    out.push_str(&self.text[plain..at]);
                    self.at = at + 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    out.push_str(&self.text[plain..at]);
                    let (character, length) = self.escape(at)?;
                    out.push(character);
                    at += length;
                    plain = at;
                }
                Some(0..0x20) => return Err(InvalidBody::new(at, "control characters in a string must be escaped")),
                Some(_) => at += 1,
                None => return Err(InvalidBody::new(at, "text ends within a string")),
            }
        }
    }

    /// The character of the escape sequence at `at`, and the length of the sequence.
    fn escape(&self, at: usize) -> Result<(char, usize), InvalidBody> {
        let unknown = || InvalidBody::new(at, "unknown escape in a string");
        let character = match self.text.as_bytes().get(at + 1).ok_or_else(unknown)? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(at),
            _ => return Err(unknown()),
        };
        Ok((character, 2))
    }

    fn unicode(&self, at: usize) -> Result<(char, usize), InvalidBody> {
        let unit = |at: usize| {
            let digits = self.text.as_bytes().get(at + 2..at + 6)?;
            let digits = std::str::from_utf8(digits).ok()?;
            let all = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            if all { u32::from_str_radix(digits, 16).ok() } else { None }
        };
        let unpaired = || InvalidBody::new(at, "half of a surrogate pair in a string");
        let first = unit(at).ok_or_else(|| InvalidBody::new(at, "`\\u` needs four hexadecimal digits"))?;
        if !(0xd800..0xe000).contains(&first) {
            return Ok((char::from_u32(first).ok_or_else(unpaired)?, 6));
        }
        if self.text.as_bytes().get(at + 6..at + 8) != Some(b"\\u") {
            return Err(unpaired());
        }
        let second = unit(at + 6).ok_or_else(unpaired)?;
        if first >= 0xdc00 || !(0xdc00..0xe000).contains(&second) {
            return Err(unpaired());
        }
        let both = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        Ok((char::from_u32(both).ok_or_else(unpaired)?, 12))
    }

    fn digits(&mut self) -> Result<(), InvalidBody> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start {
            return Err(self.unexpected("a digit"));
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<bool, InvalidBody> {
        self.depth -= 1;
        self.at += 1;
        Ok(false)
    }

    fn word(&self, word: &str) -> Result<(), InvalidBody> {
        let rest = &self.text.as_bytes()[self.at..];
        let longer = rest.get(word.len()).is_some_and(u8::is_ascii_alphanumeric);
        if rest.starts_with(word.as_bytes()) && !longer { Ok(()) } else { Err(self.unexpected("a value")) }
    }

    fn next(&mut self) -> Option<u8> {
        self.skip_space();
        self.peek()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn unexpected(&self, expected: &str) -> InvalidBody {
        let found = match self.text[self.at..].chars().next() {
            Some(character) => format!("found `{}`", character.escape_debug()),
            None => "the text ends".to_owned(),
        };
        InvalidBody::new(self.at, format!("expected {expected}, but {found}"))
    }
}
