//! What a language may contain.

use std::collections::BTreeSet;

use prost::Message as _;
use proto::language::v1::{Entry, InflectionRule, Language, LanguageSummary, PartOfSpeech, Phonology, PluralCategory};
use sdk::{Error, Id, check_count, check_id, check_range, check_text, choice, choice_or_unset, required};

use crate::pattern::Pattern;

const MAX_BYTES: usize = 256 << 10;
const MAX_ID: usize = 32;
const MAX_NAME: usize = 64;
const MAX_KEY: usize = 64;
const MAX_WORD: usize = 64;
const MAX_ENTRIES: usize = 5_000;
const MAX_IRREGULAR: usize = 16;
const MAX_RULES: usize = 100;
const MAX_FORMS: usize = 16;
const MAX_SUFFIX: usize = 32;
const MAX_PLURALS: usize = 16;
const MAX_CONDITIONS: usize = 4;
const MAX_TEXTS: usize = 2_000;
const MAX_TEXT: usize = 4_096;
const MAX_SOUNDS: usize = 100;
const MAX_SOUND: usize = 8;

pub(crate) fn language_key(id: &str) -> Result<Id, Error> {
    Id::new("language", id, MAX_ID)
}

pub(crate) fn check_key(what: &str, key: &str) -> Result<(), Error> {
    check_id(what, key, MAX_KEY)
}

/// The language, if it is valid by itself.
pub(crate) fn checked(language: Option<Language>) -> Result<Language, Error> {
    let language = Language { revision: 0, ..required("language", language)? };
    check_range("size of the language in bytes", language.encoded_len(), 0..=MAX_BYTES)?;
    language_key(&language.id)?;
    check_text("name", &language.name, MAX_NAME)?;
    if !language.fallback.is_empty() {
        check_id("fallback", &language.fallback, MAX_ID)?;
    }
    check_lexicon(&language.lexicon)?;
    check_inflections(&language.inflections)?;
    check_count("plural rules", language.plurals.len(), MAX_PLURALS)?;
    for rule in &language.plurals {
        choice::<PluralCategory>("category of a plural rule", rule.category)?;
        check_count("conditions of a plural rule", rule.conditions.len(), MAX_CONDITIONS)?;
        if let Some(condition) = rule.conditions.iter().find(|condition| condition.to < condition.from) {
            let (from, to) = (condition.from, condition.to);
            return Err(Error::invalid(format_args!("a plural condition from {from} to {to} never holds")));
        }
    }
    check_count("texts", language.texts.len(), MAX_TEXTS)?;
    for (key, text) in &language.texts {
        check_key("key of a text", key)?;
        check_text(&format!("text `{key}`"), text, MAX_TEXT)?;
        Pattern::parse(&format!("text `{key}`"), text)?;
    }
    language.phonology.as_ref().map_or(Ok(()), check_sounds)?;
    Ok(language)
}

fn check_lexicon(lexicon: &[Entry]) -> Result<(), Error> {
    check_count("entries", lexicon.len(), MAX_ENTRIES)?;
    let mut keys = BTreeSet::new();
    for entry in lexicon {
        let what = |part: &str| format!("{part} of entry `{}`", entry.key);
        check_key("key of an entry", &entry.key)?;
        if !keys.insert(&entry.key) {
            return Err(Error::invalid(format_args!("two entries have the key `{}`", entry.key)));
        }
        check_text(&what("lemma"), &entry.lemma, MAX_WORD)?;
        choice::<PartOfSpeech>(&what("part_of_speech"), entry.part_of_speech)?;
        check_count(&what("forms"), entry.forms.len(), MAX_IRREGULAR)?;
        for (form, text) in &entry.forms {
            check_id(&what("form"), form, MAX_SUFFIX)?;
            check_text(&what(&format!("form `{form}`")), text, MAX_WORD)?;
        }
    }
    Ok(())
}

