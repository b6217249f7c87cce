//! What is known of a place: the facts that decide which sentences fit, and the values that fill them.

use std::collections::{BTreeMap, BTreeSet};

use proto::time::v1::{DayPart, GameTime, Season};
use proto::weather::v1::{Condition, Weather};
use proto::world::state::v1::{Neighbor, Region};

use crate::grammar::Values;

/// Kinds of entities that a sentence names; the rest are "others".
const MAX_KINDS: usize = 3;
/// Degrees Celsius from which it is hot.
const HOT: f64 = 30.0;
const NUMBERS: [&str; 11] = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

/// A place at a moment. What is absent is not known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scene {
    pub(crate) region: Region,
    pub(crate) time: Option<GameTime>,
    pub(crate) weather: Option<Weather>,
    /// Who is near; absent if the request names no position.
    pub(crate) neighbors: Option<Vec<Neighbor>>,
}

impl Scene {
    /// What is true of the scene: the tags of the region; `spring`, `summer`, `autumn`, `winter`; `night` and the other parts of a
    /// day; `clear` and the other conditions, with `weak` or `strong`; `hot`; `company` or `alone`.
    pub(crate) fn facts(&self) -> BTreeSet<String> {
        let mut facts: BTreeSet<String> = self.region.tags.iter().cloned().collect();
        facts.extend(self.season().map(str::to_owned));
        facts.extend(self.day_part().and_then(|part| word(part.as_str_name(), "DAY_PART_")));
        if let Some(weather) = &self.weather {
            facts.extend(word(weather.condition().as_str_name(), "CONDITION_"));
            let strength = match weather.intensity {
                ..0.3 => Some("weak"),
                0.7.. => Some("strong"),
                _ => None,
            };
            facts.extend(strength.map(str::to_owned));
            if weather.temperature >= HOT && weather.condition() == Condition::Clear {
                facts.insert("hot".to_owned());
            }
        }
        if let Some(neighbors) = &self.neighbors {
            facts.insert(if neighbors.is_empty() { "alone" } else { "company" }.to_owned());
        }
        facts
    }

    /// What the variables of sentences stand for.
    pub(crate) fn values(&self) -> Values {
        let mut values = Values::from([("place", self.region.name.clone())]);
        values.extend(self.season().map(|season| ("season", season.to_owned())));
        let others = self.neighbors.as_deref().filter(|neighbors| !neighbors.is_empty()).map(listed);
        values.extend(others.map(|others| ("others", others)));
        values
    }

    fn season(&self) -> Option<&'static str> {
        let of_date = self.time.as_ref().and_then(|time| Some(time.date.as_ref()?.season()));
        let season = of_date.or_else(|| Some(self.weather.as_ref()?.season()))?;
        match season {
            Season::Unspecified => None,
            Season::Spring => Some("spring"),
            Season::Summer => Some("summer"),
            Season::Autumn => Some("autumn"),
            Season::Winter => Some("winter"),
        }
    }

    fn day_part(&self) -> Option<DayPart> {
        Some(self.time.as_ref()?.date.as_ref()?.day_part())
    }
}

/// The last part of an enumeration's value as a word; `None` for the unspecified one.
fn word(name: &str, prefix: &str) -> Option<String> {
    let word = name.strip_prefix(prefix)?.to_lowercase();
    (word != "unspecified").then_some(word)
}

/// Names and kinds of entities as a list: `Rose, two guards and a wolf`. Those with a name come first.
fn listed(neighbors: &[Neighbor]) -> String {
    let mut named = Vec::new();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for entity in neighbors.iter().filter_map(|neighbor| neighbor.entity.as_ref()) {
        match entity.attributes.get("name") {
            Some(name) => named.push(name.clone()),
            None => *kinds.entry(entity.kind.replace(['_', '-'], " ")).or_default() += 1,
        }
    }
    let kinds = kinds.into_iter().map(|(kind, count)| counted(&kind, count));
    let mut parts: Vec<String> = named.into_iter().chain(kinds).collect();
    if parts.len() > MAX_KINDS {
        parts.truncate(MAX_KINDS);
        parts.push("others".to_owned());
    }
    match parts.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, first)) => format!("{} and {last}", first.join(", ")),
        None => String::new(),
    }
}

fn counted(kind: &str, count: usize) -> String {
    match (count, NUMBERS.get(count)) {
        (1, _) if kind.starts_with(['a', 'e', 'i', 'o', 'u']) => format!("an {kind}"),
        (1, _) => format!("a {kind}"),
        (_, Some(number)) => format!("{number} {kind}s"),
        (_, None) => format!("many {kind}s"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proto::time::v1::GameDate;
    use proto::world::state::v1::Entity;

    use super::*;

    fn neighbor(kind: &str, name: Option<&str>) -> Neighbor {
        let attributes = name.map(|name| ("name".to_owned(), name.to_owned())).into_iter().collect();
        let entity = Entity { kind: kind.to_owned(), attributes, ..Entity::default() };
        Neighbor { entity: Some(entity), distance: 1.0 }
    }

    pub(crate) fn scene() -> Scene {
        let date = GameDate { season: Season::Winter.into(), day_part: DayPart::Night.into(), ..GameDate::default() };
        let condition = Condition::Snow.into();
        Scene {
            region: Region { name: "The mill".to_owned(), tags: vec!["forest".to_owned()], ..Region::default() },
            time: Some(GameTime { date: Some(date), ..GameTime::default() }),
            weather: Some(Weather { condition, intensity: 0.8, ..Weather::default() }),
            neighbors: Some(vec![neighbor("wolf", None)]),
        }
    }

    #[track_caller]
    fn check(neighbors: &[(&str, Option<&str>)], expected: &str) {
        let neighbors: Vec<_> = neighbors.iter().map(|(kind, name)| neighbor(kind, *name)).collect();
        assert_eq!(listed(&neighbors), expected);
    }

    #[test]
    fn entities_are_counted_and_named() {
        check(&[("wolf", None)], "a wolf");
        check(&[("owl", None), ("guard", None), ("guard", None)], "two guards and an owl");
        check(&[("guard", None), ("npc", Some("Rose")), ("town_crier", None)], "Rose, a guard and a town crier");
        check(&[("a", None), ("b", None), ("c", None), ("d", None)], "an a, a b, a c and others");
        check(&[("rat", None); 11], "many rats");
    }

    #[test]
    fn facts_are_what_is_known() {
        let facts: Vec<String> = scene().facts().into_iter().collect();
        assert_eq!(facts, ["company", "forest", "night", "snow", "strong", "winter"]);
        let unknown = Scene { region: scene().region, ..Scene::default() };
        assert_eq!(unknown.facts().into_iter().collect::<Vec<_>>(), ["forest"]);
        assert_eq!(unknown.values().into_keys().collect::<Vec<_>>(), ["place"]);
        let alone = Scene { neighbors: Some(Vec::new()), ..unknown };
        assert!(alone.facts().contains("alone") && !alone.values().contains_key("others"));
    }
}
