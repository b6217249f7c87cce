//! Messages to a topic of SNS: mail, chat, or whatever is subscribed to it.

use super::Aws;
use super::error::failed;

/// Characters of a subject; SNS takes no more, and no line breaks.
const LONGEST_SUBJECT: usize = 100;

/// Sends a message to a topic; the subject is its first line.
///
/// # Errors
/// There is no such topic, or the caller may not publish to it.
pub(crate) async fn publish(aws: &Aws, topic: &str, text: &str) -> anyhow::Result<()> {
    let first = text.lines().next().unwrap_or_default();
    // Only ASCII is allowed in a subject.
    let subject: String = first.chars().filter(char::is_ascii).filter(|letter| !letter.is_control()).collect();
    let subject: String = subject.chars().take(LONGEST_SUBJECT).collect();
    let sent = aws.clients.sns().publish().topic_arn(topic).subject(subject).message(text).send().await;
    sent.map(drop).map_err(|error| failed(&format!("publish to `{topic}`"), error))
}
