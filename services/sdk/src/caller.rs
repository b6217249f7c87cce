//! Who made a request, and where its answer may go.
//!
//! Whoever answers a request publishes to a reply subject that the caller chose, with rights of its own. So a worker
//! answers to nothing but inboxes of the identity that called: anything else is not carried out at all.

use async_nats::{Message, Subject};

use crate::reply::AnswerTo;

/// The identity of people and their tools, whose clients use the default inbox.
const OPERATOR: &str = "operator";
/// Inboxes of clients that choose none of their own.
const DEFAULT_INBOX: &str = "_INBOX.";

/// The subject of a request without the prefix of its service: `generate`, or `generate.gateway` where the servers have
/// appended the name of the account that called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Called<'a> {
    /// Last token of the method's subject.
    pub(crate) operation: &'a str,
    /// The name of the caller; `None` if there is one account for all.
    pub(crate) caller: Option<&'a str>,
}

impl<'a> Called<'a> {
    /// `prefix` is the subject of the service, for example `svc.quest.v1`.
    pub(crate) fn parse(prefix: &str, subject: &'a str) -> Self {
        let called = subject.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')).unwrap_or_default();
        match called.split_once('.') {
            Some((operation, caller)) => Self { operation, caller: Some(caller) },
            None => Self { operation: called, caller: None },
        }
    }

    /// Whether the answer to a call with this reply subject reaches nobody but the caller.
    pub(crate) fn takes_answers_on(self, reply: &str) -> bool {
        let reply = AnswerTo::subject_of(reply);
        match self.caller {
            Some(OPERATOR) => reply.starts_with(DEFAULT_INBOX),
            Some(caller) => {
                let inbox = reply.strip_prefix("_INBOX_").and_then(|rest| rest.strip_prefix(caller));
                inbox.is_some_and(|rest| rest.starts_with('.'))
            }
            None => reply.starts_with(DEFAULT_INBOX) || reply.starts_with("_INBOX_"),
        }
    }
}

/// Where a discovery request is answered; `None` if its reply subject is no inbox.
pub(crate) fn discovery_inbox(message: &Message) -> Option<Subject> {
    message.reply.clone().filter(|reply| reply.starts_with(DEFAULT_INBOX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(subject: &str, reply: &str, answered: bool) {
        let called = Called::parse("svc.quest.v1", subject);
        assert_eq!(called.operation, "generate");
        assert_eq!(called.takes_answers_on(reply), answered, "{subject} {reply}");
    }

    #[test]
    fn a_caller_is_answered_in_its_own_inbox_only() {
        check("svc.quest.v1.generate.gateway", "_INBOX_gateway.1.2", true);
        check("svc.quest.v1.generate.gateway", "_INBOX_gateway.1.call-2", true);
        check("svc.quest.v1.generate.gateway", "_INBOX_gateway", false);
        check("svc.quest.v1.generate.gateway", "_INBOX_gateway.call-2", false);
        check("svc.quest.v1.generate.gateway", "_INBOX_gateway-2.1", false);
        check("svc.quest.v1.generate.gateway", "_INBOX_npc-behavior.1", false);
        check("svc.quest.v1.generate.gateway", "_INBOX.1", false);
        check("svc.quest.v1.generate.gateway", "$KV.players.p", false);
    }

    #[test]
    fn people_are_answered_in_the_default_inbox() {
        check("svc.quest.v1.generate.operator", "_INBOX.1.2", true);
        check("svc.quest.v1.generate.operator", "_INBOX_gateway.1", false);
        check("svc.quest.v1.generate.operator", "svc.state.manager.v1.update", false);
    }

    #[test]
    fn in_one_account_for_all_only_inboxes_are_answered() {
        check("svc.quest.v1.generate", "_INBOX.1", true);
        check("svc.quest.v1.generate", "_INBOX_gateway.1", true);
        check("svc.quest.v1.generate", "$JS.API.STREAM.DELETE.KV_quests", false);
        check("svc.quest.v1.generate", "evt.quest.generated.v1", false);
    }
}
