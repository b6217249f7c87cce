//! Backends that run models: the embedded one, or HTTP endpoints that the manifest configures.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use proto::ai::llm::v1::FinishReason;
use proto::ai::model::v1::Model;
use proto::common::v1::TokenUsage;
use sdk::Error;

use crate::http::Endpoint;
use crate::job::Job;
use crate::ngram::Generator;
use crate::stop_sequences::{Filtered, StopFilter};
use crate::tokens;

/// The embedded generator yields to other requests after this many tokens: about 0.1 ms.
const TOKENS_PER_TURN: u32 = 16;

/// A text as it is generated.
pub(crate) type Generation = BoxStream<'static, Result<Piece, Error>>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    Text(String),
    /// Always the last piece.
    End(Ending),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ending {
    pub(crate) finish: FinishReason,
    /// As the backend reported it; absent if it did not.
    pub(crate) usage: Option<TokenUsage>,
}

/// A complete text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Completion {
    pub(crate) text: String,
    pub(crate) ending: Ending,
}

/// All configured backends.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    endpoints: BTreeMap<String, Arc<Endpoint>>,
}

/// The backend of one model.
#[derive(Debug)]
pub(crate) enum Backend {
    Embedded,
    Http(Arc<Endpoint>),
}

impl Backends {
    /// Reads the settings: `LLM_BACKENDS` names endpoints (`remote=https://host/v1,other=…`), `LLM_API_KEY_<NAME>`
    /// holds the API key of one, and `LLM_MODEL_NAMES` maps model ids to the names on the endpoints
    /// (`llama=meta-llama/Llama-3-8B`).
    pub(crate) fn from_settings(setting: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let names = pairs("LLM_MODEL_NAMES", &setting)?;
        let mut endpoints = BTreeMap::new();
        for (name, url) in pairs("LLM_BACKENDS", &setting)? {
            let key = setting(&format!("LLM_API_KEY_{}", name.to_uppercase().replace(['-', '.'], "_")));
            let endpoint = Endpoint::new(&name, &url, key, names.clone())?;
            endpoints.insert(name, Arc::new(endpoint));
        }
        Ok(Self { endpoints })
    }

    pub(crate) fn for_model(&self, model: &Model) -> Result<Backend, Error> {
        match model.backend.as_str() {
            "" => Ok(Backend::Embedded),
            name => match self.endpoints.get(name) {
                Some(endpoint) => Ok(Backend::Http(Arc::clone(endpoint))),
                None => Err(Error::failed_precondition(format_args!(
                    "model `{}` runs on backend `{name}`, which `LLM_BACKENDS` does not name",
                    model.id
                ))),
            },
        }
    }
}

impl Backend {
    pub(crate) async fn complete(&self, model_id: &str, job: &Job) -> Result<Completion, Error> {
        match self {
            Self::Embedded => collect(embedded(model_id, job)).await,
            Self::Http(endpoint) => endpoint.complete(model_id, job).await,
        }
    }

    pub(crate) async fn stream(&self, model_id: &str, job: &Job) -> Result<Generation, Error> {
        match self {
            Self::Embedded => Ok(embedded(model_id, job)),
            Self::Http(endpoint) => endpoint.stream(model_id, job).await,
        }
    }
}

/// Parses a list of the form `a=1, b=2`.
fn pairs(name: &str, setting: impl Fn(&str) -> Option<String>) -> Result<BTreeMap<String, String>, String> {
    let value = setting(name).unwrap_or_default();
    let mut pairs = BTreeMap::new();
    for item in value.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        // The error does not show the item: it could contain a misplaced API key.
        let (key, value) = item
            .split_once('=')
            .map(|(key, value)| (key.trim(), value.trim()))
            .filter(|(key, value)| !key.is_empty() && !value.is_empty())
            .ok_or_else(|| format!("`{name}` must be a list of the form `name=value,name=value`"))?;
        if pairs.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("`{name}` names `{key}` twice"));
        }
    }
    Ok(pairs)
}

fn embedded(model_id: &str, job: &Job) -> Generation {
    let work = Embedded {
        generator: Generator::new(model_id, job),
        stop_filter: StopFilter::new(job.stop.clone()),
        remaining: job.max_tokens,
        finish: None,
        ended: false,
    };
    stream::unfold(work, |mut work| async move {
        let piece = work.next().await?;
        Some((Ok(piece), work))
    })
    .boxed()
}

struct Embedded {
    generator: Generator,
    stop_filter: StopFilter,
    remaining: u32,
    /// Set when the text is complete.
    finish: Option<FinishReason>,
    ended: bool,
}

impl Embedded {
    async fn next(&mut self) -> Option<Piece> {
        while self.finish.is_none() {
            if self.remaining.is_multiple_of(TOKENS_PER_TURN) {
                tokio::task::yield_now().await;
            }
            let (text, finish) = self.advance();
            self.finish = finish;
            if !text.is_empty() {
                return Some(Piece::Text(text));
            }
        }
        if std::mem::replace(&mut self.ended, true) {
            return None;
        }
        self.finish.map(|finish| Piece::End(Ending { finish, usage: None }))
    }

    /// Generates one token. Returns the text that can be released, and the finish reason if it was the last one.
    fn advance(&mut self) -> (String, Option<FinishReason>) {
        if self.remaining == 0 {
            return (self.stop_filter.finish(), Some(FinishReason::Length));
        }
        let Some(token) = self.generator.next() else {
            return (self.stop_filter.finish(), Some(FinishReason::End));
        };
        self.remaining -= 1;
        match self.stop_filter.push(&token) {
            Filtered::Text(text) => (text, None),
            Filtered::Stopped(rest) => (rest, Some(FinishReason::Stop)),
        }
    }
}

