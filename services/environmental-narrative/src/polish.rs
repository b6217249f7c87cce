//! Has ai-integration reword a description, as far as that is quick and good.

use std::time::Duration;

use proto::ai::llm::v1::{InferRequest, Llm, Sampling};
use sdk::{Error, check_text};
use tokio::time::{Instant, timeout};

/// The most that a caller waits for it, also if the deadline is far.
const TIMEOUT: Duration = Duration::from_secs(2);
const MAX_TOKENS: u32 = 256;
const MAX_BYTES: usize = 4_096;
/// Words that follow in a prompt.
const INSTRUCTION: &str = "Reword this description of a place in one vivid paragraph. Add no facts.";

/// The description in other words; the error is why there are none, as a sentence.
pub(crate) async fn reworded(llm: &impl Llm, text: &str, seed: u64, deadline: Instant) -> Result<String, String> {
    let sampling =
        Sampling { max_tokens: Some(MAX_TOKENS), temperature: Some(0.7), seed: Some(seed), stop: Vec::new() };
    let request = InferRequest {
        prompt: format!("{INSTRUCTION}\n\n{text}\n\n"),
        capability: "narrative".to_owned(),
        sampling: Some(sampling),
        ..InferRequest::default()
    };
    // Half of the time is left for the answer to travel.
    let time = TIMEOUT.min(deadline.saturating_duration_since(Instant::now()) / 2);
    match timeout(time, llm.infer(request)).await {
        Err(_) => Err(format!("ai-integration took longer than {} ms", time.as_millis())),
        Ok(Err(error)) => Err(format!("ai-integration failed: {error}")),
        Ok(Ok(response)) => {
            usable(response.text.trim()).map_err(|error| format!("the text is not usable: {}", error.message()))
        }
    }
}

fn usable(text: &str) -> Result<String, Error> {
    check_text("text", text, MAX_BYTES)?;
    Ok(text.to_owned())
}
