//! The sentences that places are described with.

use proto::narrative::environment::v1::Subject;

/// A sentence, and when it fits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) subject: Subject,
    /// All of these must be true of the place; see [`crate::scene::Scene::facts`].
    pub(crate) when: &'static [&'static str],
    /// See [`crate::grammar`].
    pub(crate) text: &'static str,
}

const fn rule(subject: Subject, when: &'static [&'static str], text: &'static str) -> Rule {
    Rule { subject, when, text }
}

use Subject::{Entities, Place, Time, Weather};

pub(crate) const RULES: &[Rule] = &[
    rule(Time, &["night"], "{Night|Deep night|Darkness} {lies|rests|has settled} over $place."),
    rule(
        Time,
        &["night"],
        "It is {late|dark}, and {only the stars keep|nothing but a sliver of moon keeps|not a lamp keeps} watch over $place.",
    ),
    rule(Time, &["night", "winter"], "The {long|cold|endless} winter night {holds|grips} $place."),
    rule(Time, &["dawn"], "{Dawn|First light|A pale dawn} {creeps|spreads|breaks} over $place."),
    rule(Time, &["dawn"], "The {first|earliest} {birds|cocks} of $season {call|stir} as the sky {pales|brightens}."),
    rule(Time, &["morning"], "It is a {quiet|busy|clear-headed} $season morning at $place."),
    rule(
        Time,
        &["morning"],
        "{The morning|The day} is {young|still new|fresh}, and {so is the dew|the shadows are long}.",
    ),
    rule(Time, &["afternoon"], "The {afternoon|day} {wears on|drifts by|goes its way} at $place."),
    rule(
        Time,
        &["afternoon", "summer"],
        "The {summer|high} sun {stands|burns} over $place, and {the shade is dear|nothing hurries}.",
    ),
    rule(
        Time,
        &["afternoon"],
        "It is {past|well past} noon, {and the light is gold|and work has slowed|and the day has turned}.",
    ),
    rule(Time, &["dusk"], "{Dusk|Twilight|The blue hour} {gathers|falls|comes down} on $place."),
    rule(Time, &["dusk"], "The sun {sinks|goes down|is all but gone}, and {shadows|colours} {lengthen|fade}."),
    rule(
        Time,
        &["evening"],
        "It is {evening|past supper}, and {lamps|fires} {glow|flicker} {here and there|in the distance}.",
    ),
    rule(Time, &["evening"], "The {evening|day} {winds down|grows quiet} at $place."),
    rule(Weather, &["clear"], "The sky is {clear|wide open|without a cloud}."),
    rule(
        Weather,
        &["clear"],
        "{Not a cloud|Nothing at all} {stands|drifts} in the sky, and the air {is still|hardly stirs}.",
    ),
    rule(Weather, &["clear", "winter"], "The cold is {clear|sharp} enough to {ring|bite}."),
    rule(Weather, &["clear", "hot"], "Heat {shimmers|trembles} over {the ground|everything}."),
    rule(Weather, &["cloudy"], "{Grey|Heavy|Slow} clouds {drift|hang|pile up} overhead."),
    rule(Weather, &["cloudy"], "The {light|day} is {flat|dull} under {a lid of|low} cloud."),
    rule(
        Weather,
        &["fog"],
        "{Fog|Mist|A white haze} {clings to|swallows|veils} {the ground|everything beyond a stone's throw}.",
    ),
    rule(Weather, &["fog"], "Sounds come {muffled|from nowhere} through the {fog|mist}."),
    rule(Weather, &["rain"], "Rain {falls|patters|drums} {on the ground|without a pause|from a low sky}."),
    rule(Weather, &["rain", "weak"], "A {thin|fine|light} rain {drifts down|hangs in the air}."),
    rule(
        Weather,
        &["rain", "strong"],
        "Rain comes down in {sheets|ropes}, and {the paths are streams|nobody who can help it is outside}.",
    ),
    rule(Weather, &["storm"], "A storm {rages|howls|breaks}, and {thunder|lightning} {shakes|splits} the air."),
    rule(Weather, &["storm"], "The wind {tears at|throws itself against} everything that {stands|is not tied down}."),
    rule(Weather, &["snow"], "Snow {falls|drifts down|whirls}, {soft|thick|silent}, and {covers|softens} every track."),
    rule(
        Weather,
        &["snow", "strong"],
        "The snow is {so thick|so dense} that {ten steps away is nothing|the world ends at arm's length}.",
    ),
    rule(
        Weather,
        &["sandstorm"],
        "Sand {hisses|flies|drives} through the air and {stings|finds its way into everything}.",
    ),
    rule(Weather, &["sandstorm"], "The {horizon|sun} is {gone|a smear} behind a wall of {sand|dust}."),
    rule(Place, &[], "$place {lies|spreads out|waits} {before you|all around}."),
    rule(Place, &[], "{You know this place|This is a place with a name}: $place."),
    rule(
        Place,
        &[],
        "$place {has its own smell|keeps its own time|is not much talked about}{| in $season|, whatever the season}.",
    ),
    rule(Place, &["forest"], "{Old|Tall|Crowded} trees {close in|stand like pillars|whisper} around $place."),
    rule(Place, &["forest"], "{Roots|Ferns|Brambles} {cross|crowd} the path{|, and something rustles in them}."),
    rule(Place, &["forest", "autumn"], "{Red|Golden|Rust-brown} leaves {cover the ground|come down one by one}."),
    rule(
        Place,
        &["village"],
        "{Smoke|The smell of bread|The noise of hammers} {rises from|comes from} the {houses|roofs} of $place.",
    ),
    rule(Place, &["village"], "{Low|Crooked|Whitewashed} houses {lean together|line the lane} in $place."),
    rule(Place, &["ruins"], "{Broken|Mossy|Fallen} walls {tell|keep silent} of {what stood here|older days}."),
    rule(Place, &["ruins"], "{Ivy|Time|Rain} has {taken|softened} what people {built|left} at $place."),
    rule(Place, &["water"], "Water {murmurs|glints|laps} {close by|between the reeds|at the stones}."),
    rule(Place, &["mountain"], "{Rock|Bare stone|A grey slope} {rises|climbs} {on all sides|into the sky}."),
    rule(Place, &["mountain", "snow"], "The peaks {have vanished|are gone} {in white|behind the snow}."),
    rule(
        Place,
        &["cave"],
        "It is {dark|cool|damp} {in here|under the rock}, and every {step|drop} {echoes|comes back}.",
    ),
    rule(Place, &["desert"], "{Dunes|Stones and sand|Empty miles} {stretch|run} to the {horizon|edge of sight}."),
    rule(Place, &["market"], "{Stalls|Carts|Voices} {fill|crowd} the square{|, and everything has a price}."),
    rule(
        Place,
        &["coast"],
        "The {sea|surf} {breathes|roars|grumbles} {below|beyond the stones}, and {gulls cry|ropes creak}.",
    ),
    rule(Entities, &["company"], "{You see|Not far off, you spot|Close by, you notice} $others."),
    rule(Entities, &["company"], "You are not alone: {close by, you see|you can make out} $others."),
    rule(Entities, &["company", "night"], "In the {dark|gloom}, {you make out|you can just see} $others."),
    rule(Entities, &["company", "fog"], "{Shapes in the fog|Half hidden by the mist}: $others."),
    rule(Entities, &["alone"], "{Nobody|No one|Not a soul} {is near|is to be seen|is about}."),
    rule(Entities, &["alone"], "You {seem to be|are} alone here{| for now|, as far as you can tell}."),
    rule(Entities, &["alone", "night"], "If {anything|something} is near, the {night|dark} {hides|keeps} it."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::{Pattern, Values};

    #[test]
    fn every_sentence_is_one_that_can_be_told() {
        let values: Values = ["place", "season", "others"].map(|name| (name, "x".to_owned())).into();
        for rule in RULES {
            let pattern = Pattern::new(rule.text);
            assert!(pattern.is_answered_by(&values), "{}", rule.text);
            for number in 0..pattern.len() {
                let sentence = pattern.sentence(number, &values);
                let is_plain = !sentence.contains(['{', '}', '$', '|']) && !sentence.contains("  ");
                assert!(is_plain && sentence.ends_with('.'), "{sentence}");
            }
        }
    }
}
