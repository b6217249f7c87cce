//! Fills texts in.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::language::v1::{SubstitutedWord, TranslateRequest, TranslateResponse};
use sdk::{Code, Error, check_count, check_text};

use crate::language::check_key;
use crate::pattern::{Form, Part, Pattern, Selector};
use crate::registry::Compiled;
use crate::words::{category, inflected};

const MAX_ARGUMENTS: usize = 32;
const MAX_ARGUMENT: usize = 1_024;
const MAX_BYTES: usize = 65_536;

/// The text of a request in the first of these languages that has it.
pub(crate) fn translated(chain: &[Arc<Compiled>], request: &TranslateRequest) -> Result<TranslateResponse, Error> {
    check_key("key", &request.key)?;
    check_count("arguments", request.arguments.len(), MAX_ARGUMENTS)?;
    for (name, value) in &request.arguments {
        if !value.is_empty() {
            check_text(&format!("argument `{name}`"), value, MAX_ARGUMENT)?;
        }
    }
    let place = chain.iter().position(|language| language.texts.contains_key(&request.key));
    let place = place.ok_or_else(|| {
        let ids: Vec<&str> = chain.iter().map(|language| &*language.language.id).collect();
        Error::new(Code::NotFound, format!("text `{}` does not exist in {}", request.key, ids.join(", ")))
    })?;
    let language = &chain[place].language;
    let mut filling =
        Filling { chain: &chain[place..], arguments: &request.arguments, text: String::new(), substituted: Vec::new() };
    filling.add(&chain[place].texts[&request.key], None)?;
    Ok(TranslateResponse {
        error: None,
        text: filling.text,
        language_id: language.id.clone(),
        is_fallback: place > 0,
        substituted_words: filling.substituted,
    })
}

struct Filling<'a> {
    /// The language of the text, and those that it falls back to.
    chain: &'a [Arc<Compiled>],
    arguments: &'a BTreeMap<String, String>,
    text: String,
    substituted: Vec<SubstitutedWord>,
}

impl<'a> Filling<'a> {
    /// Adds a text; `number` is that of the plural around it.
    fn add(&mut self, pattern: &Pattern, number: Option<i64>) -> Result<(), Error> {
        for part in &pattern.0 {
            match part {
                Part::Text(text) => self.text.push_str(text),
                Part::Argument(name) => {
                    let value = self.argument(name)?;
                    self.text.push_str(value);
                }
                Part::Number => self.text.extend(number.map(|number| number.to_string())),
                Part::Plural { argument, cases } => {
                    let number = self.number(argument)?;
                    if let Some(case) = self.case(cases, number) {
                        self.add(case, Some(number))?;
                    }
                }
                Part::Word { argument, form } => {
                    let word = self.word(argument, form)?;
                    self.text.push_str(&word);
                }
            }
            if self.text.len() > MAX_BYTES {
                return Err(Error::invalid(format_args!("the text becomes longer than {MAX_BYTES} bytes")));
            }
        }
        Ok(())
    }

    fn case<'p>(&self, cases: &'p [(Selector, Pattern)], number: i64) -> Option<&'p Pattern> {
        let category = category(&self.chain[0].language, number);
        let find = |fits: &dyn Fn(&Selector) -> bool| cases.iter().find(|(selector, _)| fits(selector));
        let is = |name: &str, selector: &Selector| matches!(selector, Selector::Category(other) if other == name);
        find(&|selector| *selector == Selector::Exactly(number))
            .or_else(|| find(&|selector| is(category, selector)))
            .or_else(|| find(&|selector| is("other", selector)))
            .map(|(_, pattern)| pattern)
    }

    fn word(&mut self, argument: &str, form: &Form) -> Result<String, Error> {
        let key = self.argument(argument)?;
        let Some((place, entry)) =
            self.chain.iter().enumerate().find_map(|(place, language)| Some((place, language.entry(key)?)))
        else {
            self.substituted.push(SubstitutedWord { key: key.to_owned(), language_id: String::new() });
            return Ok(key.to_owned());
        };
        let language = &self.chain[place].language;
        let word = match form {
            Form::Lemma => entry.lemma.clone(),
            Form::Named(form) => inflected(language, entry, form),
            Form::Counted(argument) => inflected(language, entry, category(language, self.number(argument)?)),
        };
        if place > 0 {
            self.substituted.push(SubstitutedWord { key: key.to_owned(), language_id: language.id.clone() });
        }
        Ok(word)
    }

    fn number(&self, name: &str) -> Result<i64, Error> {
        let value = self.argument(name)?;
        value
            .parse()
            .map_err(|_| Error::invalid(format_args!("argument `{name}` is `{value}`, it must be a whole number")))
    }

    fn argument(&self, name: &str) -> Result<&'a str, Error> {
        let value = self.arguments.get(name);
        value.map(String::as_str).ok_or_else(|| Error::invalid(format_args!("argument `{name}` is missing")))
    }
}

