//! YAML as a tree that knows where everything is written. The only module that names the YAML crate.
//!
//! Only what every reader of YAML understands in the same way is accepted: Terraform and other tools read the same
//! files, some by YAML 1.1 (`yes` is true, `010` is eight), some by 1.2.

use std::borrow::Cow;
use std::collections::{HashMap, hash_map};

use serde_yaml::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use crate::problem::{Place, Problem};

/// Where something starts, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) source: Source,
}

/// The file that something is written in: the later one says more about where a service runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// The file that the tree was read from.
    #[default]
    Own,
    /// The manifest of the environment.
    Environment,
}

impl Position {
    pub(super) fn new(line: usize, column: usize) -> Self {
        Self { line, column, source: Source::Own }
    }

    pub(super) fn in_source(self, source: Source) -> Self {
        Self { source, ..self }
    }
}

/// A value and where it is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) position: Position,
    pub(super) value: Value,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file, without duplicate keys.
    Map(Vec<Entry>),
    /// Not acceptable, and already reported.
    Refused,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) position: Position,
    pub(super) value: Node,
}

/// What is wrong with the text as YAML.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Flaw {
    pub(super) position: Position,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Flaw {
    /// As a problem of a file.
    pub(super) fn in_place(self, place: Place) -> Problem {
        let Position { line, column, .. } = self.position;
        Problem { file: place.file, line, column, message: self.message, hint: self.hint }
    }
}

impl Node {
    /// The value of a key of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        match &mut self.value {
            Value::Map(entries) => entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value),
            _ => None,
        }
    }

    /// What a path of keys leads to.
    pub(super) fn find(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The entries of a map; none of anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The texts of a list with their nodes; none of anything else.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &Node)> {
        let items = match &self.value {
            Value::List(items) => items.as_slice(),
            _ => &[],
        };
        items.iter().filter_map(|item| Some((item.text()?, item)))
    }

    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The whole number, if it is one that is not negative.
    pub(super) fn number(&self) -> Option<u64> {
        match self.value {
            Value::Integer(number) => u64::try_from(number).ok(),
            _ => None,
        }
    }

    /// Without positions.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null | Value::Refused => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Integer(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Text(value) => value.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.value.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

/// The tree, as far as there is one, and everything that is wrong with it.
pub(super) fn parse(text: &str) -> (Option<Node>, Vec<Flaw>) {
    // A parser may take it as the end of the text.
    if let Some(offset) = text.find('\0') {
        let (line, column) = crate::problem::position(text, offset);
        let message = "the file has a NUL character here".to_owned();
        let flaw = Flaw { position: Position::new(line, column), message, hint: Some("remove it".to_owned()) };
        return (None, vec![flaw]);
    }
    let mut reader = Reader { events: Parser::new_from_str(text), flaws: Vec::new() };
    let root = match reader.document() {
        Ok(root) => root,
        Err(error) => {
            let marker = error.marker();
            reader.flaws.push(Flaw {
                position: Position::new(marker.line().max(1), marker.col() + 1),
                message: format!("this is not YAML: {}", error.info()),
                hint: None,
            });
            None
        }
    };
    (root, reader.flaws)
}

struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    flaws: Vec<Flaw>,
}

