//! Keys of definitions and values.

use std::borrow::Cow;
use std::fmt;

use sdk::{Error, RecordKey, check_id};

/// Bytes of a setting's key and of a player's id.
const MAX_ID: usize = 64;
const MAX_WORDS: usize = 4;

/// The key of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key(String);

/// The key of the value of a setting: the global one, or that of a player.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ValueKey<'a> {
    pub(crate) key: &'a str,
    pub(crate) owner: &'a Owner,
}

/// Whose values they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    All,
    Player(String),
}

impl Key {
    pub(crate) fn new(key: &str) -> Result<Self, Error> {
        let words: Vec<&str> = key.split('.').collect();
        let is_valid = key.len() <= MAX_ID && words.len() <= MAX_WORDS;
        if !is_valid || words.iter().any(|word| check_id("key", word, MAX_ID).is_err()) {
            return Err(Error::invalid(format_args!(
                "key must be 1 to {MAX_WORDS} words of letters, digits, `_` and `-` with `.` between them, at most \
                 {MAX_ID} bytes, for example audio.volume"
            )));
        }
        Ok(Self(key.to_owned()))
    }
}

impl Owner {
    /// The player, or all if `player_id` is empty.
    pub(crate) fn new(player_id: &str) -> Result<Self, Error> {
        if player_id.is_empty() {
            return Ok(Self::All);
        }
        check_id("player_id", player_id, MAX_ID)?;
        Ok(Self::Player(player_id.to_owned()))
    }

    /// Matches all values of the owner.
    pub(crate) fn filter(&self) -> String {
        format!("{}.>", self.prefix())
    }

    fn prefix(&self) -> Cow<'_, str> {
        match self {
            Self::All => "global".into(),
            Self::Player(id) => format!("player.{id}").into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "setting `{}`", self.0)
    }
}

impl RecordKey for Key {
    fn bucket_key(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.0)
    }
}

impl fmt::Display for ValueKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.owner {
            Owner::All => write!(f, "the global value of setting `{}`", self.key),
            Owner::Player(id) => write!(f, "the value of setting `{}` for player `{id}`", self.key),
        }
    }
}

impl RecordKey for ValueKey<'_> {
    fn bucket_key(&self) -> Cow<'_, str> {
        format!("{}.{}", self.owner.prefix(), self.key).into()
    }
}
