//! Texts with arguments, in a part of ICU MessageFormat (<https://unicode-org.github.io/icu/userguide/format_parse/messages/>).

use std::iter::Peekable;
use std::str::CharIndices;

use sdk::Error;

/// Plurals inside of plurals.
const MAX_DEPTH: usize = 3;

/// A parsed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(pub(crate) Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Text(String),
    Argument(String),
    /// `#`: the number of the plural around it.
    Number,
    Plural {
        argument: String,
        cases: Vec<(Selector, Pattern)>,
    },
    /// A word of the lexicon, whose key is the argument.
    Word {
        argument: String,
        form: Form,
    },
}

/// When a case of a plural applies: for a number, or for a plural category by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selector {
    Exactly(i64),
    Category(String),
}

/// The form of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Lemma,
    Named(String),
    /// The form for the number in this argument.
    Counted(String),
}

impl Pattern {
    /// Parses a text. `what` names it in errors.
    pub(crate) fn parse(what: &str, text: &str) -> Result<Self, Error> {
        let mut parser = Parser { text, letters: text.char_indices().peekable() };
        let parsed = parser.pattern(0).and_then(|parsed| match parser.letters.peek() {
            Some(_) => Err("`}` without `{`".to_owned()),
            None => Ok(parsed),
        });
        parsed.map_err(|reason| {
            let at = parser.letters.peek().map_or(text.len(), |(at, _)| *at);
            let column = text[..at].chars().count() + 1;
            Error::invalid(format_args!("{what} is wrong at character {column}: {reason}"))
        })
    }
}

struct Parser<'a> {
    text: &'a str,
    letters: Peekable<CharIndices<'a>>,
}

