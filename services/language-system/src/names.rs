//! Makes up names from the syllables of a language.

use std::collections::BTreeSet;

use proto::language::v1::Phonology;
use sdk::random::Rng;
use sdk::{Error, check_range_or};

const MAX_NAMES: u32 = 100;
const MAX_SYLLABLES: u32 = 6;
/// How many names are made up for one that is new.
const ATTEMPTS: usize = 50;

/// What names are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameSpec {
    count: usize,
    min_syllables: usize,
    max_syllables: usize,
}

impl NameSpec {
    /// What a request asks for; 0 stands for what is usual.
    pub(crate) fn new(count: u32, min_syllables: u32, max_syllables: u32) -> Result<Self, Error> {
        let count = check_range_or("count", count, 1..=MAX_NAMES, 1)?;
        let min = check_range_or("min_syllables", min_syllables, 1..=MAX_SYLLABLES, 2)?;
        let max = check_range_or("max_syllables", max_syllables, min..=MAX_SYLLABLES, min.max(3))?;
        Ok(Self { count: count as usize, min_syllables: min as usize, max_syllables: max as usize })
    }
}

/// Different names.
pub(crate) fn names(phonology: &Phonology, spec: NameSpec, seed: u64) -> Result<Vec<String>, Error> {
    let mut rng = Rng::new(seed);
    let mut names = Vec::new();
    let mut known = BTreeSet::new();
    for _ in 0..spec.count * ATTEMPTS {
        let name = name(phonology, spec, &mut rng);
        if known.insert(name.clone()) {
            names.push(name);
        }
        if names.len() == spec.count {
            return Ok(names);
        }
    }
    Err(Error::failed_precondition(format_args!(
        "the syllables make {} different names, not {}: ask for more syllables",
        names.len(),
        spec.count
    )))
}

fn name(phonology: &Phonology, spec: NameSpec, rng: &mut Rng) -> String {
    let syllables = spec.min_syllables + rng.below(spec.max_syllables - spec.min_syllables + 1);
    let mut name = String::new();
    for _ in 0..syllables {
        for sounds in [&phonology.onsets, &phonology.nuclei, &phonology.codas] {
            name.push_str(rng.choose(sounds).map_or("", String::as_str));
        }
    }
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phonology() -> Phonology {
        let sounds = |sounds: &str| sounds.split(' ').map(str::to_owned).collect();
        Phonology { onsets: sounds("l th g gal"), nuclei: sounds("a e ia"), codas: sounds(" n r ") }
    }

    fn made(count: u32, syllables: u32, seed: u64) -> Result<Vec<String>, Error> {
        names(&phonology(), NameSpec::new(count, syllables, syllables)?, seed)
    }

    #[test]
    fn the_names_of_a_seed_do_not_change_between_versions() {
        assert_eq!(made(3, 2, 1).unwrap().join(" "), "Gianthia Thianger Legia");
        assert_ne!(made(3, 2, 1), made(3, 2, 2));
    }

    #[test]
    fn names_are_different_and_begin_with_a_capital() {
        let names = made(100, 3, 9).unwrap();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 100);
        assert!(names.iter().all(|name| name.starts_with(['L', 'T', 'G'])), "{names:?}");
    }

    #[test]
    fn more_names_than_there_are_is_a_failed_precondition() {
        let one = Phonology { nuclei: vec!["a".to_owned()], ..Phonology::default() };
        assert_eq!(names(&one, NameSpec::new(2, 1, 2).unwrap(), 1).unwrap().len(), 2);
        let error = names(&one, NameSpec::new(3, 1, 2).unwrap(), 1).unwrap_err();
        assert_eq!(error.message(), "the syllables make 2 different names, not 3: ask for more syllables");
    }

    #[test]
    fn what_is_asked_for_is_limited() {
        let check = |count, min, max, expected: Result<(usize, usize, usize), &str>| {
            let spec = NameSpec::new(count, min, max);
            let parts = spec.as_ref().map(|spec| (spec.count, spec.min_syllables, spec.max_syllables));
            assert_eq!(parts.map_err(Error::message), expected);
        };
        check(0, 0, 0, Ok((1, 2, 3)));
        check(5, 4, 0, Ok((5, 4, 4)));
        check(101, 0, 0, Err("count is 101, it must be 1 to 100"));
        check(1, 7, 0, Err("min_syllables is 7, it must be 1 to 6"));
        check(1, 3, 2, Err("max_syllables is 2, it must be 3 to 6"));
    }
}
