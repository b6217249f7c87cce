//! Chooses the sentences of a description: seeded, and none twice within a session.

use std::collections::{BTreeMap, BTreeSet};

use proto::narrative::environment::v1::{Sentence, Session, Subject};
use sdk::random::{Rng, stable_hash};

use crate::catalog::{RULES, Rule};
use crate::grammar::{Pattern, Values};
use crate::scene::Scene;

/// Sentences that a session remembers.
const MAX_REMEMBERED: usize = 2_000;
/// What a description is about, in this order.
const SUBJECTS: [Subject; 4] = [Subject::Time, Subject::Weather, Subject::Place, Subject::Entities];

/// One sentence on each subject of which something is known; the session remembers them.
pub(crate) fn describe(scene: &Scene, session: &mut Session, seed: u64) -> Vec<Sentence> {
    let (facts, values) = (scene.facts(), scene.values());
    let mut rng = Rng::new(stable_hash(&[&seed.to_le_bytes(), scene.region.id.as_bytes()]));
    let mut sentences = Vec::new();
    for subject in SUBJECTS {
        if let Some((sentence, digest)) = sentence(subject, &facts, &values, &session.sentences, &mut rng) {
            session.sentences.retain(|known| *known != digest);
            session.sentences.push(digest);
            sentences.push(sentence);
        }
    }
    let forgotten = session.sentences.len().saturating_sub(MAX_REMEMBERED);
    session.sentences.drain(..forgotten);
    sentences
}

/// The whole description.
pub(crate) fn text(sentences: &[Sentence]) -> String {
    sentences.iter().map(|sentence| sentence.text.as_str()).collect::<Vec<_>>().join(" ")
}

/// A sentence that is not among those that the session has heard; if there is none, the one that it heard longest ago. `None` if
/// no rule fits.
fn sentence(
    subject: Subject,
    facts: &BTreeSet<String>,
    values: &Values,
    heard: &[u64],
    rng: &mut Rng,
) -> Option<(Sentence, u64)> {
    let heard: BTreeMap<u64, usize> = heard.iter().enumerate().map(|(age, digest)| (*digest, age)).collect();
    let fits = |rule: &&Rule| rule.subject == subject && rule.when.iter().all(|fact| facts.contains(*fact));
    let patterns = RULES.iter().filter(fits).map(|rule| Pattern::new(rule.text));
    let mut patterns: Vec<Pattern<'_>> = patterns.filter(|pattern| pattern.is_answered_by(values)).collect();
    shuffle(&mut patterns, rng);
    let mut oldest: Option<(usize, String, u64)> = None;
    for pattern in &patterns {
        let first = rng.below(pattern.len());
        for number in 0..pattern.len() {
            let text = pattern.sentence((first + number) % pattern.len(), values);
            let digest = stable_hash(&[text.as_bytes()]);
            match heard.get(&digest) {
                None => return Some((Sentence { subject: subject.into(), text, repeated: false }, digest)),
                Some(age) if oldest.as_ref().is_none_or(|(other, ..)| age < other) => {
                    oldest = Some((*age, text, digest));
                }
                Some(_) => {}
            }
        }
    }
    oldest.map(|(_, text, digest)| (Sentence { subject: subject.into(), text, repeated: true }, digest))
}

fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.below(last + 1));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scene::tests::scene;

    #[test]
    fn a_description_has_a_sentence_for_everything_that_is_known() {
        let subjects = |scene: &Scene| -> Vec<Subject> {
            describe(scene, &mut Session::default(), 1).iter().map(Sentence::subject).collect()
        };
        assert_eq!(subjects(&scene()), SUBJECTS);
        let dark = Scene { time: None, weather: None, neighbors: None, ..scene() };
        assert_eq!(subjects(&dark), [Subject::Place]);
    }

    #[test]
    fn the_description_of_a_seed_does_not_change_between_versions() {
        let text = |seed| text(&describe(&scene(), &mut Session::default(), seed));
        assert_eq!(
            text(7),
            "It is dark, and only the stars keep watch over The mill. The snow is so thick that ten steps away is nothing. \
             The mill waits all around. In the gloom, you can just see a wolf."
        );
        assert_ne!(text(7), text(8));
    }

    #[test]
    fn when_all_has_been_heard_the_oldest_comes_again() {
        let alone = Scene { neighbors: Some(Vec::new()), time: None, weather: None, ..scene() };
        let mut session = Session::default();
        let mut about = Vec::new();
        for seed in 0..200 {
            let sentences = describe(&alone, &mut session, seed);
            about.extend(sentences.into_iter().filter(|sentence| sentence.subject() == Subject::Entities));
        }
        let first = about.iter().position(|sentence| sentence.repeated).unwrap();
        assert_eq!(about[first].text, about[0].text);
        assert_eq!(about[first + 1].text, about[1].text);
        let new: BTreeSet<&str> = about[..first].iter().map(|sentence| sentence.text.as_str()).collect();
        assert_eq!(new.len(), first);
    }

    proptest! {
        #[test]
        fn no_sentence_comes_twice_within_a_session(seeds in proptest::collection::vec(any::<u64>(), 1..40)) {
            let mut session = Session::default();
            let mut told = BTreeSet::new();
            for seed in seeds {
                for sentence in describe(&scene(), &mut session, seed) {
                    prop_assert_eq!(told.insert(sentence.text.clone()), !sentence.repeated, "{}", sentence.text);
                }
            }
        }

        #[test]
        fn a_session_remembers_a_limited_number(known in 1_990_usize..2_100) {
            let sentences = (0..known as u64).collect();
            let mut session = Session { sentences, ..Session::default() };
            describe(&scene(), &mut session, 1);
            prop_assert_eq!(session.sentences.len(), (known + 4).min(MAX_REMEMBERED));
        }
    }
}