impl<'a> Reader<'a> {
    /// The only document of the text.
    fn document(&mut self) -> Result<Option<Node>, ScanError> {
        let mut root = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) | Event::DocumentEnd => {}
                _ if root.is_some() => {
                    self.refuse(position(span), "a second document in the same file", "split the file");
                    return Ok(root);
                }
                event => root = Some(self.node(event, span)?),
            }
        }
        let empty = matches!(&root, None | Some(Node { value: Value::Null, .. }));
        if empty {
            self.flaws.push(Flaw {
                position: Position::new(1, 1),
                message: "the file is empty".to_owned(),
                hint: None,
            });
            return Ok(None);
        }
        Ok(root)
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, ScanError> {
        for event in self.events.by_ref() {
            match event? {
                (Event::Comment(..), _) => {}
                other => return Ok(Some(other)),
            }
        }
        Ok(None)
    }

    /// The node that begins with an event, read to its end.
    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Node, ScanError> {
        let position = position(span);
        let (anchored, tagged) = match &event {
            Event::Scalar(_, _, anchor, tag) => (*anchor > 0, tag.is_some()),
            Event::SequenceStart(_, anchor, tag) | Event::MappingStart(_, anchor, tag) => (*anchor > 0, tag.is_some()),
            _ => (false, false),
        };
        if anchored {
            self.refuse(position, "an anchor (`&`)", "write the value where it is needed");
        }
        if tagged {
            self.refuse(position, "a tag (`!`)", "remove it");
        }
        let value = match event {
            Event::Scalar(text, ScalarStyle::Plain, ..) => self.plain(text, position),
            Event::Scalar(text, ..) => Value::Text(text.into_owned()),
            Event::SequenceStart(..) => Value::List(self.list()?),
            Event::MappingStart(..) => Value::Map(self.map()?),
            Event::Alias(_) => {
                self.refuse(position, "an alias (`*`)", "write the value where it is needed");
                Value::Refused
            }
            _ => Value::Null,
        };
        Ok(Node { position, value })
    }

    fn list(&mut self) -> Result<Vec<Node>, ScanError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                None | Some((Event::SequenceEnd, _)) => return Ok(items),
                Some((event, span)) => items.push(self.node(event, span)?),
            }
        }
    }

    fn map(&mut self) -> Result<Vec<Entry>, ScanError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, span) = match self.next()? {
                None | Some((Event::MappingEnd, _)) => return Ok(entries),
                Some(next) => next,
            };
            let key = self.node(event, span)?;
            let Some((event, span)) = self.next()? else {
                return Ok(entries);
            };
            let mut value = self.node(event, span)?;
            if value.value == Value::Null {
                value.position = key.position; // Nothing is written where the value should be.
            }
            let Some(name) = self.key(&key) else {
                continue;
            };
            match lines.entry(name) {
                hash_map::Entry::Occupied(first) => self.flaws.push(Flaw {
                    position: key.position,
                    message: format!("duplicate key `{}`", first.key()),
                    hint: Some(format!("it is already in line {}", first.get())),
                }),
                hash_map::Entry::Vacant(place) => {
                    let name = place.key().clone();
                    place.insert(key.position.line);
                    entries.push(Entry { key: name, position: key.position, value });
                }
            }
        }
    }

    fn key(&mut self, key: &Node) -> Option<String> {
        match &key.value {
            Value::Text(text) => Some(text.clone()),
            Value::Refused => None,
            _ => {
                self.refuse(key.position, "a key that is no text", "quote it");
                None
            }
        }
    }

    /// What a scalar without quotes means, if all readers agree.
    fn plain(&mut self, text: Cow<'_, str>, position: Position) -> Value {
        let hint = match &*text {
            "" | "~" | "null" => return Value::Null,
            "true" => return Value::Bool(true),
            "false" => return Value::Bool(false),
            other if is_word_for_true(other) => format!("write `true`, or quote it: `\"{other}\"`"),
            other if is_word_for_false(other) => format!("write `false`, or quote it: `\"{other}\"`"),
            other if is_unclear_number(other) => {
                format!("write it as a plain decimal number, or quote it: `\"{other}\"`")
            }
            other if is_unclear_null(other) => format!("remove the key, or quote it: `\"{other}\"`"),
            other if is_number(other) => match (other.parse(), other.parse()) {
                (Ok(integer), _) => return Value::Integer(integer),
                (_, Ok(float)) => return Value::Float(float),
                _ => return Value::Text(text.into_owned()),
            },
            _ => return Value::Text(text.into_owned()),
        };
        self.flaws.push(Flaw {
            position,
            message: format!("`{text}` does not mean the same to every reader of YAML"),
            hint: Some(hint),
        });
        Value::Refused
    }

    fn refuse(&mut self, position: Position, what: &str, hint: &str) {
        self.flaws.push(Flaw { position, message: format!("{what} is not allowed here"), hint: Some(hint.to_owned()) });
    }
}

fn position(span: Span) -> Position {
    Position::new(span.start.line(), span.start.col() + 1)
}

fn is_word_for_true(text: &str) -> bool {
    ["y", "yes", "on", "true"].contains(&text.to_ascii_lowercase().as_str())
}

fn is_word_for_false(text: &str) -> bool {
    ["n", "no", "off", "false"].contains(&text.to_ascii_lowercase().as_str())
}

fn is_unclear_null(text: &str) -> bool {
    text.eq_ignore_ascii_case("null")
}

