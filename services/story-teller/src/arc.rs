//! Arcs: their form, with beats and flags as numbers.

use std::collections::BTreeMap;

use proto::story::v1::{Arc, Beat, Choice};
use sdk::{Error, check_count, check_id, check_text};

/// Bytes of an id and of a flag.
const MAX_ID: usize = 64;
const MAX_TITLE: usize = 256;
const MAX_BEATS: usize = 256;
const MAX_BEAT_TEXT: usize = 4_096;
const MAX_CHOICES: usize = 16;
const MAX_CHOICE_TEXT: usize = 512;
const MAX_FLAGS: usize = 16;

/// An arc whose form is right.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Graph {
    pub(crate) first: usize,
    pub(crate) beats: Vec<Node>,
}

/// A beat.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) is_ending: bool,
    pub(crate) ways: Vec<Way>,
}

/// A choice; each flag is a bit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Way {
    pub(crate) to: usize,
    requires: u16,
    forbids: u16,
    sets: u16,
    clears: u16,
}

impl Way {
    /// The flags after it; `None` if it cannot be taken with these.
    pub(crate) fn taken(self, flags: u16) -> Option<u16> {
        let is_open = flags & self.requires == self.requires && flags & self.forbids == 0;
        is_open.then_some((flags & !self.clears) | self.sets)
    }
}

impl Graph {
    /// Refuses an arc whose form is wrong.
    pub(crate) fn new(arc: &Arc) -> Result<Self, Error> {
        check_id("arc id", &arc.id, MAX_ID)?;
        check_text("title", &arc.title, MAX_TITLE)?;
        if arc.beats.is_empty() {
            return Err(Error::invalid("an arc needs at least one beat"));
        }
        check_count("beats", arc.beats.len(), MAX_BEATS)?;
        let mut numbers = BTreeMap::new();
        for (number, beat) in arc.beats.iter().enumerate() {
            check_id("beat id", &beat.id, MAX_ID)?;
            check_text("the text of a beat", &beat.text, MAX_BEAT_TEXT)?;
            if numbers.insert(&*beat.id, number).is_some() {
                return Err(Error::invalid(format_args!("beat `{}` is given twice", beat.id)));
            }
        }
        let beat = |id: &str, named_by: &str| {
            let missing =
                || Error::invalid(format_args!("{named_by} names beat `{}`, which is not there", id.escape_debug()));
            numbers.get(id).copied().ok_or_else(missing)
        };
        let mut flags = Flags::default();
        let mut beats = Vec::with_capacity(arc.beats.len());
        for Beat { id, choices, is_ending, .. } in &arc.beats {
            check_count(&format!("choices of beat `{id}`"), choices.len(), MAX_CHOICES)?;
            if *is_ending && !choices.is_empty() {
                return Err(Error::invalid(format_args!("beat `{id}` is an ending, and has choices")));
            }
            let mut ways = Vec::with_capacity(choices.len());
            for (index, choice) in choices.iter().enumerate() {
                check_id("choice id", &choice.id, MAX_ID)?;
                check_text("the text of a choice", &choice.text, MAX_CHOICE_TEXT)?;
                if choices[..index].iter().any(|other| other.id == choice.id) {
                    return Err(Error::invalid(format_args!("choice `{}` of beat `{id}` is given twice", choice.id)));
                }
                ways.push(Way {
                    to: beat(&choice.to, &format!("choice `{}` of beat `{id}`", choice.id))?,
                    requires: flags.bits(&choice.requires)?,
                    forbids: flags.bits(&choice.forbids)?,
                    sets: flags.bits(&choice.sets)?,
                    clears: flags.bits(&choice.clears)?,
                });
            }
            beats.push(Node { id: id.clone(), is_ending: *is_ending, ways });
        }
        Ok(Self { first: beat(&arc.first_beat, "first_beat")?, beats })
    }
}

/// The flags of an arc, each with its bit.
#[derive(Debug, Default)]
struct Flags(BTreeMap<String, u16>);

impl Flags {
    fn bits(&mut self, names: &[String]) -> Result<u16, Error> {
        let mut bits = 0;
        for name in names {
            check_id("flag", name, MAX_ID)?;
            let known = self.0.len();
            bits |= match self.0.get(name) {
                Some(bit) => *bit,
                None => {
                    check_count("flags", known + 1, MAX_FLAGS)?;
                    self.0.insert(name.clone(), 1 << known);
                    1 << known
                }
            };
        }
        Ok(bits)
    }
}

/// Whether a choice can be taken with these flags.
pub(crate) fn is_open(choice: &Choice, flags: &[String]) -> bool {
    choice.requires.iter().all(|flag| flags.contains(flag)) && !choice.forbids.iter().any(|flag| flags.contains(flag))
}
