//! Subjects and patterns of subjects that requests contain.

use std::fmt;

use proto::rpc::Error;

/// A pattern of subjects, as NATS has them: tokens with `.` between them, of which `*` stands for any one token, and `>` at the
/// end for one or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectPattern(String);

impl SubjectPattern {
    /// Parses a pattern. `what` names the field.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with what is accepted.
    pub fn new(what: &str, text: &str, max_bytes: usize) -> Result<Self, Error> {
        let is_valid = |(index, token): (usize, &str)| match token {
            "*" => true,
            ">" => text[index..].len() == 1,
            token => is_token(token),
        };
        if text.len() <= max_bytes && tokens(text).all(is_valid) {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::invalid(format_args!(
            "{what} must be 1 to {max_bytes} bytes: tokens of letters, digits, `_` and `-` with `.` between them, of which one may \
             be `*`, for any token, and the last `>`, for one or more"
        )))
    }

    /// Whether a subject without wildcards matches.
    pub fn matches(&self, subject: &str) -> bool {
        let (mut pattern, mut subject) = (self.0.split('.'), subject.split('.'));
        loop {
            match (pattern.next(), subject.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                (Some("*"), Some(_)) => {}
                (Some(one), Some(other)) if one == other => {}
                _ => return false,
            }
        }
    }

    /// The pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SubjectPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Rejects what is no subject, has wildcards, or is longer than `max_bytes`. `what` names the field.
///
/// # Errors
/// INVALID_ARGUMENT with what is accepted.
pub fn check_subject(what: &str, text: &str, max_bytes: usize) -> Result<(), Error> {
    if text.len() <= max_bytes && tokens(text).all(|(_, token)| is_token(token)) {
        return Ok(());
    }
    Err(Error::invalid(format_args!(
        "{what} must be 1 to {max_bytes} bytes: tokens of letters, digits, `_` and `-` with `.` between them"
    )))
}

/// The tokens, each with the index at which it begins.
fn tokens(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split('.').scan(0, |next, token| {
        let index = *next;
        *next += token.len() + 1;
        Some((index, token))
    })
}

fn is_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, subject: &str, expected: bool) {
        assert_eq!(
            SubjectPattern::new("subject", pattern, 32).unwrap().matches(subject),
            expected,
            "{pattern} {subject}"
        );
    }

    #[test]
    fn a_pattern_matches_as_on_nats() {
        check("orders.eu", "orders.eu", true);
        check("orders.eu", "orders", false);
        check("orders.*", "orders.eu", true);
        check("orders.*", "orders.eu.new", false);
        check("*.eu.*", "orders.eu.new", true);
        check("orders.>", "orders.eu.new", true);
        check("orders.>", "orders", false);
        check(">", "orders", true);
    }

    #[test]
    fn what_is_no_subject_is_refused() {
        for text in ["", ".", "a.", "a..b", "a b", ">.a", "a.>.b", "a*", "a.>>", "a\n", &"a".repeat(33)] {
            let error = SubjectPattern::new("subject", text, 32).unwrap_err();
            assert!(error.message().starts_with("subject must be 1 to 32 bytes: tokens of"), "{text}: {error}");
            assert!(check_subject("subject", text, 32).is_err(), "{text}");
        }
        assert!(check_subject("topic", "a.*", 32).is_err());
        assert_eq!(check_subject("topic", "orders.eu-1.new_2", 32), Ok(()));
    }
}