/// Octal, hexadecimal, binary, with underscores, in base 60, not finite.
fn is_unclear_number(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    let starts_with_digit = digits.starts_with(|first: char| first.is_ascii_digit());
    let leading_zero = digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    let prefixed = ["0o", "0x", "0b"].iter().any(|prefix| digits.strip_prefix(prefix).is_some_and(is_alphanumeric));
    let separated = starts_with_digit
        && digits.contains(['_', ':'])
        && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_' || byte == b':')
        && !digits.ends_with(':');
    let not_finite = [".inf", ".nan"].contains(&digits.to_ascii_lowercase().as_str());
    leading_zero || prefixed || separated || not_finite
}

fn is_alphanumeric(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// As the core schema of YAML 1.2 has it, apart from what is unclear.
fn is_number(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && digits.contains(|letter: char| letter.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let (root, flaws) = parse(text);
        let shown: Vec<String> = match (flaws.is_empty(), root) {
            (true, Some(root)) => vec![root.to_json().to_string()],
            _ => flaws
                .iter()
                .map(|flaw| format!("{}:{} {}", flaw.position.line, flaw.position.column, flaw.message))
                .collect(),
        };
        assert_eq!(shown.join("; "), expected);
    }

    #[test]
    fn values_are_what_yaml_1_2_says() {
        check("a: 1\nb: [x, \"1\", true, -2.5, 1e3]\n", r#"{"a":1,"b":["x","1",true,-2.5,1000.0]}"#);
        check("a: ''\nb:\n  - c: ~\n", r#"{"a":"","b":[{"c":null}]}"#);
        check(
            "a: 1.2.3\nb: 10 s\nc: nothing\nd: 127.0.0.1:4222\n",
            r#"{"a":"1.2.3","b":"10 s","c":"nothing","d":"127.0.0.1:4222"}"#,
        );
        check("# only\na: # comments\n  b: |\n    text\n", r#"{"a":{"b":"text\n"}}"#);
    }

    #[test]
    fn what_readers_disagree_about_is_refused() {
        let unclear = |text: &str| format!("1:4 `{text}` does not mean the same to every reader of YAML");
        for text in ["yes", "No", "on", "OFF", "y", "True", "010", "0o17", "0x1F", "1_000", "12:30", ".inf", "NULL"] {
            check(&format!("a: {text}\n"), &unclear(text));
        }
        check("NO: x\n", "1:1 `NO` does not mean the same to every reader of YAML");
        check("a: \"yes\"\nb: '010'\n", r#"{"a":"yes","b":"010"}"#);
    }

    #[test]
    fn what_hides_values_is_refused() {
        check("a: &x 1\nb: *x\n", "1:7 an anchor (`&`) is not allowed here; 2:4 an alias (`*`) is not allowed here");
        check("a: !!str 1\n", "1:10 a tag (`!`) is not allowed here");
        check("a: 1\n---\nb: 2\n", "3:1 a second document in the same file is not allowed here");
        check("1: a\n", "1:1 a key that is no text is not allowed here");
        check("a: 1\nb: 2\na: 3\n", "3:1 duplicate key `a`");
    }

    #[test]
    fn what_is_no_yaml_is_refused_where_it_ceases_to_be() {
        check("", "1:1 the file is empty");
        check("# nothing\n", "1:1 the file is empty");
        check("a: [1, 2\nb: 3\n", "2:2 this is not YAML: illegal placement of ':' indicator");
        check("a: 1\n\tb: 2\n", "1:4 this is not YAML: while scanning a plain scalar, found a tab");
    }

    #[test]
    fn every_node_knows_its_place() {
        let (root, _) = parse("a: 1\nlist:\n  - x\n  - ä\n");
        let root = root.unwrap();
        let places: Vec<(usize, usize)> = [root.get("a").unwrap(), root.get("list").unwrap()]
            .into_iter()
            .chain(root.get("list").unwrap().texts().map(|(_, node)| node))
            .map(|node| (node.position.line, node.position.column))
            .collect();
        assert_eq!(places, [(1, 4), (3, 3), (3, 5), (4, 5)]);
    }

    #[test]
    fn absurd_depth_is_no_danger() {
        for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", "")] {
            let text = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
            assert!(!parse(&text).1.is_empty());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_a_danger(text in "([a-z0-9:&*!|>%@#'\"\\[\\]{},?~.\t\n -]|ä){0,60}") {
            let (root, flaws) = parse(&text);
            proptest::prop_assert!(root.is_some() || !flaws.is_empty());
        }
    }
}
