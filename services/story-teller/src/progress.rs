//! The progress of a player through an arc.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use proto::story::v1::{Arc, Beat, Choice, Passed, Scene, Step, StoredProgress};
use proto::well_known::Timestamp;
use sdk::{Code, Error, RecordKey, check_id};

use crate::arc::is_open;

const MAX_ID: usize = 64;
/// Steps that are remembered.
const MAX_STEPS: usize = 200;

/// The key of a player's progress in an arc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProgressKey {
    player_id: String,
    arc_id: String,
}

impl ProgressKey {
    pub(crate) fn new(player_id: &str, arc_id: &str) -> Result<Self, Error> {
        check_id("player id", player_id, MAX_ID)?;
        check_id("arc id", arc_id, MAX_ID)?;
        Ok(Self { player_id: player_id.to_owned(), arc_id: arc_id.to_owned() })
    }
}

impl fmt::Display for ProgressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the progress of player `{}` in arc `{}`", self.player_id, self.arc_id)
    }
}

impl RecordKey for ProgressKey {
    fn bucket_key(&self) -> Cow<'_, str> {
        format!("{}.{}", self.player_id, self.arc_id).into()
    }
}

/// The beginning of an arc, unless the player is in the middle of it.
pub(crate) fn started(
    key: &ProgressKey,
    current: Option<&StoredProgress>,
    arc: &Arc,
    now: Timestamp,
) -> Result<StoredProgress, Error> {
    if let Some(current) = current
        && !beat(current)?.is_ending
    {
        let message = format!("player `{}` is at beat `{}` of arc `{}`", key.player_id, current.beat_id, key.arc_id);
        return Err(Error::new(Code::AlreadyExists, message));
    }
    Ok(StoredProgress {
        player_id: key.player_id.clone(),
        beat_id: arc.first_beat.clone(),
        arc: Some(arc.clone()),
        started_at: Some(now),
        ..StoredProgress::default()
    })
}

/// The progress after a choice.
pub(crate) fn advanced(mut progress: StoredProgress, choice_id: &str) -> Result<StoredProgress, Error> {
    let beat = beat(&progress)?;
    let open = |choice: &&Choice| is_open(choice, &progress.flags);
    let Some(choice) = beat.choices.iter().filter(open).find(|choice| choice.id == choice_id).cloned() else {
        let choices: Vec<&str> = beat.choices.iter().filter(open).map(|choice| &*choice.id).collect();
        let message = format_args!("`{}` cannot be chosen at beat `{}`", choice_id.escape_debug(), beat.id);
        return Err(Error::failed_precondition(message).with_detail("choices", choices.join(", ")));
    };
    let mut flags: BTreeSet<String> = std::mem::take(&mut progress.flags).into_iter().collect();
    flags.retain(|flag| !choice.clears.contains(flag));
    flags.extend(choice.sets);
    progress.flags = flags.into_iter().collect();
    if progress.steps.len() >= MAX_STEPS {
        progress.steps.remove(0);
    }
    let beat_id = std::mem::replace(&mut progress.beat_id, choice.to);
    progress.steps.push(Step { beat_id, choice_id: choice.id });
    Ok(progress)
}

/// Where the player is.
pub(crate) fn scene(progress: &StoredProgress, revision: u64) -> Result<Scene, Error> {
    let beat = beat(progress)?;
    Ok(Scene {
        arc_id: progress.arc.as_ref().map(|arc| arc.id.clone()).unwrap_or_default(),
        beat_id: beat.id.clone(),
        text: beat.text.clone(),
        choices: beat.choices.iter().filter(|choice| is_open(choice, &progress.flags)).cloned().collect(),
        has_ended: beat.is_ending,
        flags: progress.flags.clone(),
        revision,
    })
}

/// What has happened, oldest first.
pub(crate) fn recap(progress: &StoredProgress) -> Result<Vec<Passed>, Error> {
    let mut passed = Vec::with_capacity(progress.steps.len() + 1);
    for Step { beat_id, choice_id } in &progress.steps {
        let beat = beat_of(progress, beat_id)?;
        let choice = beat.choices.iter().find(|choice| choice.id == *choice_id);
        passed.push(Passed {
            beat_id: beat.id.clone(),
            text: beat.text.clone(),
            choice_id: choice_id.clone(),
            choice_text: choice.map(|choice| choice.text.clone()).unwrap_or_default(),
        });
    }
    let latest = beat(progress)?;
    passed.push(Passed { beat_id: latest.id.clone(), text: latest.text.clone(), ..Passed::default() });
    Ok(passed)
}

fn beat(progress: &StoredProgress) -> Result<&Beat, Error> {
    beat_of(progress, &progress.beat_id)
}

fn beat_of<'a>(progress: &'a StoredProgress, id: &str) -> Result<&'a Beat, Error> {
    let beats = progress.arc.iter().flat_map(|arc| &arc.beats);
    let lost = || Error::new(Code::DataLoss, format!("beat `{id}` is not in the stored arc"));
    { beats }.find(|beat| beat.id == id).ok_or_else(lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::arc;

    const NOW: Timestamp = Timestamp { seconds: 0, nanos: 0 };

    fn after(choices: &[&str]) -> Result<StoredProgress, Error> {
        let arc = arc("a", &["start: take>start+key drop>start-key open>end?key", "end."]);
        let key = ProgressKey::new("p", "a").unwrap();
        choices.iter().try_fold(started(&key, None, &arc, NOW).unwrap(), |progress, choice| advanced(progress, choice))
    }

    #[track_caller]
    fn check(choices: &[&str], beat: &str, open: &[&str]) {
        let scene = scene(&after(choices).unwrap(), 1).unwrap();
        let ids: Vec<&str> = scene.choices.iter().map(|choice| &*choice.id).collect();
        assert_eq!((&*scene.beat_id, &ids[..], scene.has_ended), (beat, open, open.is_empty()));
    }

    #[test]
    fn choices_depend_on_what_was_chosen() {
        check(&[], "start", &["take", "drop"]);
        check(&["take"], "start", &["take", "drop", "open"]);
        check(&["take", "drop"], "start", &["take", "drop"]);
        check(&["take", "open"], "end", &[]);
        for choices in [&["open"][..], &["take", "open", "take"], &["fly"]] {
            let error = after(choices).unwrap_err();
            assert_eq!(error.code(), Code::FailedPrecondition, "{choices:?}");
        }
        assert_eq!(after(&["open"]).unwrap_err().detail("choices"), Some("take, drop"));
    }

    #[test]
    fn a_recap_tells_what_was_chosen_and_ends_where_the_player_is() {
        let passed = recap(&after(&["take", "open"]).unwrap()).unwrap();
        let told: Vec<_> = passed.iter().map(|it| (&*it.beat_id, &*it.choice_text)).collect();
        assert_eq!(told, [("start", "Choose take"), ("start", "Choose open"), ("end", "")]);
        let long = after(&["take"; 250]).unwrap();
        assert_eq!(recap(&long).unwrap().len(), MAX_STEPS + 1);
    }

    #[test]
    fn an_arc_starts_again_only_when_it_has_ended() {
        let key = ProgressKey::new("p", "a").unwrap();
        let arc = arc("a", &["end."]);
        let again = |choices: &[&str]| started(&key, Some(&after(choices).unwrap()), &arc, NOW);
        assert_eq!(again(&["take"]).unwrap_err().code(), Code::AlreadyExists);
        assert_eq!(again(&["take", "open"]).unwrap().steps, []);
    }
}
