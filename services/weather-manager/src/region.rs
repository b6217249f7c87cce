//! Regions: what is known of their weather, and when it is announced.

use proto::time::v1::{GameTime, SeasonSpan};
use proto::weather::v1::{
    Biome, Changed, Condition, ForecastHour, Likelihood, PastHour, PutRegionRequest, Region, Weather,
};
use sdk::random::stable_hash;
use sdk::{Error, check_range_or, choice};

use crate::chain::{Chain, HOUR_MS, MAX_FRONT_DISTANCE};
use crate::climate::{CONDITIONS, temperature, wind};

/// Hours of a forecast or of a history.
const MAX_HOURS: u32 = 240;
const DEFAULT_HOURS: u32 = 24;

/// The region after a request to put it; `current` is the one that there is.
pub(crate) fn put(current: Option<&Region>, request: &PutRegionRequest) -> Result<Region, Error> {
    let biome: Biome = choice("biome", request.biome)?;
    let derived = || stable_hash(&[request.region_id.as_bytes()]);
    let seed = request.seed.unwrap_or_else(|| current.map_or_else(derived, |current| current.seed));
    let current = current.cloned().unwrap_or_default();
    Ok(Region { id: request.region_id.clone(), biome: biome.into(), seed, ..current })
}

/// The number of hours that a request asks for.
pub(crate) fn hours(requested: u32) -> Result<i64, Error> {
    check_range_or("hours", requested, 1..=MAX_HOURS, DEFAULT_HOURS).map(i64::from)
}

/// The time of the game, and the seasons around it.
#[derive(Clone, Debug)]
pub(crate) struct Era {
    pub(crate) now: GameTime,
    pub(crate) seasons: Vec<SeasonSpan>,
}

impl Era {
    /// How many hours must be known before the first one that is asked about.
    pub(crate) const HOURS_BEFORE: i64 = 2 * MAX_FRONT_DISTANCE + 1;

    pub(crate) fn hour(&self) -> i64 {
        self.now.game_ms / HOUR_MS
    }

    fn chain(&self, region: &Region) -> Chain<'_> {
        Chain { biome: region.biome(), seed: region.seed, seasons: &self.seasons }
    }

    fn condition(&self, region: &Region) -> Condition {
        self.chain(region).conditions(self.hour(), self.hour()).pop().unwrap_or_default()
    }

    /// The weather of a region now.
    pub(crate) fn weather(&self, region: &Region) -> Weather {
        let (chain, hour) = (self.chain(region), self.hour());
        let conditions = chain.conditions(hour - MAX_FRONT_DISTANCE, hour);
        let condition = conditions.last().copied().unwrap_or_default();
        let same = conditions.iter().rev().take_while(|other| **other == condition).count();
        let season = chain.season(hour);
        let variation = |purpose: &[u8]| 2.0 * chain.variation(hour, purpose) - 1.0;
        let intensity = chain.intensity(hour, condition);
        let day_part = self.now.date.as_ref().map(proto::time::v1::GameDate::day_part).unwrap_or_default();
        let temperature = temperature(region.biome(), season, day_part, condition, variation(b"temperature"));
        Weather {
            region_id: region.id.clone(),
            biome: region.biome,
            seed: region.seed,
            season: season.into(),
            condition: condition.into(),
            intensity: rounded(intensity, 100.0),
            temperature: rounded(temperature, 10.0),
            wind: rounded(wind(condition, intensity, variation(b"wind")), 10.0),
            hour,
            since_hour: hour + 1 - i64::try_from(same).unwrap_or(1),
        }
    }

    /// How likely each condition is in each of the next hours.
    pub(crate) fn forecast(&self, region: &Region, hours: i64) -> Vec<ForecastHour> {
        let chain = self.chain(region);
        let forecast = chain.forecast(self.hour(), self.condition(region), hours);
        let hour = |(hour, distribution): (i64, [f64; CONDITIONS.len()])| {
            let mut conditions: Vec<Likelihood> = CONDITIONS
                .iter()
                .zip(distribution)
                .filter(|(_, probability)| *probability > 0.0)
                .map(|(condition, probability)| Likelihood { condition: (*condition).into(), probability })
                .collect();
            conditions.sort_by(|one, other| other.probability.total_cmp(&one.probability));
            ForecastHour { hour, season: chain.season(hour).into(), conditions }
        };
        (self.hour() + 1..).zip(forecast).map(hour).collect()
    }

    /// The conditions of the past hours, newest first.
    pub(crate) fn history(&self, region: &Region, hours: i64) -> Vec<PastHour> {
        let (chain, first) = (self.chain(region), (self.hour() - hours).max(0));
        let past = chain.conditions(first, self.hour() - 1).into_iter().rev();
        let hours = (first..self.hour()).rev();
        let hour = |(hour, condition): (i64, Condition)| PastHour {
            hour,
            condition: condition.into(),
            intensity: rounded(chain.intensity(hour, condition), 100.0),
        };
        hours.zip(past).map(hour).collect()
    }

    /// The region with its weather announced, and the event that does so; `None` if there is nothing new.
    pub(crate) fn announced(&self, region: &Region) -> Option<(Region, Changed)> {
        let (condition, hour) = (self.condition(region), self.hour());
        // A task that read the time earlier than another one announces nothing old.
        let is_news = region.announced() == Condition::Unspecified || hour > region.announced_hour;
        if !is_news || condition == region.announced() {
            return None;
        }
        let changed = Changed {
            meta: None,
            region_id: region.id.clone(),
            condition: condition.into(),
            previous: region.announced,
            hour,
            season: self.chain(region).season(hour).into(),
            biome: region.biome,
        };
        Some((Region { announced: condition.into(), announced_hour: hour, ..region.clone() }, changed))
    }
}

fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use proto::time::v1::Season;
    use sdk::Code;

    use super::*;

    fn era(hour: i64) -> Era {
        let season = SeasonSpan { season: Season::Spring.into(), from_ms: 0, to_ms: i64::MAX };
        Era { now: GameTime { game_ms: hour * HOUR_MS + 5, ..GameTime::default() }, seasons: vec![season] }
    }

    fn region(seed: u64) -> Region {
        let request =
            PutRegionRequest { biome: Biome::Temperate.into(), seed: Some(seed), ..PutRegionRequest::default() };
        put(None, &request).unwrap()
    }

    #[test]
    fn a_region_keeps_its_seed_unless_it_gets_another_one() {
        let request = |biome: Biome, seed| PutRegionRequest {
            region_id: "r".to_owned(),
            biome: biome.into(),
            seed,
            ..PutRegionRequest::default()
        };
        let new = put(None, &request(Biome::Desert, None)).unwrap();
        assert_eq!(put(None, &request(Biome::Desert, None)).unwrap().seed, new.seed);
        let current = Region { announced: 3, ..put(None, &request(Biome::Coast, Some(7))).unwrap() };
        let changed = put(Some(&current), &request(Biome::Desert, None)).unwrap();
        assert_eq!((changed.seed, changed.biome(), changed.announced), (7, Biome::Desert, 3));
        let error = put(None, &request(Biome::Unspecified, None)).unwrap_err();
        assert!(error.message().starts_with("biome is missing, it must be one of BIOME_TEMPERATE, "), "{error}");
    }

    #[test]
    fn hours_are_limited() {
        assert_eq!((hours(0), hours(240)), (Ok(24), Ok(240)));
        let error = hours(241).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "hours is 241, it must be 1 to 240"));
    }

    #[test]
    fn what_is_now_is_history_later() {
        let now = era(500).weather(&region(1));
        let history = era(501).history(&region(1), 240);
        assert_eq!((history.len(), history[0].hour, history[0].condition), (240, 500, now.condition));
        assert_eq!(history[0].intensity, now.intensity);
        assert!((260..=500).contains(&now.since_hour));
        assert_eq!(era(3).history(&region(1), 24).len(), 3);
        assert_eq!(era(0).history(&region(1), 24), []);
    }

    #[test]
    fn a_forecast_begins_with_the_likeliest_of_the_next_hour() {
        let now = era(500).weather(&region(1));
        let forecast = era(500).forecast(&region(1), 48);
        assert_eq!((forecast.len(), forecast[0].hour, forecast[0].conditions[0].condition), (48, 501, now.condition));
        let sorted = |hour: &ForecastHour| hour.conditions.is_sorted_by(|one, two| one.probability >= two.probability);
        assert!(forecast.iter().all(sorted));
    }

    #[test]
    fn a_change_is_announced_once_and_never_an_older_one() {
        let mut region = region(1);
        let mut last = Condition::Unspecified;
        let mut count = 0;
        for hour in 0..100 {
            if let Some((announced, event)) = era(hour).announced(&region) {
                assert_eq!((event.previous(), event.hour), (last, hour));
                assert_ne!(event.condition(), last);
                last = event.condition();
                assert!(era(hour).announced(&announced).is_none());
                region = announced;
                count += 1;
            }
            assert_eq!(era(hour).weather(&region).condition(), last);
        }
        assert!((10..60).contains(&count), "{count}");
        assert!((0..region.announced_hour).all(|hour| era(hour).announced(&region).is_none()));
    }
}
