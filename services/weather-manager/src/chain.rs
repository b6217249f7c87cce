//! The Markov chain: which condition comes in which hour, and how likely each is in the hours to come.
//!
//! A chain that has to be followed from its beginning takes longer with every hour. So in some hours a weather front comes:
//! the condition is drawn without regard to the one before. The latest front decides everything after it, and the hours before
//! it need not be known.

use proto::time::v1::{Season, SeasonSpan};
use proto::weather::v1::{Biome, Condition};
use sdk::random::{Rng, stable_hash};

use crate::climate::{CONDITIONS, Distribution, after, mix};

pub(crate) const HOUR_MS: i64 = 3_600_000;
/// In an hour that this divides, a front comes for certain.
pub(crate) const MAX_FRONT_DISTANCE: i64 = 240;
/// The probability of a front in any other hour.
const FRONT: f64 = 1.0 / 36.0;

/// What decides the weather of a region.
#[derive(Clone, Debug)]
pub(crate) struct Chain<'a> {
    pub(crate) biome: Biome,
    pub(crate) seed: u64,
    /// In order; they cover every hour that is asked for, and [`MAX_FRONT_DISTANCE`] before that.
    pub(crate) seasons: &'a [SeasonSpan],
}

impl Chain<'_> {
    /// The conditions of the hours from one to another, both included; of those since the game began.
    pub(crate) fn conditions(&self, from: i64, to: i64) -> Vec<Condition> {
        let from = from.max(0);
        let start = (0..=from).rev().find(|hour| self.has_front(*hour)).unwrap_or(0);
        let mut index = 0;
        let mut conditions = Vec::new();
        for hour in start..=to {
            let mix = mix(self.biome, self.season(hour));
            let next = if hour == start || self.has_front(hour) { mix } else { after(&mix, index) };
            index = drawn(&next, self.variation(hour, b"condition"));
            if hour >= from {
                conditions.push(CONDITIONS[index]);
            }
        }
        conditions
    }

    /// How likely each condition is in each of so many hours after `hour`, in which it is `condition`.
    pub(crate) fn forecast(&self, hour: i64, condition: Condition, hours: i64) -> Vec<Distribution> {
        let mut now: Distribution = CONDITIONS.map(|other| f64::from(u8::from(other == condition)));
        let mut forecast = Vec::new();
        for hour in hour + 1..=hour + hours {
            let mix = mix(self.biome, self.season(hour));
            let front = if hour % MAX_FRONT_DISTANCE == 0 { 1.0 } else { FRONT };
            let mut next = mix.map(|likelihood| front * likelihood);
            for (index, likelihood) in now.iter().enumerate() {
                for (sum, share) in next.iter_mut().zip(after(&mix, index)) {
                    *sum += (1.0 - front) * likelihood * share;
                }
            }
            now = next;
            forecast.push(now);
        }
        forecast
    }

    /// How strong the condition is in this hour, 0 to 1.
    pub(crate) fn intensity(&self, hour: i64, condition: Condition) -> f64 {
        match condition {
            Condition::Clear => 0.0,
            _ => self.variation(hour, b"intensity"),
        }
    }

    pub(crate) fn season(&self, hour: i64) -> Season {
        let begun = self.seasons.iter().take_while(|span| span.from_ms <= hour * HOUR_MS).last();
        begun.or(self.seasons.first()).map_or(Season::Unspecified, SeasonSpan::season)
    }

    /// A number in [0, 1) that is the seed's for this hour.
    pub(crate) fn variation(&self, hour: i64, purpose: &[u8]) -> f64 {
        Rng::new(stable_hash(&[&self.seed.to_le_bytes(), &hour.to_le_bytes(), purpose])).next_f64()
    }

    fn has_front(&self, hour: i64) -> bool {
        hour % MAX_FRONT_DISTANCE == 0 || self.variation(hour, b"front") < FRONT
    }
}

