//! Generates quests. The same seed, player, level, location, past quests and time give the same quest on every machine.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use proto::quest::v1::{Objective, QuestInfo, QuestState, Reward};
use proto::rpc::Error;
use proto::well_known::Timestamp;
use sdk::random::{Rng, stable_hash};

use crate::catalog::{Count, LOCATIONS, Location, TEMPLATES, Target, Template};
use crate::lifecycle::is_open;
use crate::record::QuestKey;

/// The templates of this many of a player's newest quests are less likely.
const RECENT: usize = 6;

/// Quests of one player that may be offered or active at the same time.
const MAX_OPEN: usize = 20;

/// The parameters of a quest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuestSpec<'a> {
    /// The key of the quest.
    key: &'a QuestKey,
    seed: u64,
    level: u32,
    /// `None` for any location.
    location: Option<&'static Location>,
}

impl<'a> QuestSpec<'a> {
    /// Validates the parameters. Without a seed, the seed is derived from the quest id.
    pub(crate) fn new(key: &'a QuestKey, level: u32, location: &str, seed: Option<u64>) -> Result<Self, Error> {
        if !(1..=100).contains(&level) {
            return Err(Error::invalid(format_args!("level {level} is not 1 to 100")));
        }
        let location = match location {
            "" => None,
            id => Some(Location::find(id).ok_or_else(|| unknown_location(id))?),
        };
        Ok(Self { key, seed: seed.unwrap_or_else(|| stable_hash(&[key.quest_id().as_bytes()])), level, location })
    }
}

fn unknown_location(id: &str) -> Error {
    let known: Vec<_> = LOCATIONS.iter().map(|location| location.id).collect();
    Error::invalid(format_args!("location `{id}` is unknown")).with_detail("known", known.join(", "))
}

/// Rejects another quest for a player who has too many open ones.
pub(crate) fn check_open_limit(past: &[QuestInfo]) -> Result<(), Error> {
    match past.iter().filter(|quest| is_open(quest)).count() {
        open if open >= MAX_OPEN => Err(Error::failed_precondition(format_args!(
            "player has {open} open quests, and at most {MAX_OPEN} are allowed"
        ))),
        _ => Ok(()),
    }
}

/// Generates the quest. `past` are the player's quests as of `now`, in any order.
pub(crate) fn generate(spec: &QuestSpec<'_>, past: &[QuestInfo], now: Timestamp) -> QuestInfo {
    let mut rng = Rng::new(seed(spec));
    let (location, pairs) = choose_location(spec, past, &mut rng);
    let template = choose_template(&pairs, past, &mut rng);
    let targets: Vec<_> = pairs.iter().filter(|(of, _)| of.id == template.id).map(|(_, target)| *target).collect();
    let target = targets[rng.below(targets.len())];
    let count = match template.count {
        Count::Once => 1,
        Count::Growing { least, per, spread } => least + spec.level / per + rng.below_u32(spread + 1),
    };
    let text = |template: &str| {
        template
            .replace("{target}", target.name)
            .replace("{location}", location.name)
            .replace("{count}", &count.to_string())
    };
    let objective = |id: &str, description: &str, required| Objective {
        id: id.to_owned(),
        description: text(description),
        required,
        done: 0,
    };
    let mut objectives = vec![objective(target.id, template.objective, count)];
    objectives.extend(template.then.map(|(id, description)| objective(id, description, 1)));
    QuestInfo {
        id: spec.key.quest_id().to_owned(),
        player_id: spec.key.player_id().to_owned(),
        template: template.id.to_owned(),
        title: text(template.title),
        description: text(template.description),
        location: location.id.to_owned(),
        level: spec.level,
        state: QuestState::Offered.into(),
        objectives,
        reward: Some(reward(spec.level, template, location, &mut rng)),
        offered_at: Some(now),
        expires_at: Some(Timestamp { seconds: now.seconds + template.hours * 3600, nanos: now.nanos }),
        revision: 0,
    }
}

type Pair = (&'static Template, &'static Target);

/// Chooses the location, and returns it with the possible templates and targets: those that no open quest of the player
/// uses, if there are any.
fn choose_location(spec: &QuestSpec<'_>, past: &[QuestInfo], rng: &mut Rng) -> (&'static Location, Vec<Pair>) {
    let taken: BTreeSet<_> = past.iter().filter(|quest| is_open(quest)).filter_map(pair_of).collect();
    let first = match spec.location {
        Some(location) => location,
        None => &LOCATIONS[rng.below(LOCATIONS.len())],
    };
    let others = LOCATIONS.iter().filter(|other| spec.location.is_none() && other.id != first.id);
    for location in std::iter::once(first).chain(others) {
        let mut pairs = pairs(location, spec.level);
        pairs.retain(|(template, target)| !taken.contains(&(template.id, target.id)));
        if !pairs.is_empty() {
            return (location, pairs);
        }
    }
    (first, pairs(first, spec.level))
}

fn pairs(location: &'static Location, level: u32) -> Vec<Pair> {
    let of =
        |template: &'static Template| location.targets(template.category, level).map(move |target| (template, target));
    TEMPLATES.iter().flat_map(of).collect()
}

/// The template and the target of a quest: the id of the first objective is the target's.
fn pair_of(quest: &QuestInfo) -> Option<(&str, &str)> {
    Some((&quest.template, &quest.objectives.first()?.id))
}

/// Chooses a template. The more of the player's newest quests have it, the less likely it is.
fn choose_template(pairs: &[Pair], past: &[QuestInfo], rng: &mut Rng) -> &'static Template {
    let mut newest: Vec<_> = past.iter().collect();
    newest.sort_by_key(|quest| {
        let offered = quest.offered_at.unwrap_or_default();
        Reverse((offered.seconds, offered.nanos, &quest.id))
    });
    let weight = |template: &Template| {
        let recently = newest.iter().take(RECENT).filter(|quest| quest.template == template.id);
        60 / (1 + 3 * recently.count())
    };
    let mut weighted: Vec<(&'static Template, usize)> = Vec::new();
    for (template, _) in pairs {
        if weighted.last().is_none_or(|(last, _)| last.id != template.id) {
            weighted.push((template, weight(template)));
        }
    }
    let mut left = rng.below(weighted.iter().map(|(_, weight)| weight).sum());
    for (template, weight) in weighted {
        if left < weight {
            return template;
        }
        left -= weight;
    }
    unreachable!("what is left is below the sum of the weights")
}

/// Rewards grow with level and effort, plus up to 20 % at random.
fn reward(level: u32, template: &Template, location: &Location, rng: &mut Rng) -> Reward {
    let mut randomized = |amount: u32| amount * template.effort * (100 + rng.below_u32(21)) / 10_000;
    let experience = randomized(50 + 20 * level);
    let gold = randomized(10 + 4 * level);
    let one_in = if level < 50 { 4 } else { 2 };
    let items = match rng.below(one_in) {
        0 => vec![location.items[rng.below(location.items.len())].to_owned()],
        _ => Vec::new(),
    };
    Reward { experience, gold, items }
}

fn seed(spec: &QuestSpec<'_>) -> u64 {
    stable_hash(&[
        &spec.seed.to_le_bytes(),
        spec.key.player_id().as_bytes(),
        &spec.level.to_le_bytes(),
        spec.location.map_or("", |location| location.id).as_bytes(),
    ])
}

#[cfg(test)]
mod tests;
