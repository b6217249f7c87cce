//! The embedded model: an n-gram model of a small text. It has no dependencies, costs next to nothing, and generates
//! the same text from the same seed.

use std::collections::{HashMap, VecDeque};
use std::sync::LazyLock;

use sdk::random::Rng;

use crate::job::Job;
use crate::tokens::tokens;

const CORPUS: &str = include_str!("corpus.txt");

/// The number of words in the longest context.
const MAX_ORDER: usize = 3;
/// The weights of contexts of one, two and three words.
const ORDER_WEIGHTS: [f64; MAX_ORDER] = [1.0, 3.0, 6.0];
const DEFAULT_TEMPERATURE: f64 = 0.8;
/// Words among the last ones are penalised, so that even the most likely choices do not repeat in a loop.
const RECENT: usize = 24;
const REPETITION_PENALTY: f64 = 1.5;
/// Words of the prompt are preferred.
const PROMPT_BONUS: f64 = 2.5;
const MIN_TOPIC_LENGTH: usize = 4;

/// Index of a word. Upper and lower case are one word.
type Word = u16;

/// Marks the start and the end of a paragraph.
const BOUNDARY: Word = 0;

/// The last words in order, padded with boundaries at the front.
type Context = [Word; MAX_ORDER];

static LANGUAGE: LazyLock<Language> = LazyLock::new(|| Language::train(CORPUS));

/// The words of the training text and their successors.
struct Language {
    /// As spelled in the middle of a sentence.
    words: Vec<String>,
    index: HashMap<String, Word>,
    /// The successors of each context with their counts, indexed by the length of the context minus one.
    successors: [HashMap<Context, Vec<(Word, u16)>>; MAX_ORDER],
}

impl Language {
    fn train(text: &str) -> Self {
        let mut language = Self { words: vec![String::new()], index: HashMap::new(), successors: Default::default() };
        let mut history = vec![BOUNDARY];
        for paragraph in text.split("\n\n") {
            for token in tokens(paragraph) {
                let word = language.intern(token, begins_sentence(&language, &history));
                history.push(word);
            }
            history.push(BOUNDARY);
        }
        for (at, &word) in history.iter().enumerate().skip(1) {
            for (length, successors) in (1..).zip(&mut language.successors) {
                let seen = successors.entry(context(&history[..at], length)).or_default();
                match seen.iter_mut().find(|(known, _)| *known == word) {
                    Some((_, count)) => *count += 1,
                    None => seen.push((word, 1)),
                }
            }
        }
        language
    }

    fn intern(&mut self, token: &str, first_in_sentence: bool) -> Word {
        let lower = token.to_lowercase();
        match self.index.get(&lower) {
            Some(&word) => {
                // Names are capitalised in the middle of a sentence.
                if !first_in_sentence {
                    token.clone_into(&mut self.words[usize::from(word)]);
                }
                word
            }
            None => {
                let word = Word::try_from(self.words.len()).expect("a small text has few words");
                self.words.push(if first_in_sentence { lower.clone() } else { token.to_owned() });
                self.index.insert(lower, word);
                word
            }
        }
    }

    fn lookup(&self, token: &str) -> Option<Word> {
        self.index.get(&token.to_lowercase()).copied()
    }

    fn text(&self, word: Word) -> &str {
        &self.words[usize::from(word)]
    }

    fn ends_sentence(&self, word: Word) -> bool {
        word == BOUNDARY || matches!(self.text(word), "." | "!" | "?")
    }
}

fn begins_sentence(language: &Language, history: &[Word]) -> bool {
    history.last().is_none_or(|&word| language.ends_sentence(word))
}

/// The last `length` words, up to a boundary.
fn context(history: &[Word], length: usize) -> Context {
    let mut context = [BOUNDARY; MAX_ORDER];
    let words = history.iter().rev().take(length);
    for (place, &word) in context.iter_mut().rev().zip(words) {
        if word == BOUNDARY {
            break;
        }
        *place = word;
    }
    context
}