fn check_inflections(rules: &[InflectionRule]) -> Result<(), Error> {
    check_count("inflection rules", rules.len(), MAX_RULES)?;
    for rule in rules {
        check_id("form of an inflection rule", &rule.form, MAX_SUFFIX)?;
        choice_or_unset::<PartOfSpeech>("part_of_speech of an inflection rule", rule.part_of_speech)?;
        for (what, text) in [("suffix", &rule.suffix), ("replacement", &rule.replacement)] {
            if !text.is_empty() {
                check_text(&format!("{what} of a rule for form `{}`", rule.form), text, MAX_SUFFIX)?;
            }
        }
    }
    let forms: BTreeSet<&str> = rules.iter().map(|rule| &*rule.form).collect();
    check_count("forms of inflection rules", forms.len(), MAX_FORMS)
}

fn check_sounds(phonology: &Phonology) -> Result<(), Error> {
    check_range("number of nuclei", phonology.nuclei.len(), 1..=MAX_SOUNDS)?;
    check_count("onsets", phonology.onsets.len(), MAX_SOUNDS)?;
    check_count("codas", phonology.codas.len(), MAX_SOUNDS)?;
    for nucleus in &phonology.nuclei {
        check_text("nucleus", nucleus, MAX_SOUND)?;
    }
    for sound in phonology.onsets.iter().chain(&phonology.codas).filter(|sound| !sound.is_empty()) {
        check_text("onset or coda", sound, MAX_SOUND)?;
    }
    Ok(())
}

/// What is said of a language in lists.
pub(crate) fn summary(language: &Language) -> LanguageSummary {
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    LanguageSummary {
        id: language.id.clone(),
        name: language.name.clone(),
        fallback: language.fallback.clone(),
        words: count(language.lexicon.len()),
        texts: count(language.texts.len()),
        has_names: language.phonology.is_some(),
        revision: language.revision,
    }
}

#[cfg(test)]
mod tests {
    use proto::language::v1::{PluralCondition, PluralRule};
    use sdk::Code;

    use super::*;
    use crate::words::tests::{english, noun};

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Language), message: &str) {
        let mut language = english();
        change(&mut language);
        let error = checked(Some(language)).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::InvalidArgument, message));
    }

    #[test]
    fn a_language_out_of_bounds_is_refused() {
        assert_eq!(checked(Some(Language { revision: 7, ..english() })), Ok(english()));
        refused(|language| language.id = "a.b".to_owned(), "language id must be 1 to 32 letters, digits, `_` and `-`");
        refused(|language| language.name.clear(), "name is empty");
        refused(|language| language.fallback = "*".to_owned(), "fallback must be 1 to 32 letters, digits, `_` and `-`");
        refused(|language| language.lexicon.push(noun("sword", "x")), "two entries have the key `sword`");
        refused(|language| language.lexicon[0].lemma.clear(), "lemma of entry `sword` is empty");
        refused(
            |language| language.inflections[0].form.clear(),
            "form of an inflection rule must be 1 to 32 letters, digits, `_` and `-`",
        );
        refused(
            |language| language.phonology = Some(Phonology::default()),
            "number of nuclei is 0, it must be 1 to 100",
        );
        let text = |text: &str| [("greet".to_owned(), text.to_owned())].into();
        let message = "text `greet` is wrong at character 2: the name of an argument is expected";
        refused(|language| language.texts = text("{"), message);
        refused(|language| language.texts = text(""), "text `greet` is empty");
        let large = "x".repeat(4_000);
        let texts = || (0..70).map(|number| (number.to_string(), large.clone())).collect();
        let mut language = english();
        language.texts = texts();
        let size = language.encoded_len();
        refused(
            |language| language.texts = texts(),
            &format!("size of the language in bytes is {size}, it must be 0 to 262144"),
        );
    }

    #[test]
    fn a_plural_rule_that_says_nothing_is_refused() {
        let conditions = vec![PluralCondition { from: 3, to: 2, ..PluralCondition::default() }];
        let rule = |category: i32| PluralRule { category, conditions: conditions.clone() };
        refused(|language| language.plurals = vec![rule(2)], "a plural condition from 3 to 2 never holds");
        let categories = "PLURAL_CATEGORY_ZERO, PLURAL_CATEGORY_ONE, PLURAL_CATEGORY_TWO, PLURAL_CATEGORY_FEW, \
                          PLURAL_CATEGORY_MANY, PLURAL_CATEGORY_OTHER";
        let message = format!("category of a plural rule is missing, it must be one of {categories}");
        refused(|language| language.plurals = vec![rule(0)], &message);
    }
}
