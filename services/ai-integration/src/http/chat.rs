//! The messages of OpenAI's chat completions, as far as they are used.

use proto::ai::llm::v1::FinishReason;
use proto::common::v1::TokenUsage;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::Job;

pub(crate) const MALFORMED: &str = "answered with something that is no chat completion";

#[derive(Debug, Serialize)]
pub(crate) struct Request<'a> {
    model: &'a str,
    messages: [Message<'a>; 1],
    max_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    stream: bool,
}

#[derive(Debug, Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(Debug, Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl<'a> Request<'a> {
    /// For an answer in one piece.
    pub(crate) fn whole(model: &'a str, job: &'a Job) -> Self {
        Self {
            model,
            messages: [Message { role: "user", content: &job.prompt }],
            max_tokens: job.max_tokens,
            temperature: job.temperature,
            stop: &job.stop,
            // There it has a sign.
            seed: job.seed.map(|seed| seed & (u64::MAX >> 1)),
            stream_options: None,
            stream: false,
        }
    }

    pub(crate) fn stream(model: &'a str, job: &'a Job) -> Self {
        Self { stream: true, stream_options: Some(StreamOptions { include_usage: true }), ..Self::whole(model, job) }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    pub(crate) choices: Vec<Choice>,
    pub(crate) usage: Option<Usage>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Choice {
    pub(crate) message: Content,
    #[serde(flatten)]
    pub(crate) end: End,
}

/// One event of a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct Part {
    #[serde(default)]
    pub(crate) choices: Vec<Addition>,
    pub(crate) usage: Option<Usage>,
    pub(crate) error: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Addition {
    #[serde(default)]
    pub(crate) delta: Content,
    #[serde(flatten)]
    pub(crate) end: End,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Content {
    pub(crate) content: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct End {
    finish_reason: Option<String>,
    /// Some backends say here which stop text it was.
    stop_reason: Option<Value>,
}

impl End {
    pub(crate) fn is_given(&self) -> bool {
        self.finish_reason.is_some()
    }

    /// Why the text ended; or that the rest of it is withheld.
    pub(crate) fn finish(&self) -> Result<FinishReason, &'static str> {
        match self.finish_reason.as_deref() {
            Some("length") => Ok(FinishReason::Length),
            Some("content_filter") => Err("withheld its answer"),
            // Both ends are called `stop`.
            _ if self.stop_reason.as_ref().is_some_and(Value::is_string) => Ok(FinishReason::Stop),
            _ => Ok(FinishReason::End),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Usage {
    prompt_tokens: u32,
    #[serde(default)]
    completion_tokens: u32,
}

impl From<Usage> for TokenUsage {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens.saturating_add(usage.completion_tokens),
        }
    }
}

/// The sentence for people in the body of an answer that is not a good one.
pub(crate) fn complaint(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    said(body.get("error").unwrap_or(&body)).map(str::to_owned)
}

/// `{"message": "…"}` or just the sentence.
pub(crate) fn said(error: &Value) -> Option<&str> {
    error.get("message").unwrap_or(error).as_str()
}
