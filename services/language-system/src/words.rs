//! Words: their forms, and the number that decides a form.

use std::collections::HashMap;

use proto::language::v1::{Entry, InflectionRule, Language, PartOfSpeech, PluralCategory, PluralCondition, PluralRule};

/// Plural categories by the names of their forms.
pub(crate) const CATEGORIES: [(&str, PluralCategory); 6] = [
    ("zero", PluralCategory::Zero),
    ("one", PluralCategory::One),
    ("two", PluralCategory::Two),
    ("few", PluralCategory::Few),
    ("many", PluralCategory::Many),
    ("other", PluralCategory::Other),
];

/// The name of the plural category of a number.
pub(crate) fn category(language: &Language, number: i64) -> &'static str {
    let holds = |condition: &PluralCondition| {
        let number = match condition.modulo {
            0 => number.unsigned_abs(),
            modulo => number.unsigned_abs() % u64::from(modulo),
        };
        (u64::from(condition.from)..=u64::from(condition.to)).contains(&number) != condition.negated
    };
    let rule = language.plurals.iter().find(|rule| rule.conditions.iter().all(holds));
    let category = rule.map_or(PluralCategory::Other, PluralRule::category);
    CATEGORIES.iter().find(|(_, known)| *known == category).map_or("other", |(name, _)| name)
}

/// A form of a word.
pub(crate) fn inflected(language: &Language, entry: &Entry, form: &str) -> String {
    if let Some(irregular) = entry.forms.get(form) {
        return irregular.clone();
    }
    let stem =
        |rule: &InflectionRule| entry.lemma.strip_suffix(&*rule.suffix).map(|stem| stem.to_owned() + &rule.replacement);
    let mut rules = language.inflections.iter().filter(|rule| rule.form == form && is_for(rule, entry));
    rules.find_map(stem).unwrap_or_else(|| entry.lemma.clone())
}

fn is_for(rule: &InflectionRule, entry: &Entry) -> bool {
    matches!(rule.part_of_speech(), PartOfSpeech::Unspecified) || rule.part_of_speech == entry.part_of_speech
}

/// The words of a text: letters, with apostrophes between them.
pub(crate) fn split(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|letter: char| !letter.is_alphabetic() && letter != '\'' && letter != '’');
    words.map(|word| word.trim_matches(['\'', '’'])).filter(|word| !word.is_empty())
}

/// The lexicon of a language by what is seen in texts, in lower case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forms {
    lemmas: HashMap<String, usize>,
    irregular: HashMap<String, (usize, String)>,
}

impl Forms {
    pub(crate) fn new(language: &Language) -> Self {
        let mut forms = Self::default();
        for (index, entry) in language.lexicon.iter().enumerate() {
            forms.lemmas.entry(entry.lemma.to_lowercase()).or_insert(index);
            for (form, text) in &entry.forms {
                forms.irregular.entry(text.to_lowercase()).or_insert_with(|| (index, form.clone()));
            }
        }
        forms
    }

