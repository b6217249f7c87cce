//! What weather is like in each biome and season: how often each condition comes, and how warm and windy it is.

use proto::time::v1::{DayPart, Season};
use proto::weather::v1::{Biome, Condition};

/// All conditions, in the order of the tables here: from the calmest to the roughest, so that neighbours follow each other.
pub(crate) const CONDITIONS: [Condition; 7] = [
    Condition::Clear,
    Condition::Cloudy,
    Condition::Fog,
    Condition::Rain,
    Condition::Snow,
    Condition::Storm,
    Condition::Sandstorm,
];

/// How likely each of [`CONDITIONS`] is: adds up to 1.
pub(crate) type Distribution = [f64; CONDITIONS.len()];

/// The probability that the condition stays as it is for another hour.
const PERSISTENCE: f64 = 0.75;

/// How often each condition comes, in percent.
pub(crate) fn mix(biome: Biome, season: Season) -> Distribution {
    let percent: [u8; CONDITIONS.len()] = match (biome, season) {
        (Biome::Temperate | Biome::Unspecified, Season::Spring | Season::Unspecified) => [35, 25, 8, 26, 2, 4, 0],
        (Biome::Temperate | Biome::Unspecified, Season::Summer) => [50, 22, 2, 16, 0, 10, 0],
        (Biome::Temperate | Biome::Unspecified, Season::Autumn) => [22, 30, 17, 26, 1, 4, 0],
        (Biome::Temperate | Biome::Unspecified, Season::Winter) => [20, 32, 12, 12, 22, 2, 0],
        (Biome::Desert, Season::Spring | Season::Unspecified) => [68, 14, 1, 4, 0, 1, 12],
        (Biome::Desert, Season::Summer) => [78, 6, 0, 1, 0, 1, 14],
        (Biome::Desert, Season::Autumn) => [72, 14, 1, 4, 0, 1, 8],
        (Biome::Desert, Season::Winter) => [66, 22, 3, 6, 0, 1, 2],
        (Biome::Tundra, Season::Spring | Season::Unspecified) => [26, 32, 10, 6, 22, 4, 0],
        (Biome::Tundra, Season::Summer) => [36, 32, 12, 16, 1, 3, 0],
        (Biome::Tundra, Season::Autumn) => [20, 32, 12, 8, 23, 5, 0],
        (Biome::Tundra, Season::Winter) => [22, 24, 6, 0, 40, 8, 0],
        (Biome::Tropical, Season::Spring | Season::Autumn | Season::Unspecified) => [30, 24, 6, 30, 0, 10, 0],
        (Biome::Tropical, Season::Summer) => [20, 20, 4, 36, 0, 20, 0],
        (Biome::Tropical, Season::Winter) => [48, 26, 6, 16, 0, 4, 0],
        (Biome::Mountain, Season::Spring | Season::Unspecified) => [26, 26, 14, 14, 14, 6, 0],
        (Biome::Mountain, Season::Summer) => [38, 24, 10, 14, 1, 13, 0],
        (Biome::Mountain, Season::Autumn) => [22, 28, 18, 14, 12, 6, 0],
        (Biome::Mountain, Season::Winter) => [22, 22, 8, 0, 40, 8, 0],
        (Biome::Coast, Season::Spring | Season::Unspecified) => [32, 26, 14, 22, 0, 6, 0],
        (Biome::Coast, Season::Summer) => [54, 22, 8, 10, 0, 6, 0],
        (Biome::Coast, Season::Autumn) => [22, 28, 12, 24, 0, 14, 0],
        (Biome::Coast, Season::Winter) => [18, 32, 12, 20, 6, 12, 0],
    };
    percent.map(|percent| f64::from(percent) / 100.0)
}

/// How likely each condition is an hour after the condition at `index` of [`CONDITIONS`]: it stays, or goes over to one that comes
/// often and is not far from it.
pub(crate) fn after(mix: &Distribution, index: usize) -> Distribution {
    let mut weights = *mix;
    for (other, weight) in weights.iter_mut().enumerate() {
        *weight /= (1 + other.abs_diff(index)) as f64;
    }
    let sum: f64 = weights.iter().sum();
    let mut next = weights.map(|weight| (1.0 - PERSISTENCE) * weight / sum);
    next[index] += PERSISTENCE;
    next
}

/// Degrees Celsius. `variation` is -1 to 1.
pub(crate) fn temperature(biome: Biome, season: Season, part: DayPart, condition: Condition, variation: f64) -> f64 {
    // The mean of winter, of the seasons between, and of summer; and how much warmer than that afternoons are.
    let (winter, between, summer, daily) = match biome {
        Biome::Temperate | Biome::Unspecified => (1.0, 11.0, 21.0, 5.0),
        Biome::Desert => (14.0, 25.0, 35.0, 10.0),
        Biome::Tundra => (-24.0, -7.0, 7.0, 3.0),
        Biome::Tropical => (24.0, 26.0, 28.0, 4.0),
        Biome::Mountain => (-8.0, 2.0, 11.0, 5.0),
        Biome::Coast => (6.0, 12.0, 20.0, 3.0),
    };
    let mean = match season {
        Season::Winter => winter,
        Season::Summer => summer,
        Season::Spring | Season::Autumn | Season::Unspecified => between,
    };
    let of_day = match part {
        DayPart::Night => -1.0,
        DayPart::Dawn => -0.8,
        DayPart::Morning | DayPart::Unspecified => 0.0,
        DayPart::Afternoon => 1.0,
        DayPart::Dusk => 0.4,
        DayPart::Evening => -0.3,
    };
    let usual = mean + daily * of_day + 3.0 * variation;
    match condition {
        Condition::Snow => usual.min(0.5),
        Condition::Rain => (usual - 2.0).max(1.0),
        Condition::Storm | Condition::Fog => usual - 3.0,
        Condition::Cloudy => usual - 1.0,
        Condition::Clear | Condition::Sandstorm | Condition::Unspecified => usual,
    }
}

/// Kilometres per hour. `intensity` is 0 to 1.
pub(crate) fn wind(condition: Condition, intensity: f64, variation: f64) -> f64 {
    let (least, more) = match condition {
        Condition::Clear | Condition::Unspecified => (4.0, 0.0),
        Condition::Cloudy => (8.0, 12.0),
        Condition::Fog => (1.0, 4.0),
        Condition::Rain | Condition::Snow => (10.0, 30.0),
        Condition::Storm => (60.0, 60.0),
        Condition::Sandstorm => (45.0, 50.0),
    };
    least + more * intensity + 3.0 * variation.abs()
}
