//! Names and roles of users.

use std::borrow::Cow;
use std::fmt;

use sdk::{Error, RecordKey, check_count, check_id};

const MAX_NAME: usize = 32;
const MIN_NAME: usize = 3;
const MAX_ROLES: usize = 16;

/// The name of a user, which is its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Username(String);

impl Username {
    pub(crate) fn new(name: &str) -> Result<Self, Error> {
        check_id("username", name, MAX_NAME)?;
        if name.len() < MIN_NAME || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            let wanted = format_args!("{MIN_NAME} to {MAX_NAME} lower-case letters, digits, `_` and `-`");
            return Err(Error::invalid(format_args!("username must be {wanted}")));
        }
        Ok(Self(name.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user `{}`", self.0)
    }
}

impl RecordKey for Username {
    fn bucket_key(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.0)
    }
}

/// The key of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionKey {
    pub(crate) username: String,
    pub(crate) id: String,
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session `{}` of user `{}`", self.id, self.username)
    }
}

impl RecordKey for SessionKey {
    fn bucket_key(&self) -> Cow<'_, str> {
        format!("{}.{}", self.username, self.id).into()
    }
}

/// Roles in alphabetic order, each once.
pub(crate) fn roles(mut roles: Vec<String>) -> Result<Vec<String>, Error> {
    check_count("roles", roles.len(), MAX_ROLES)?;
    for role in &roles {
        check_id("role", role, MAX_NAME)?;
    }
    roles.sort_unstable();
    roles.dedup();
    Ok(roles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_roles_are_checked() {
        for (name, accepted) in [("al", false), ("ali", true), ("Alice", false), ("a.b", false), ("a_b-1", true)] {
            assert_eq!(Username::new(name).is_ok(), accepted, "{name}");
        }
        let given = |names: &[&str]| roles(names.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(given(&["b", "a", "b"]), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert!(given(&["a b"]).is_err() && given(&["r"; 17]).is_err());
    }
}
