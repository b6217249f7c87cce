//! Checks of what requests contain: each says which field is wrong, and what is accepted.

use std::fmt::Display;
use std::ops::RangeInclusive;

use proto::rpc::{Code, Enumeration, Error};

/// Rejects an id that cannot be one token of a key, or is longer than `max_length`. `what` names it, for example
/// `player id`.
///
/// # Errors
/// INVALID_ARGUMENT with the allowed characters.
pub fn check_id(what: &str, id: &str, max_length: usize) -> Result<(), Error> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    if (1..=max_length).contains(&id.len()) && id.chars().all(allowed) {
        return Ok(());
    }
    Err(Error::invalid(format_args!("{what} must be 1 to {max_length} letters, digits, `_` and `-`")))
}

/// Rejects a text that is empty, longer than `max_bytes` of UTF-8, or contains control characters other than line breaks and
/// tabs.
///
/// # Errors
/// INVALID_ARGUMENT that says which.
pub fn check_text(what: &str, text: &str, max_bytes: usize) -> Result<(), Error> {
    if text.is_empty() {
        return Err(Error::invalid(format_args!("{what} is empty")));
    }
    if text.len() > max_bytes {
        return Err(Error::invalid(format_args!("{what} has {} bytes, at most {max_bytes} are allowed", text.len())));
    }
    match text.chars().find(|letter| letter.is_control() && !matches!(letter, '\n' | '\t')) {
        Some(letter) => Err(Error::invalid(format_args!("{what} contains {}", letter.escape_unicode()))),
        None => Ok(()),
    }
}

/// Rejects more than `max` items. `what` is plural, for example `tags`.
///
/// # Errors
/// INVALID_ARGUMENT with both numbers.
pub fn check_count(what: &str, count: usize, max: usize) -> Result<(), Error> {
    match count {
        _ if count <= max => Ok(()),
        _ => Err(Error::invalid(format_args!("there are {count} {what}, at most {max} are allowed"))),
    }
}

/// Rejects a value outside of `allowed`; a number that is not finite is outside of every range.
///
/// # Errors
/// INVALID_ARGUMENT with the range.
pub fn check_range<T: PartialOrd + Display>(what: &str, value: T, allowed: RangeInclusive<T>) -> Result<T, Error> {
    if allowed.contains(&value) {
        return Ok(value);
    }
    let (from, to) = allowed.into_inner();
    Err(Error::invalid(format_args!("{what} is {value}, it must be {from} to {to}")))
}

/// The same of a number that may be left unset: 0 stands for `default`.
///
/// # Errors
/// INVALID_ARGUMENT with the range.
pub fn check_range_or(what: &str, value: u32, allowed: RangeInclusive<u32>, default: u32) -> Result<u32, Error> {
    match value {
        0 => Ok(default),
        _ => check_range(what, value, allowed),
    }
}

/// Rejects to replace another revision than the expected one; 0 is that of what does not exist. `what` names the record.
///
/// # Errors
/// ABORTED with `current_revision`.
pub fn check_revision(what: impl Display, revision: u64, expected: Option<u64>) -> Result<(), Error> {
    match expected {
        Some(expected) if expected != revision => {
            let message = format!("{what} is at revision {revision}, not at {expected}");
            Err(Error::new(Code::Aborted, message).with_detail("current_revision", revision))
        }
        _ => Ok(()),
    }
}

/// The value of a field that must be set.
///
/// # Errors
/// INVALID_ARGUMENT if it is not.
pub fn required<T>(what: &str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| Error::invalid(format_args!("{what} is missing")))
}

/// The value of an enumeration that must be set.
///
/// # Errors
/// INVALID_ARGUMENT with the values that are accepted.
pub fn choice<E: Enumeration>(what: &str, value: i32) -> Result<E, Error> {
    let refused =
        |reason: &str| Error::invalid(format_args!("{what} {reason}, it must be one of {}", E::NAMES.join(", ")));
    match E::try_from(value) {
        Ok(known) if E::NAMES.contains(&known.name()) => Ok(known),
        Ok(_) => Err(refused("is missing")),
        Err(_) => Err(refused(&format!("is {value}"))),
    }
}

/// The same of one that may be left unset: `None` then.
///
/// # Errors
/// INVALID_ARGUMENT if the value is unknown, with those that are accepted.
pub fn choice_or_unset<E: Enumeration>(what: &str, value: i32) -> Result<Option<E>, Error> {
    match value {
        0 => Ok(None),
        _ => choice(what, value).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::quest::v1::QuestState;

    #[track_caller]
    fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>, message: &str) {
        let error = outcome.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::InvalidArgument, message));
    }

    #[test]
    fn what_is_within_the_limits_is_accepted() {
        assert_eq!(check_id("id", "Orc-7_b", 7), Ok(()));
        assert_eq!(check_text("name", "a\nb\tÖ", 6), Ok(()));
        assert_eq!(check_count("tags", 3, 3), Ok(()));
        assert_eq!(check_range("level", 100, 1..=100), Ok(100));
        assert_eq!(check_range_or("limit", 0, 1..=100, 20), Ok(20));
        assert_eq!(required("point", Some(1)), Ok(1));
        assert_eq!(choice("state", 2), Ok(QuestState::Active));
        assert_eq!(choice_or_unset::<QuestState>("state", 0), Ok(None));
    }

    #[test]
    fn a_refusal_names_the_field_and_what_is_accepted() {
        refused(check_id("player id", "a.b", 64), "player id must be 1 to 64 letters, digits, `_` and `-`");
        refused(check_text("name", "", 9), "name is empty");
        refused(check_text("name", "Öl", 2), "name has 3 bytes, at most 2 are allowed");
        refused(check_text("name", "a\0", 9), "name contains \\u{0}");
        refused(check_count("tags", 4, 3), "there are 4 tags, at most 3 are allowed");
        refused(check_range("level", 0, 1..=100), "level is 0, it must be 1 to 100");
        refused(check_range_or("limit", 101, 1..=100, 20), "limit is 101, it must be 1 to 100");
        refused(check_range("cost", f64::NAN, 0.0..=1.0), "cost is NaN, it must be 0 to 1");
        refused(required::<u8>("point", None), "point is missing");
        let names = "it must be one of QUEST_STATE_OFFERED, QUEST_STATE_ACTIVE, QUEST_STATE_COMPLETED, \
                     QUEST_STATE_ABANDONED, QUEST_STATE_EXPIRED";
        refused(choice::<QuestState>("state", 0), &format!("state is missing, {names}"));
        refused(choice::<QuestState>("state", 9), &format!("state is 9, {names}"));
        refused(choice_or_unset::<QuestState>("state", 9), &format!("state is 9, {names}"));
    }

    #[test]
    fn another_revision_than_the_expected_one_is_not_replaced() {
        assert_eq!((check_revision("rule `a`", 7, None), check_revision("rule `a`", 0, Some(0))), (Ok(()), Ok(())));
        let error = check_revision("rule `a`", 7, Some(0)).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Aborted, "rule `a` is at revision 7, not at 0"));
        assert_eq!(error.detail("current_revision"), Some("7"));
    }
}