/// The index of the condition at this place, 0 to 1, of the distribution.
fn drawn(distribution: &Distribution, place: f64) -> usize {
    let mut left = place;
    for (index, likelihood) in distribution.iter().enumerate() {
        if left < *likelihood {
            return index;
        }
        left -= likelihood;
    }
    // What rounding left over belongs to the last condition that can be.
    distribution.iter().rposition(|likelihood| *likelihood > 0.0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seasons(season: Season) -> Vec<SeasonSpan> {
        vec![SeasonSpan { season: season.into(), from_ms: 0, to_ms: i64::MAX }]
    }

    fn biome(number: i32) -> Biome {
        Biome::try_from(number).unwrap()
    }

    proptest! {
        #[test]
        fn the_weather_of_an_hour_does_not_depend_on_who_asks(
            seed: u64, biome in 1..=6, first in 0_i64..100_000, length in 1_i64..400, inner in 0_i64..400,
        ) {
            let seasons = seasons(Season::Autumn);
            let chain = Chain { biome: self::biome(biome), seed, seasons: &seasons };
            let all = chain.conditions(first, first + length);
            let inner = inner % length;
            prop_assert_eq!(&all[inner as usize..], &chain.conditions(first + inner, first + length)[..]);
        }

        #[test]
        fn likelihoods_add_up_to_1(biome in 1..=6, season in 1..=4, index in 0..CONDITIONS.len(), hours in 1_i64..240) {
            let (biome, season) = (self::biome(biome), Season::try_from(season).unwrap());
            let seasons = seasons(season);
            let is_one = |distribution: &Distribution| (distribution.iter().sum::<f64>() - 1.0).abs() < 1e-9;
            prop_assert!(is_one(&mix(biome, season)));
            prop_assert!(is_one(&after(&mix(biome, season), index)));
            let chain = Chain { biome, seed: 0, seasons: &seasons };
            prop_assert!(chain.forecast(5, CONDITIONS[index], hours).iter().all(is_one));
        }
    }

    #[test]
    fn the_weather_of_a_seed_does_not_change_between_versions() {
        let seasons = seasons(Season::Spring);
        let chain = Chain { biome: Biome::Temperate, seed: 7, seasons: &seasons };
        let names: Vec<_> = chain.conditions(100, 110).iter().map(|it| it.as_str_name()[10..].to_lowercase()).collect();
        assert_eq!(names.join(" "), "rain rain rain cloudy cloudy cloudy cloudy cloudy cloudy cloudy cloudy");
    }

    #[test]
    fn seeds_differ_and_every_condition_comes_that_can() {
        let seasons = seasons(Season::Winter);
        let year = |seed| Chain { biome: Biome::Temperate, seed, seasons: &seasons }.conditions(0, 8_760);
        assert_ne!(year(1), year(2));
        let year = year(1);
        for (condition, share) in CONDITIONS.iter().zip(mix(Biome::Temperate, Season::Winter)) {
            let count = year.iter().filter(|other| *other == condition).count();
            assert_eq!(count > 0, share > 0.0, "{condition:?} came {count} times");
        }
    }

    /// What is forecast comes as often as it is said to come.
    #[test]
    fn a_forecast_is_right_on_average() {
        let seasons = seasons(Season::Autumn);
        let (hour, ahead) = (1_000, 3);
        let (mut expected, mut came) = ([0.0; CONDITIONS.len()], [0.0; CONDITIONS.len()]);
        for seed in 0..3_000 {
            let chain = Chain { biome: Biome::Coast, seed, seasons: &seasons };
            let conditions = chain.conditions(hour, hour + ahead);
            let forecast = chain.forecast(hour, conditions[0], ahead);
            for (sum, likelihood) in expected.iter_mut().zip(forecast.last().unwrap()) {
                *sum += likelihood;
            }
            let last = conditions.last().unwrap();
            came[CONDITIONS.iter().position(|condition| condition == last).unwrap()] += 1.0;
        }
        for (expected, came) in expected.iter().zip(came) {
            assert!((expected - came).abs() < 100.0, "{expected} of 3000 expected, {came} came");
        }
    }

    #[test]
    fn weather_follows_the_seasons() {
        let hours = 2_000;
        let seasons = [
            SeasonSpan { season: Season::Summer.into(), from_ms: 0, to_ms: hours * HOUR_MS },
            SeasonSpan { season: Season::Winter.into(), from_ms: hours * HOUR_MS, to_ms: i64::MAX },
        ];
        let chain = Chain { biome: Biome::Mountain, seed: 3, seasons: &seasons };
        assert_eq!((chain.season(hours - 1), chain.season(hours)), (Season::Summer, Season::Winter));
        let snow = |from, to| chain.conditions(from, to).iter().filter(|it| **it == Condition::Snow).count();
        let (summer, winter) = (snow(0, hours - 1), snow(hours, 2 * hours - 1));
        assert!(summer < 60 && winter > 400, "{summer} hours of snow in summer, {winter} in winter");
    }
}
