//! Reply subjects: how an answer finds the call that it is for.
//!
//! The reply subject of a call is `<inbox>.<slot>.call-<token>`. A client of any kind may answer there. A worker with this
//! SDK publishes its answer to `<inbox>.<slot>` instead, and sends `call-<token>` as the reply subject of the answer. Slots
//! are used again and again, and nats-server remembers who is subscribed to a subject that it has seen: a subject that
//! never repeats costs it a look-up for each answer.
//!
//! In both forms an answer bears the token of its call. One that comes late or twice bears the token of a call that is
//! over, and reaches no other call, whichever slot it names.

use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::BuildHasher as _;

use async_nats::Subject;
use bytes::Bytes;

/// Marks the last token of a reply subject as one that the answer may bear instead of its subject.
const MARK: &str = "call-";
/// Hexadecimal digits of a token.
const DIGITS: usize = 16;

/// Identifies one call among all that its caller makes. Only those who saw the call know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallToken(u64);

/// The tokens of one inbox.
#[derive(Debug, Default)]
pub(crate) struct CallTokens {
    /// Keys of their own: so no service can compute the next token from those of the calls that it received.
    hash: RandomState,
    calls: u64,
}

impl CallTokens {
    /// The token of the next call.
    pub(crate) fn next(&mut self) -> CallToken {
        self.calls = self.calls.wrapping_add(1);
        CallToken(self.hash.hash_one(self.calls))
    }
}

/// Where the answer to a call is published.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AnswerTo {
    pub(crate) subject: Subject,
    /// The reply subject of the answer, if its caller understands that. Whatever the caller chose, it is one token that begins
    /// with [`MARK`], on which nobody is subscribed.
    pub(crate) token: Option<Subject>,
}

impl AnswerTo {
    /// `reply` is the reply subject of a call.
    pub(crate) fn new(reply: Subject) -> Self {
        let Some(end) = slot(&reply).map(str::len) else {
            return Self { subject: reply, token: None };
        };
        let mut subject = Bytes::from(reply.into_string());
        let token = subject.split_off(end).slice(1..);
        // Parts of text that are cut at a dot are text.
        let part = |bytes: Bytes| Subject::from_utf8(bytes).unwrap_or_else(|_| Subject::from_static(""));
        Self { subject: part(subject), token: Some(part(token)) }
    }

    /// The subject on which a call with this reply subject is answered.
    pub(crate) fn subject_of(reply: &str) -> &str {
        slot(reply).unwrap_or(reply)
    }
}

/// `reply` without its last token, if that is marked as the token of a call.
fn slot(reply: &str) -> Option<&str> {
    reply.rsplit_once('.').filter(|(_, last)| last.starts_with(MARK)).map(|(slot, _)| slot)
}

/// The reply subject of a call in `slot` of an inbox. `inbox` ends with a dot.
pub(crate) fn reply_subject(inbox: &str, slot: usize, token: CallToken) -> Subject {
    let mut subject = String::with_capacity(inbox.len() + 2 * size_of::<usize>() + 1 + MARK.len() + DIGITS);
    // Writing to a string does not fail.
    let _ = write!(subject, "{inbox}{slot:x}.{MARK}{:0DIGITS$x}", token.0);
    subject.into()
}

/// Slot and token of an answer: its subject without the inbox, and its reply subject. `None` if it is no answer to a call.
pub(crate) fn parse_answer(subject: &str, reply: Option<&str>) -> Option<(usize, CallToken)> {
    let (slot, token) = match subject.split_once('.') {
        Some((slot, token)) => (slot, token),
        None => (subject, reply?),
    };
    let token = token.strip_prefix(MARK).filter(|digits| digits.len() == DIGITS)?;
    Some((usize::from_str_radix(slot, 16).ok()?, CallToken(u64::from_str_radix(token, 16).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: CallToken = CallToken(0xabc);

    #[test]
    fn both_forms_of_an_answer_name_slot_and_call() {
        let reply = reply_subject("_INBOX_a.1.", 0x1f, TOKEN);
        assert_eq!(&*reply, "_INBOX_a.1.1f.call-0000000000000abc");
        assert_eq!(AnswerTo::subject_of(&reply), "_INBOX_a.1.1f");
        let inbox = |subject: &Subject| subject.strip_prefix("_INBOX_a.1.").unwrap().to_owned();
        assert_eq!(parse_answer(&inbox(&reply), None), Some((0x1f, TOKEN)));
        assert_eq!(parse_answer(&inbox(&reply), Some("other")), Some((0x1f, TOKEN)));
        let short = AnswerTo::new(reply);
        assert_eq!(parse_answer(&inbox(&short.subject), short.token.as_deref()), Some((0x1f, TOKEN)));
        assert_eq!(parse_answer(&inbox(&short.subject), None), None);
    }

    #[test]
    fn reply_subjects_of_other_clients_are_left_alone() {
        for reply in ["_INBOX.abc.1", "_INBOX_gateway.0123.1f-2", "_INBOX.call-1.x", "call-0000000000000abc"] {
            let whole = AnswerTo { subject: reply.into(), token: None };
            assert_eq!((AnswerTo::new(reply.into()), AnswerTo::subject_of(reply)), (whole, reply));
        }
    }

    #[test]
    fn what_is_no_answer_has_no_slot() {
        #[track_caller]
        fn check(subject: &str, reply: Option<&str>) {
            assert_eq!(parse_answer(subject, reply), None, "{subject} {reply:?}");
        }
        check("1f", None);
        check("1f", Some("_STREAM_llm.1.2"));
        check("1f", Some("call-abc"));
        check("1f", Some("call-+000000000000abc0"));
        check("1f.0000000000000abc", None);
        check("1f.2.call-0000000000000abc", None);
        check("x.call-0000000000000abc", None);
        check("", Some("call-0000000000000abc"));
    }

    #[test]
    fn tokens_of_different_inboxes_differ() {
        let (mut one, mut other) = (CallTokens::default(), CallTokens::default());
        assert_ne!(one.next(), other.next());
        assert_ne!(one.next(), one.next());
    }
}