impl Parser<'_> {
    /// Up to the end of the text, or the `}` that ends the case of a plural.
    fn pattern(&mut self, depth: usize) -> Result<Pattern, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        while let Some((_, letter)) = self.letters.next_if(|(_, letter)| *letter != '}') {
            let part = match letter {
                '\'' => {
                    self.quoted(&mut literal, depth);
                    continue;
                }
                '{' => self.argument(depth)?,
                '#' if depth > 0 => Part::Number,
                letter => {
                    literal.push(letter);
                    continue;
                }
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(part);
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Pattern(parts))
    }

    /// After an apostrophe: two are one, and one before a special character quotes up to the next one.
    fn quoted(&mut self, literal: &mut String, depth: usize) {
        let is_special = |letter: char| matches!(letter, '{' | '}') || (letter == '#' && depth > 0);
        match self.letters.peek() {
            Some((_, '\'')) => {
                self.letters.next();
                literal.push('\'');
            }
            Some((_, letter)) if is_special(*letter) => {
                while let Some((_, letter)) = self.letters.next() {
                    if letter != '\'' {
                        literal.push(letter);
                    } else if self.letters.next_if(|(_, letter)| *letter == '\'').is_some() {
                        literal.push('\'');
                    } else {
                        return;
                    }
                }
            }
            _ => literal.push('\''),
        }
    }

    /// After `{`, up to and with its `}`.
    fn argument(&mut self, depth: usize) -> Result<Part, String> {
        let argument = self.name("the name of an argument")?;
        if self.take('}') {
            return Ok(Part::Argument(argument));
        }
        self.expect(',')?;
        let part = match self.name("`plural` or `word`")?.as_str() {
            "plural" => {
                self.expect(',')?;
                return self.plural(argument, depth + 1);
            }
            "word" if self.take(',') => Part::Word { argument, form: self.form()? },
            "word" => Part::Word { argument, form: Form::Lemma },
            other => return Err(format!("`{other}` is not `plural` or `word`")),
        };
        self.expect('}')?;
        Ok(part)
    }

    fn form(&mut self) -> Result<Form, String> {
        match self.take('#') {
            true => Ok(Form::Counted(self.name("the name of an argument")?)),
            false => Ok(Form::Named(self.name("the name of a form, or `#` and an argument")?)),
        }
    }

    fn plural(&mut self, argument: String, depth: usize) -> Result<Part, String> {
        if depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} plurals inside of each other"));
        }
        let mut cases: Vec<(Selector, Pattern)> = Vec::new();
        while !self.take('}') {
            let selector = self.selector()?;
            if cases.iter().any(|(other, _)| *other == selector) {
                return Err("this case comes twice".to_owned());
            }
            self.expect('{')?;
            let pattern = self.pattern(depth)?;
            self.expect('}')?;
            cases.push((selector, pattern));
        }
        let is_other = |(selector, _): &(Selector, Pattern)| *selector == Selector::Category("other".to_owned());
        match cases.iter().any(is_other) {
            true => Ok(Part::Plural { argument, cases }),
            false => Err(format!("the plural of `{argument}` has no case `other`")),
        }
    }

    fn selector(&mut self) -> Result<Selector, String> {
        if self.take('=') {
            let number = self.name("a number")?;
            return number.parse().map(Selector::Exactly).map_err(|_| format!("`{number}` is not a number"));
        }
        let category = self.name("a plural category, or `=` and a number")?;
        match crate::words::CATEGORIES.iter().any(|(name, _)| *name == category) {
            true => Ok(Selector::Category(category)),
            false => Err(format!("`{category}` is not zero, one, two, few, many or other")),
        }
    }

    /// Letters, digits, `_` and `-`, with space around.
    fn name(&mut self, what: &str) -> Result<String, String> {
        self.skip_space();
        let start = self.letters.peek().map_or(self.text.len(), |(at, _)| *at);
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
        while self.letters.next_if(|(_, letter)| is_part(*letter)).is_some() {}
        let end = self.letters.peek().map_or(self.text.len(), |(at, _)| *at);
        self.skip_space();
        match &self.text[start..end] {
            "" => Err(format!("{what} is expected")),
            name => Ok(name.to_owned()),
        }
    }

    fn expect(&mut self, letter: char) -> Result<(), String> {
        match self.take(letter) {
            true => Ok(()),
            false => Err(format!("`{letter}` is expected")),
        }
    }

    fn take(&mut self, letter: char) -> bool {
        self.skip_space();
        self.letters.next_if(|(_, next)| *next == letter).is_some()
    }

    fn skip_space(&mut self) {
        while self.letters.next_if(|(_, letter)| letter.is_whitespace()).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn refused(text: &str, message: &str) {
        let error = Pattern::parse("text `t`", text).unwrap_err();
        assert_eq!(error.message(), format!("text `t` is wrong at {message}"));
    }

    #[test]
    fn wrong_texts_are_refused_with_the_place() {
        refused("a } b", "character 3: `}` without `{`");
        refused("a {", "character 4: the name of an argument is expected");
        refused("{a", "character 3: `,` is expected");
        refused("{a,}", "character 4: `plural` or `word` is expected");
        refused("{a, select, b {c}}", "character 11: `select` is not `plural` or `word`");
        refused("ä{n, plural, one {x}}", "character 22: the plural of `n` has no case `other`");
        refused("{n, plural, other x}", "character 19: `{` is expected");
        refused("{n, plural, some {x}}", "character 18: `some` is not zero, one, two, few, many or other");
        refused("{n, plural, =x {x}}", "character 16: `x` is not a number");
        refused("{n, plural, one {x} one {y} other {z}}", "character 25: this case comes twice");
        refused("{n, plural, other {", "character 20: `}` is expected");
        refused("{w, word, }", "character 11: the name of a form, or `#` and an argument is expected");
        let nested = "{n, plural, other {".repeat(4);
        refused(&nested, "character 69: more than 3 plurals inside of each other");
    }

    #[test]
    fn parts_are_told_apart() {
        let text = |text: &str| Part::Text(text.to_owned());
        let check = |source: &str, expected: &[Part]| {
            assert_eq!(Pattern::parse("text", source), Ok(Pattern(expected.to_vec())), "{source}");
        };
        check("", &[]);
        check("it's ''so'' # '{'a'}'", &[text("it's 'so' # {a}")]);
        check("'{a''b", &[text("{a'b")]);
        check("a { b }!", &[text("a "), Part::Argument("b".to_owned()), text("!")]);
        let word = |form| Part::Word { argument: "w".to_owned(), form };
        check("{w,word}", &[word(Form::Lemma)]);
        check("{w, word, past}", &[word(Form::Named("past".to_owned()))]);
        check("{w, word, #n}", &[word(Form::Counted("n".to_owned()))]);
        let cases = vec![
            (Selector::Exactly(0), Pattern(vec![text("none")])),
            (Selector::Category("other".to_owned()), Pattern(vec![Part::Number, text(" '#")])),
        ];
        let plural = Part::Plural { argument: "n".to_owned(), cases };
        check("{n, plural, =0 {none} other {# '''#'}}", &[plural]);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[a{}#,'= ölurpthewod0-]{0,40}") {
            let _ = Pattern::parse("text", &text);
        }
    }
}
