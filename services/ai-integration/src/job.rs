//! A validated request: the prompt and the sampling parameters.

use proto::ai::llm::v1::Sampling;

use crate::tokens;

const MAX_PROMPT_BYTES: usize = 64 << 10;
const MAX_TOKENS: u32 = 4_096;
const DEFAULT_MAX_TOKENS: u32 = 128;
const MAX_TEMPERATURE: f64 = 2.0;
const MAX_STOPS: usize = 4;
/// Each token is compared with the whole of each stop sequence.
const MAX_STOP_BYTES: usize = 256;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Job {
    pub(crate) prompt: String,
    pub(crate) max_tokens: u32,
    /// The model's default if absent.
    pub(crate) temperature: Option<f64>,
    pub(crate) stop: Vec<String>,
    pub(crate) seed: Option<u64>,
}

impl Job {
    /// Validates a request. The error is a sentence.
    pub(crate) fn new(prompt: String, sampling: Option<Sampling>) -> Result<Self, String> {
        let sampling = sampling.unwrap_or_default();
        let max_tokens = sampling.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
        if prompt.trim().is_empty() {
            return Err("`prompt` is empty".to_owned());
        }
        if prompt.len() > MAX_PROMPT_BYTES {
            return Err(format!("`prompt` has more than {MAX_PROMPT_BYTES} bytes"));
        }
        if !(1..=MAX_TOKENS).contains(&max_tokens) {
            return Err(format!("`max_tokens` must be from 1 to {MAX_TOKENS}"));
        }
        // NaN is outside of every range.
        if sampling.temperature.is_some_and(|it| !(0.0..=MAX_TEMPERATURE).contains(&it)) {
            return Err(format!("`temperature` must be from 0 to {MAX_TEMPERATURE}"));
        }
        if sampling.stop.len() > MAX_STOPS {
            return Err(format!("`stop` has more than {MAX_STOPS} sequences"));
        }
        if sampling.stop.iter().any(String::is_empty) {
            return Err("a sequence in `stop` is empty".to_owned());
        }
        if sampling.stop.iter().any(|stop| stop.len() > MAX_STOP_BYTES) {
            return Err(format!("a sequence in `stop` has more than {MAX_STOP_BYTES} bytes"));
        }
        Ok(Self { prompt, max_tokens, temperature: sampling.temperature, stop: sampling.stop, seed: sampling.seed })
    }

    /// The parameters on which the text depends, if it is the same each time: at temperature 0, or with a seed.
    pub(crate) fn repeatable_sampling(&self) -> Option<Sampling> {
        let takes_the_likeliest = self.temperature == Some(0.0);
        let seed = self.seed.filter(|_| !takes_the_likeliest);
        (takes_the_likeliest || seed.is_some()).then(|| Sampling {
            max_tokens: Some(self.max_tokens),
            // Not -0, which is encoded differently.
            temperature: self.temperature.map(f64::abs),
            stop: self.stop.clone(),
            seed,
        })
    }

    pub(crate) fn prompt_tokens(&self) -> u32 {
        tokens::count(&self.prompt)
    }

    /// The context length that the model must have, in tokens.
    pub(crate) fn context_length(&self) -> u32 {
        self.prompt_tokens() + self.max_tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(prompt: &str, sampling: Sampling, because: &str) {
        let reason = Job::new(prompt.to_owned(), Some(sampling)).unwrap_err();
        assert!(reason.contains(because), "{reason}");
    }

    #[test]
    fn defaults_are_filled_in() {
        let job = Job::new("Hello, smith".to_owned(), None).unwrap();
        assert_eq!((job.max_tokens, job.temperature, job.context_length()), (128, None, 131));
    }

    #[test]
    fn only_what_decides_about_a_repeatable_text_is_in_its_parameters() {
        let check = |sampling: Sampling, expected: Option<Sampling>| {
            let job = Job::new("Hello".to_owned(), Some(sampling)).unwrap();
            assert_eq!(job.repeatable_sampling(), expected);
        };
        let (seed, max_tokens) = (Some(7), Some(128));
        check(Sampling::default(), None);
        check(Sampling { temperature: Some(0.1), ..Sampling::default() }, None);
        check(Sampling { seed, ..Sampling::default() }, Some(Sampling { seed, max_tokens, ..Sampling::default() }));
        let likeliest = Some(Sampling { temperature: Some(0.0), max_tokens, ..Sampling::default() });
        check(Sampling { temperature: Some(0.0), max_tokens, ..Sampling::default() }, likeliest.clone());
        check(Sampling { temperature: Some(-0.0), seed, ..Sampling::default() }, likeliest);
    }

    #[test]
    fn prompts_out_of_bounds_are_refused() {
        refused("", Sampling::default(), "`prompt` is empty");
        refused(" \n", Sampling::default(), "`prompt` is empty");
        refused(&"x".repeat(65_537), Sampling::default(), "65536 bytes");
        assert!(Job::new("x".repeat(65_536), None).is_ok());
    }

    #[test]
    fn sampling_out_of_bounds_is_refused() {
        for max_tokens in [0, 4_097] {
            let sampling = Sampling { max_tokens: Some(max_tokens), ..Sampling::default() };
            refused("a", sampling, "`max_tokens` must be from 1 to 4096");
        }
        for temperature in [-0.1, 2.1, f64::NAN, f64::INFINITY] {
            let sampling = Sampling { temperature: Some(temperature), ..Sampling::default() };
            refused("a", sampling, "`temperature` must be from 0 to 2");
        }
        let stops = |stop: &[&str]| Sampling {
            stop: stop.iter().map(|&stop| stop.to_owned()).collect(),
            ..Sampling::default()
        };
        refused("a", stops(&["1", "2", "3", "4", "5"]), "more than 4");
        refused("a", stops(&["1", ""]), "is empty");
        let long = "x".repeat(257);
        refused("a", stops(&["1", &long]), "more than 256 bytes");
        assert!(Job::new("a".to_owned(), Some(stops(&[&long[1..]]))).is_ok());
    }
}
