//! Which language a text is in: by the words that the lexicon has, and by pairs of letters.

use std::collections::HashMap;

use proto::language::v1::{Candidate, Language};

use crate::registry::Compiled;
use crate::words::split;

/// The score above which the best candidate is the answer.
const ENOUGH: f64 = 0.25;

/// How often pairs of letters come; a space is before and after each word.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bigrams {
    counts: HashMap<(char, char), f64>,
    /// The length of the vector of counts.
    norm: f64,
}

impl Bigrams {
    /// Those of the words and texts of a language.
    pub(crate) fn of_language(language: &Language) -> Self {
        let forms = language.lexicon.iter().flat_map(|entry| entry.forms.values().chain([&entry.lemma]));
        Self::of(forms.chain(language.texts.values()).flat_map(|text| split(text)))
    }

    fn of<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut counts: HashMap<(char, char), f64> = HashMap::new();
        for word in words {
            let mut last = ' ';
            for letter in word.to_lowercase().chars().chain([' ']) {
                *counts.entry((last, letter)).or_default() += 1.0;
                last = letter;
            }
        }
        let norm = counts.values().map(|count| count * count).sum::<f64>().sqrt();
        Self { counts, norm }
    }

    /// The cosine of the angle between the vectors of counts: 0 to 1.
    fn similarity(&self, other: &Self) -> f64 {
        if self.norm == 0.0 || other.norm == 0.0 {
            return 0.0;
        }
        let product = |(pair, count): (&(char, char), &f64)| count * other.counts.get(pair).unwrap_or(&0.0);
        self.counts.iter().map(product).sum::<f64>() / (self.norm * other.norm)
    }
}

/// A text that is compared with languages.
#[derive(Debug)]
pub(crate) struct Sample<'a> {
    words: Vec<&'a str>,
    bigrams: Bigrams,
}

impl<'a> Sample<'a> {
    /// `None` if the text has no letters.
    pub(crate) fn new(text: &'a str) -> Option<Self> {
        let words: Vec<&str> = split(text).collect();
        let bigrams = Bigrams::of(words.iter().copied());
        (!words.is_empty()).then_some(Self { words, bigrams })
    }

    /// How much the text is like a language.
    pub(crate) fn candidate(&self, compiled: &Compiled) -> Candidate {
        let is_known = |word: &&&str| compiled.forms.find(&compiled.language, word).is_some();
        let known = self.words.iter().filter(is_known).count();
        let share = known as f64 / self.words.len() as f64;
        Candidate {
            language_id: compiled.language.id.clone(),
            score: (share + self.bigrams.similarity(&compiled.bigrams)) / 2.0,
            known_words: u32::try_from(known).unwrap_or(u32::MAX),
        }
    }
}

/// Puts candidates in order, best first, and returns the id of the language; empty if none is good enough, or none is the best.
pub(crate) fn ranked(candidates: &mut [Candidate]) -> String {
    candidates.sort_by(|one, other| other.score.total_cmp(&one.score).then(one.language_id.cmp(&other.language_id)));
    match candidates {
        [best, second, ..] if best.score <= second.score => String::new(),
        [best, ..] if best.score > ENOUGH => best.language_id.clone(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::tests::{english, noun};

    fn detect(text: &str, languages: &[Language]) -> (String, Vec<Candidate>) {
        let sample = Sample::new(text).unwrap();
        let mut candidates: Vec<_> =
            languages.iter().map(|language| sample.candidate(&Compiled::new(language.clone()))).collect();
        (ranked(&mut candidates), candidates)
    }

    fn elvish() -> Language {
        let lexicon = [("sword", "megil"), ("city", "ost"), ("star", "gil"), ("friend", "mellon"), ("man", "adan")];
        let lexicon = lexicon.map(|(key, lemma)| noun(key, lemma)).to_vec();
        Language { id: "elvish".to_owned(), lexicon, ..Language::default() }
    }

    #[test]
    fn the_language_that_knows_the_words_is_the_one() {
        let languages = [elvish(), english()];
        let (id, candidates) = detect("Mellon! Megil!", &languages);
        assert_eq!((&*id, candidates[0].known_words), ("elvish", 2));
        let (id, candidates) = detect("two swords, nine cities", &languages);
        assert_eq!((&*id, candidates[0].known_words), ("en", 2));
    }

    #[test]
    fn unknown_words_are_told_by_their_letters() {
        let (id, candidates) = detect("megilon ostadan gilmello", &[elvish(), english()]);
        assert_eq!((&*id, candidates[0].known_words), ("elvish", 0));
    }

    #[test]
    fn a_text_that_is_like_none_or_like_two_is_in_none() {
        assert_eq!(detect("qqq zzz", &[elvish(), english()]).0, "");
        let twin = Language { id: "twin".to_owned(), ..elvish() };
        let (id, candidates) = detect("mellon", &[twin, elvish()]);
        assert_eq!((&*id, &*candidates[0].language_id), ("", "elvish"));
        assert_eq!(ranked(&mut []), "");
        assert!(Sample::new("12 !?").is_none());
    }
}
