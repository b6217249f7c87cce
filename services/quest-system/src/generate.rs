//! Makes quests. The same seed, player, level, location, past quests and time give the same quest, on every machine.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use proto::quest::v1::{Objective, QuestInfo, QuestState, Reward};
use proto::rpc::{Code, Error};
use proto::well_known::Timestamp;

use crate::catalog::{Count, LOCATIONS, Location, TEMPLATES, Target, Template};
use crate::dice::{Dice, stable_hash};
use crate::kept::Name;
use crate::lifecycle::is_open;

/// So many of a player's newest quests make their templates less likely.
const RECENT: usize = 6;

/// Quests of one player that may be offered or active at the same time.
const MAX_OPEN: usize = 20;

/// What a quest is to be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    /// What it will be called.
    name: &'a Name,
    seed: u64,
    level: u32,
    /// `None` for anywhere.
    location: Option<&'static Location>,
}

impl<'a> Wish<'a> {
    /// Checks a wish. Without a seed, the quest's name is one.
    pub(crate) fn new(name: &'a Name, level: u32, location: &str, seed: Option<u64>) -> Result<Self, Error> {
        if !(1..=100).contains(&level) {
            return Err(Error::invalid(format_args!("level {level} is not 1 to 100")));
        }
        let location = match location {
            "" => None,
            id => Some(Location::find(id).ok_or_else(|| unknown_location(id))?),
        };
        Ok(Self { name, seed: seed.unwrap_or_else(|| stable_hash(&[name.quest_id().as_bytes()])), level, location })
    }
}

fn unknown_location(id: &str) -> Error {
    let known: Vec<_> = LOCATIONS.iter().map(|location| location.id).collect();
    Error::invalid(format_args!("location `{id}` is unknown")).with_detail("known", known.join(", "))
}

/// Refuses another quest for the player who has these, if there are too many to come of it.
pub(crate) fn check_room(past: &[QuestInfo]) -> Result<(), Error> {
    match past.iter().filter(|quest| is_open(quest)).count() {
        open if open >= MAX_OPEN => Err(Error::new(
            Code::ResourceExhausted,
            format!("player has {open} open quests, and {MAX_OPEN} are the most"),
        )),
        _ => Ok(()),
    }
}

/// Makes the quest. `past` are the player's quests as they are `now`, in any order.
pub(crate) fn generate(wish: &Wish<'_>, past: &[QuestInfo], now: Timestamp) -> QuestInfo {
    let mut dice = Dice::new(seed(wish));
    let (location, pairs) = choose_location(wish, past, &mut dice);
    let template = choose_template(&pairs, past, &mut dice);
    let targets: Vec<_> = pairs.iter().filter(|(of, _)| of.id == template.id).map(|(_, target)| *target).collect();
    let target = targets[dice.below(targets.len())];
    let count = match template.count {
        Count::Once => 1,
        Count::Growing { least, per, spread } => least + wish.level / per + dice.below_u32(spread + 1),
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
        id: wish.name.quest_id().to_owned(),
        player_id: wish.name.player_id().to_owned(),
        template: template.id.to_owned(),
        title: text(template.title),
        description: text(template.description),
        location: location.id.to_owned(),
        level: wish.level,
        state: QuestState::Offered.into(),
        objectives,
        reward: Some(reward(wish.level, template, location, &mut dice)),
        offered_at: Some(now),
        expires_at: Some(Timestamp { seconds: now.seconds + template.hours * 3600, nanos: now.nanos }),
        revision: 0,
    }
}

type Pair = (&'static Template, &'static Target);

/// The location, and what may be asked for there: what no open quest of the player asks for already, as long as there
/// is such a thing.
fn choose_location(wish: &Wish<'_>, past: &[QuestInfo], dice: &mut Dice) -> (&'static Location, Vec<Pair>) {
    let taken: BTreeSet<_> = past.iter().filter(|quest| is_open(quest)).filter_map(pair_of).collect();
    let first = match wish.location {
        Some(location) => location,
        None => &LOCATIONS[dice.below(LOCATIONS.len())],
    };
    let others = LOCATIONS.iter().filter(|other| wish.location.is_none() && other.id != first.id);
    for location in std::iter::once(first).chain(others) {
        let mut pairs = pairs(location, wish.level);
        pairs.retain(|(template, target)| !taken.contains(&(template.id, target.id)));
        if !pairs.is_empty() {
            return (location, pairs);
        }
    }
    (first, pairs(first, wish.level))
}

fn pairs(location: &'static Location, level: u32) -> Vec<Pair> {
    let of = |template: &'static Template| location.targets(template.sort, level).map(move |target| (template, target));
    TEMPLATES.iter().flat_map(of).collect()
}

/// Template and target of a quest: the first objective bears the target's id.
fn pair_of(quest: &QuestInfo) -> Option<(&str, &str)> {
    Some((&quest.template, &quest.objectives.first()?.id))
}

/// One of the templates; the more often it was among the player's newest quests, the less likely.
fn choose_template(pairs: &[Pair], past: &[QuestInfo], dice: &mut Dice) -> &'static Template {
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
    let mut left = dice.below(weighted.iter().map(|(_, weight)| weight).sum());
    for (template, weight) in weighted {
        if left < weight {
            return template;
        }
        left -= weight;
    }
    unreachable!("what is left is below the sum of the weights")
}

/// Grows with level and effort; up to a fifth of it is luck.
fn reward(level: u32, template: &Template, location: &Location, dice: &mut Dice) -> Reward {
    let mut lucky = |amount: u32| amount * template.effort * (100 + dice.below_u32(21)) / 10_000;
    let experience = lucky(50 + 20 * level);
    let gold = lucky(10 + 4 * level);
    let likely = if level < 50 { 4 } else { 2 };
    let items = match dice.below(likely) {
        0 => vec![location.items[dice.below(location.items.len())].to_owned()],
        _ => Vec::new(),
    };
    Reward { experience, gold, items }
}

fn seed(wish: &Wish<'_>) -> u64 {
    stable_hash(&[
        &wish.seed.to_le_bytes(),
        wish.name.player_id().as_bytes(),
        &wish.level.to_le_bytes(),
        wish.location.map_or("", |location| location.id).as_bytes(),
    ])
}

#[cfg(test)]
mod tests;