async fn collect(mut generation: Generation) -> Result<Completion, Error> {
    let mut text = String::new();
    while let Some(piece) = generation.try_next().await? {
        match piece {
            Piece::Text(more) => text.push_str(&more),
            Piece::End(ending) => return Ok(Completion { text, ending }),
        }
    }
    Err(Error::internal("the generation ended without a finish reason"))
}

/// The usage as the backend reported it, or else an estimate.
pub(crate) fn usage(job: &Job, text: &str, reported: Option<TokenUsage>) -> TokenUsage {
    reported.unwrap_or_else(|| {
        let (prompt_tokens, completion_tokens) = (job.prompt_tokens(), tokens::count(text));
        TokenUsage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(max_tokens: u32, stop: &[&str]) -> Job {
        Job {
            prompt: "The witch of the".to_owned(),
            max_tokens,
            temperature: Some(0.0),
            stop: stop.iter().map(|&stop| stop.to_owned()).collect(),
            seed: None,
        }
    }

    async fn complete(job: &Job) -> (String, FinishReason) {
        let completion = Backend::Embedded.complete("ngram-large", job).await.unwrap();
        (completion.text, completion.ending.finish)
    }

    #[tokio::test]
    async fn max_tokens_are_never_exceeded() {
        for max_tokens in [1, 2, 7, 15, 16, 17] {
            let (text, finish) = complete(&job(max_tokens, &[])).await;
            assert_eq!((tokens::count(&text), finish), (max_tokens, FinishReason::Length), "{text}");
        }
    }

    #[tokio::test]
    async fn a_stop_sequence_across_tokens_ends_the_text() {
        let (text, finish) = complete(&job(100, &["kinds of"])).await;
        assert_eq!((text.as_str(), finish), ("marsh sells three ", FinishReason::Stop));
    }

    #[tokio::test]
    async fn pending_text_is_released_at_the_end() {
        let (text, finish) = complete(&job(3, &["three hats"])).await;
        assert_eq!((text.as_str(), finish), ("marsh sells three", FinishReason::Length));
    }

    #[tokio::test]
    async fn a_model_can_end_a_text_itself() {
        let ends = (0..200).map(|seed| Job { seed: Some(seed), temperature: None, ..job(4_000, &[]) });
        for job in ends {
            let (text, finish) = complete(&job).await;
            if finish == FinishReason::End {
                assert!(text.ends_with('.'), "{text}");
                return;
            }
        }
        panic!("no text ended by itself");
    }

    #[tokio::test]
    async fn a_stream_has_the_text_of_a_completion_and_ends_once() {
        let job = job(40, &[]);
        let pieces: Vec<Piece> =
            Backend::Embedded.stream("ngram-large", &job).await.unwrap().try_collect().await.unwrap();
        let (last, texts) = pieces.split_last().unwrap();
        let text: String = texts
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.as_str(),
                Piece::End(_) => panic!("two ends"),
            })
            .collect();
        assert_eq!((text, FinishReason::Length), complete(&job).await);
        assert!(matches!(last, Piece::End(_)));
        assert_eq!(texts.len(), 40);
    }

    #[tokio::test]
    async fn a_long_generation_yields_to_other_tasks() {
        let mut turns = 0;
        let others = async {
            loop {
                turns += 1;
                tokio::task::yield_now().await;
            }
        };
        let job = Job { temperature: Some(2.0), ..job(4_096, &[]) };
        tokio::select! {
            (text, _) = complete(&job) => assert!(turns > 1 || tokens::count(&text) < 32, "{turns} {text}"),
            () = others => unreachable!("it never ends"),
        }
    }

    #[track_caller]
    fn refused(settings: &[(&str, &str)], because: &str) {
        let setting = |name: &str| {
            let found = settings.iter().find(|(known, _)| *known == name)?;
            Some(found.1.to_owned())
        };
        let reason = Backends::from_settings(setting).unwrap_err();
        assert!(reason.contains(because), "{reason}");
        assert!(!reason.contains("secret"), "{reason}");
    }

    #[test]
    fn wrong_settings_are_refused_without_showing_secrets() {
        refused(&[("LLM_BACKENDS", "secret")], "`LLM_BACKENDS` must be a list");
        refused(&[("LLM_BACKENDS", "a=http://x,a=http://y")], "names `a` twice");
        refused(&[("LLM_BACKENDS", "a=ftp://secret")], "backend `a`");
        refused(&[("LLM_BACKENDS", "a=https://user:secret@host/v1")], "backend `a`");
        refused(&[("LLM_BACKENDS", "a=https://host"), ("LLM_API_KEY_A", "secret\n")], "LLM_API_KEY");
        refused(&[("LLM_MODEL_NAMES", "=x")], "`LLM_MODEL_NAMES` must be a list");
    }

    #[test]
    fn a_model_on_an_unknown_backend_is_refused() {
        let model = Model { id: "far".to_owned(), backend: "moon".to_owned(), ..Model::default() };
        let error = Backends::default().for_model(&model).unwrap_err();
        assert_eq!(error.code(), sdk::Code::FailedPrecondition);
        assert!(error.message().contains("`moon`"), "{error}");
    }
}
