//! The messages of the OpenAI chat completions API, with the fields that are used.

use proto::ai::llm::v1::FinishReason;
use proto::common::v1::TokenUsage;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::Job;

pub(crate) const MALFORMED: &str = "returned a response that is not a chat completion";

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
    /// Requests the whole text in one response.
    pub(crate) fn unary(model: &'a str, job: &'a Job) -> Self {
        Self {
            model,
            messages: [Message { role: "user", content: &job.prompt }],
            max_tokens: job.max_tokens,
            temperature: job.temperature,
            stop: &job.stop,
            // The API uses signed integers.
            seed: job.seed.map(|seed| seed & (u64::MAX >> 1)),
            stream_options: None,
            stream: false,
        }
    }

    pub(crate) fn stream(model: &'a str, job: &'a Job) -> Self {
        Self { stream: true, stream_options: Some(StreamOptions { include_usage: true }), ..Self::unary(model, job) }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Response {
    pub(crate) choices: Vec<Choice>,
    pub(crate) usage: Option<Usage>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Choice {
    pub(crate) message: Content,
    #[serde(flatten)]
    pub(crate) finish: Finish,
}

/// One event of a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct StreamEvent {
    #[serde(default)]
    pub(crate) choices: Vec<StreamChoice>,
    pub(crate) usage: Option<Usage>,
    pub(crate) error: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct StreamChoice {
    #[serde(default)]
    pub(crate) delta: Content,
    #[serde(flatten)]
    pub(crate) finish: Finish,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Content {
    pub(crate) content: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Finish {
    finish_reason: Option<String>,
    /// Some backends report the stop sequence here.
    stop_reason: Option<Value>,
}

impl Finish {
    pub(crate) fn is_set(&self) -> bool {
        self.finish_reason.is_some()
    }

    /// Why the text ended; an error if the backend withheld the text.
    pub(crate) fn reason(&self) -> Result<FinishReason, &'static str> {
        match self.finish_reason.as_deref() {
            Some("length") => Ok(FinishReason::Length),
            Some("content_filter") => Err("withheld its response (content filter)"),
            // The API reports `stop` for both: the end of the text, and a stop sequence.
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

/// The error message in the body of an unsuccessful response.
pub(crate) fn error_message(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    message_of(body.get("error").unwrap_or(&body)).map(str::to_owned)
}

/// The message of an error that is `{"message": "…"}` or a string.
pub(crate) fn message_of(error: &Value) -> Option<&str> {
    error.get("message").unwrap_or(error).as_str()
}