/// Generates one token after another, each with the space that separates it from the previous one.
pub(crate) struct Generator {
    language: &'static Language,
    order: usize,
    temperature: f64,
    rng: Rng,
    topics: Vec<Word>,
    history: Vec<Word>,
    recent: VecDeque<Word>,
    started: bool,
    /// The possible next words with their weights; a field to reuse its memory.
    candidates: Vec<(Word, f64)>,
}

impl Generator {
    /// `model_id` sets the context length: one word for `ngram-small`, three for `ngram-large`, two for all others.
    pub(crate) fn new(model_id: &str, job: &Job) -> Self {
        let language = &*LANGUAGE;
        let prompt: Vec<Option<Word>> = tokens(&job.prompt).map(|token| language.lookup(token)).collect();
        let mut topics: Vec<Word> =
            prompt.iter().flatten().copied().filter(|&word| language.text(word).len() >= MIN_TOPIC_LENGTH).collect();
        topics.sort_unstable();
        topics.dedup();
        // Continues where the prompt ends, unless that is the end of a sentence or an unknown word.
        let known = prompt.iter().rev().map_while(|word| *word).take(MAX_ORDER);
        let mut history: Vec<Word> = known.take_while(|&word| !language.ends_sentence(word)).collect();
        history.push(BOUNDARY);
        history.reverse();
        Self {
            language,
            order: match model_id {
                "ngram-small" => 1,
                "ngram-large" => 3,
                _ => 2,
            },
            temperature: job.temperature.unwrap_or(DEFAULT_TEMPERATURE),
            rng: Rng::new(job.seed.unwrap_or_else(|| fastrand::u64(..))),
            topics,
            history,
            recent: VecDeque::with_capacity(RECENT),
            started: false,
            candidates: Vec::new(),
        }
    }

    fn score_candidates(&mut self) {
        self.candidates.clear();
        for length in 1..=self.order {
            let Some(seen) = self.language.successors[length - 1].get(&context(&self.history, length)) else {
                continue;
            };
            let total: u16 = seen.iter().map(|(_, count)| count).sum();
            for &(word, count) in seen {
                let weight = ORDER_WEIGHTS[length - 1] * f64::from(count) / f64::from(total);
                match self.candidates.iter_mut().find(|(known, _)| *known == word) {
                    Some((_, sum)) => *sum += weight,
                    None => self.candidates.push((word, weight)),
                }
            }
        }
        if !self.started {
            self.candidates.retain(|(word, _)| *word != BOUNDARY);
        }
        for (word, weight) in &mut self.candidates {
            if self.topics.binary_search(word).is_ok() {
                *weight *= PROMPT_BONUS;
            }
            let repeated = self.recent.iter().filter(|recent| *recent == word).count();
            *weight /= REPETITION_PENALTY.powi(i32::try_from(repeated).unwrap_or(i32::MAX));
        }
    }

    /// Samples one of the candidates; `None` if there are none.
    fn choose(&mut self) -> Option<Word> {
        let mut best: Option<(Word, f64)> = None;
        for &(word, weight) in &self.candidates {
            if best.is_none_or(|(_, most)| weight > most) {
                best = Some((word, weight));
            }
        }
        let (likeliest, most) = best?;
        if self.temperature == 0.0 {
            return Some(likeliest);
        }
        let heat = |weight: f64| (weight / most).powf(1.0 / self.temperature);
        let total: f64 = self.candidates.iter().map(|&(_, weight)| heat(weight)).sum();
        let mut left = self.rng.next_f64() * total;
        for &(word, weight) in &self.candidates {
            left -= heat(weight);
            if left < 0.0 {
                return Some(word);
            }
        }
        Some(likeliest)
    }

    fn render(&self, word: Word) -> String {
        let text = self.language.text(word);
        let is_word = text.starts_with(char::is_alphanumeric);
        let mut written = String::with_capacity(text.len() + 1);
        if self.started && is_word {
            written.push(' ');
        }
        let mut letters = text.chars();
        match letters.next() {
            Some(first) if begins_sentence(self.language, &self.history) => written.extend(first.to_uppercase()),
            Some(first) => written.push(first),
            None => {}
        }
        written.push_str(letters.as_str());
        written
    }
}