    /// The entry of a word, and the form that it is in: empty for the lemma.
    pub(crate) fn find<'a>(&self, language: &'a Language, word: &str) -> Option<(&'a Entry, String)> {
        let word = word.to_lowercase();
        if let Some(index) = self.lemmas.get(&word) {
            return Some((&language.lexicon[*index], String::new()));
        }
        if let Some((index, form)) = self.irregular.get(&word) {
            return Some((&language.lexicon[*index], form.clone()));
        }
        // Back from each rule that may have made the word to the lemma.
        language.inflections.iter().find_map(|rule| {
            let stem = word.strip_suffix(&rule.replacement.to_lowercase())?;
            let index = self.lemmas.get(&(stem.to_owned() + &rule.suffix.to_lowercase()))?;
            let entry = &language.lexicon[*index];
            let is_it = inflected(language, entry, &rule.form).to_lowercase() == word;
            is_it.then(|| (entry, rule.form.clone()))
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn rule(form: &str, suffix: &str, replacement: &str) -> InflectionRule {
        InflectionRule {
            part_of_speech: PartOfSpeech::Noun.into(),
            form: form.to_owned(),
            suffix: suffix.to_owned(),
            replacement: replacement.to_owned(),
        }
    }

    pub(crate) fn noun(key: &str, lemma: &str) -> Entry {
        let part_of_speech = PartOfSpeech::Noun.into();
        Entry { key: key.to_owned(), lemma: lemma.to_owned(), part_of_speech, ..Entry::default() }
    }

    fn condition(modulo: u32, from: u32, to: u32, negated: bool) -> PluralCondition {
        PluralCondition { modulo, from, to, negated }
    }

    pub(crate) fn english() -> Language {
        let one = PluralRule { category: PluralCategory::One.into(), conditions: vec![condition(0, 1, 1, false)] };
        let mut man = noun("man", "man");
        man.forms.insert("other".to_owned(), "men".to_owned());
        Language {
            id: "en".to_owned(),
            name: "English".to_owned(),
            lexicon: vec![noun("sword", "sword"), noun("city", "city"), noun("box", "box"), man],
            inflections: vec![rule("other", "y", "ies"), rule("other", "x", "xes"), rule("other", "", "s")],
            plurals: vec![one],
            ..Language::default()
        }
    }

    #[test]
    fn words_are_inflected_by_the_first_rule_that_fits() {
        let language = english();
        let check = |index: usize, form: &str, expected: &str| {
            assert_eq!(inflected(&language, &language.lexicon[index], form), expected);
        };
        check(0, "other", "swords");
        check(1, "other", "cities");
        check(2, "other", "boxes");
        check(3, "other", "men");
        check(0, "one", "sword");
        let verb = Entry { part_of_speech: PartOfSpeech::Verb.into(), ..language.lexicon[0].clone() };
        assert_eq!(inflected(&language, &verb, "other"), "sword");
    }

    #[test]
    fn numbers_have_the_plural_categories_of_the_language() {
        let rule = |category: PluralCategory, conditions| PluralRule { category: category.into(), conditions };
        let russian = Language {
            plurals: vec![
                rule(PluralCategory::One, vec![condition(10, 1, 1, false), condition(100, 11, 11, true)]),
                rule(PluralCategory::Few, vec![condition(10, 2, 4, false), condition(100, 12, 14, true)]),
                rule(PluralCategory::Many, vec![]),
            ],
            ..Language::default()
        };
        let of =
            |language: &Language, numbers: &[i64]| numbers.iter().map(|it| category(language, *it)).collect::<Vec<_>>();
        assert_eq!(
            of(&russian, &[1, 21, 11, 2, 12, 22, 5, 0]),
            ["one", "one", "many", "few", "many", "few", "many", "many"]
        );
        assert_eq!(of(&english(), &[0, 1, -1, 2, i64::MIN]), ["other", "one", "one", "other", "other"]);
        assert_eq!(of(&Language::default(), &[1]), ["other"]);
    }

    #[test]
    fn inflected_words_are_found_in_the_lexicon() {
        let language = english();
        let forms = Forms::new(&language);
        let check = |word: &str, expected: Option<(&str, &str)>| {
            let found = forms.find(&language, word);
            assert_eq!(found.as_ref().map(|(entry, form)| (&*entry.key, &**form)), expected, "{word}");
        };
        check("sword", Some(("sword", "")));
        check("Swords", Some(("sword", "other")));
        check("CITIES", Some(("city", "other")));
        check("men", Some(("man", "other")));
        // Not what the rules make of the lemma.
        check("citys", None);
        check("mans", None);
        check("", None);
    }

    #[test]
    fn a_text_is_split_into_words() {
        let words: Vec<&str> = split("«Don't go», said 3 'Elves' — señor…").collect();
        assert_eq!(words, ["Don't", "go", "said", "Elves", "señor"]);
        assert_eq!(split(" 12 ''").count(), 0);
    }
}