#[cfg(test)]
mod tests {
    use proto::language::v1::Language;

    use super::*;
    use crate::registry::tests::registry;
    use crate::words::tests::{english, noun};

    fn with_texts(language: Language, texts: &[(&str, &str)]) -> Language {
        let texts = texts.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        Language { texts, ..language }
    }

    /// A language with one word and one text, and English behind it.
    fn translate(key: &str, arguments: &[(&str, &str)]) -> Result<TranslateResponse, Error> {
        let elvish = Language {
            id: "elvish".to_owned(),
            fallback: "en".to_owned(),
            lexicon: vec![noun("sword", "megil")],
            ..Language::default()
        };
        let found = "{who} finds {n, plural, =0 {nothing} one {a {item, word}} other {# {item, word, #n}}}.";
        let english = with_texts(english(), &[("found", found), ("long", &"{who}".repeat(70))]);
        let languages = registry([with_texts(elvish, &[("greet", "Suilad, {who}! {item, word}")]), english]);
        let arguments = arguments.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let request = TranslateRequest { key: key.to_owned(), arguments, ..TranslateRequest::default() };
        translated(&languages.chain("elvish").unwrap(), &request)
    }

    #[track_caller]
    fn check(key: &str, arguments: &[(&str, &str)], text: &str, language: &str, substituted: &[(&str, &str)]) {
        let answer = translate(key, arguments).unwrap();
        assert_eq!((&*answer.text, &*answer.language_id, answer.is_fallback), (text, language, language != "elvish"));
        let words: Vec<_> = answer.substituted_words.iter().map(|word| (&*word.key, &*word.language_id)).collect();
        assert_eq!(words, substituted);
    }

    #[test]
    fn a_text_is_filled_in_with_words_in_their_forms() {
        let found = |n| [("who", "Rose"), ("item", "city"), ("n", n)];
        check("found", &found("0"), "Rose finds nothing.", "en", &[]);
        check("found", &found("1"), "Rose finds a city.", "en", &[]);
        check("found", &found("12"), "Rose finds 12 cities.", "en", &[]);
    }

    #[test]
    fn what_a_language_does_not_have_comes_from_its_fallback_and_the_answer_says_so() {
        check("greet", &[("who", ""), ("item", "sword")], "Suilad, ! megil", "elvish", &[]);
        check("greet", &[("who", "x"), ("item", "man")], "Suilad, x! man", "elvish", &[("man", "en")]);
        check("greet", &[("who", "x"), ("item", "orb")], "Suilad, x! orb", "elvish", &[("orb", "")]);
    }

    #[track_caller]
    fn refused(key: &str, arguments: &[(&str, &str)], code: Code, message: &str) {
        let error = translate(key, arguments).unwrap_err();
        assert_eq!((error.code(), error.message()), (code, message));
    }

    #[test]
    fn what_cannot_be_filled_in_is_refused() {
        refused("bye", &[], Code::NotFound, "text `bye` does not exist in elvish, en");
        refused("greet", &[("who", "x")], Code::InvalidArgument, "argument `item` is missing");
        let many = [("who", "x"), ("item", "sword"), ("n", "many")];
        refused("found", &many, Code::InvalidArgument, "argument `n` is `many`, it must be a whole number");
        let long = "x".repeat(1_024);
        refused("long", &[("who", &long)], Code::InvalidArgument, "the text becomes longer than 65536 bytes");
        let longer = "x".repeat(1_025);
        refused(
            "long",
            &[("who", &longer)],
            Code::InvalidArgument,
            "argument `who` has 1025 bytes, at most 1024 are allowed",
        );
    }
}