impl Iterator for Generator {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.score_candidates();
        if self.candidates.is_empty() {
            self.history.push(BOUNDARY);
            self.score_candidates();
        }
        let word = self.choose().filter(|&word| word != BOUNDARY)?;
        let written = self.render(word);
        self.started = true;
        self.history.push(word);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(word);
        Some(written)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::tokens;

    const MODELS: [&str; 3] = ["ngram-small", "ngram-medium", "ngram-large"];

    fn job(prompt: &str, temperature: Option<f64>, seed: Option<u64>) -> Job {
        Job { prompt: prompt.to_owned(), max_tokens: 128, temperature, stop: Vec::new(), seed }
    }

    fn generate(model: &str, job: &Job) -> String {
        Generator::new(model, job).take(200).collect()
    }

    #[test]
    fn the_text_depends_on_the_seed_alone() {
        for model in MODELS {
            let seeded = |seed| generate(model, &job("Tell me of the dragon.", None, Some(seed)));
            assert_eq!(seeded(7), seeded(7));
            let answers: HashSet<String> = (0..20).map(seeded).collect();
            assert!(answers.len() > 10, "{answers:#?}");
        }
    }

    #[test]
    fn the_text_of_a_seed_does_not_change_between_versions() {
        let answer: String = Generator::new("ngram-medium", &job("The dragon", None, Some(1))).take(12).collect();
        assert_eq!(answer, "was old and its wings were full of holes. It takes");
    }

    #[test]
    fn without_a_seed_it_varies() {
        let answers: HashSet<String> = (0..20).map(|_| generate("ngram-small", &job("Hello!", None, None))).collect();
        assert!(answers.len() > 1);
    }

    #[test]
    fn temperature_0_needs_no_seed() {
        for model in MODELS {
            let likeliest = |seed| generate(model, &job("The smith", Some(0.0), seed));
            assert_eq!(likeliest(None), likeliest(Some(3)));
            assert!(!likeliest(None).is_empty());
        }
    }

    #[test]
    fn higher_temperatures_give_more_variety() {
        let variety = |temperature| {
            let answers = (0..200).map(|seed| {
                let job = job("The", Some(temperature), Some(seed));
                Generator::new("ngram-small", &job).next().unwrap()
            });
            answers.collect::<HashSet<_>>().len()
        };
        let (cold, mild, hot) = (variety(0.01), variety(0.5), variety(2.0));
        assert!(cold < mild && mild < hot, "{cold} {mild} {hot}");
    }

    #[test]
    fn the_text_continues_the_prompt() {
        let answer = generate("ngram-large", &job("The witch of the", Some(0.0), None));
        assert!(answer.starts_with("marsh"), "{answer}");
        let answer = generate("ngram-large", &job("Who is there?", Some(0.0), None));
        assert!(answer.starts_with(char::is_uppercase), "{answer}");
    }

    #[test]
    fn a_prompt_of_unknown_words_is_answered() {
        for prompt in ["zzz", "¿qué?", "…", ".", "it hums. "] {
            for model in MODELS {
                assert!(!generate(model, &job(prompt, None, Some(1))).is_empty(), "{prompt}");
            }
        }
    }

    #[test]
    fn the_pieces_are_the_tokens_of_the_text() {
        for seed in 0..50 {
            let pieces: Vec<String> =
                Generator::new("ngram-small", &job("a", Some(1.5), Some(seed))).take(300).collect();
            let text = pieces.concat();
            assert!(tokens::tokens(&text).eq(pieces.iter().map(|piece| piece.trim_start())), "{text}");
        }
    }

    #[test]
    fn names_and_sentences_begin_with_a_capital() {
        let text =
            generate("ngram-large", &job("In the village below the tower lived a smith called", Some(0.0), None));
        assert!(text.starts_with("Mira. She forged swords"), "{text}");
    }
}
