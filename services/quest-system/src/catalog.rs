//! The data of quests: templates, and locations with their targets and items.

/// The category of a template's target, which selects a list of a [`Location`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Category {
    Beast,
    Material,
    Person,
    Place,
    Goods,
}

/// A template for quests. Texts may contain `{target}`, `{location}` and `{count}`.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) id: &'static str,
    pub(crate) category: Category,
    pub(crate) title: &'static str,
    pub(crate) description: &'static str,
    /// The text of the first objective, whose id is the target's.
    pub(crate) objective: &'static str,
    pub(crate) count: Count,
    /// The id and text of an objective that follows the first one.
    pub(crate) then: Option<(&'static str, &'static str)>,
    /// Effort in percent of an ordinary quest. Rewards are proportional to it.
    pub(crate) effort: u32,
    pub(crate) hours: i64,
}

/// The required count of the first objective.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    Once,
    /// `least`, plus one for every `per` levels, plus a random number up to `spread`. Always more than one, because
    /// targets have plural names.
    Growing {
        least: u32,
        per: u32,
        spread: u32,
    },
}

/// A target of quests.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    /// The lowest player level at which it is used.
    pub(crate) from_level: u32,
}

/// A location of quests.
#[derive(Debug)]
pub(crate) struct Location {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    beasts: &'static [Target],
    materials: &'static [Target],
    persons: &'static [Target],
    places: &'static [Target],
    goods: &'static [Target],
    /// Items that may be part of a reward.
    pub(crate) items: &'static [&'static str],
}

impl Location {
    /// The location with this id.
    pub(crate) fn find(id: &str) -> Option<&'static Self> {
        LOCATIONS.iter().find(|location| location.id == id)
    }

    /// The targets of a category for a player of this level.
    pub(crate) fn targets(&self, category: Category, level: u32) -> impl Iterator<Item = &'static Target> {
        let targets = match category {
            Category::Beast => self.beasts,
            Category::Material => self.materials,
            Category::Person => self.persons,
            Category::Place => self.places,
            Category::Goods => self.goods,
        };
        targets.iter().filter(move |target| target.from_level <= level)
    }
}

const fn many(least: u32, per: u32, spread: u32) -> Count {
    Count::Growing { least, per, spread }
}

const fn of(id: &'static str, name: &'static str) -> Target {
    from(1, id, name)
}

const fn from(from_level: u32, id: &'static str, name: &'static str) -> Target {
    Target { id, name, from_level }
}

pub(crate) static TEMPLATES: &[Template] = &[
    Template {
        id: "hunt",
        category: Category::Beast,
        title: "Hunt the {target}",
        description: "The {target} of {location} have grown bold. Bring down {count} of them.",
        objective: "Bring down {count} {target}",
        count: many(3, 8, 2),
        then: None,
        effort: 100,
        hours: 48,
    },
    Template {
        id: "capture",
        category: Category::Beast,
        title: "Alive, if you please",
        description: "A scholar pays well for {target} of {location}, alive.",
        objective: "Capture {count} {target}",
        count: many(2, 25, 1),
        then: Some(("cage", "Bring them to the scholar")),
        effort: 130,
        hours: 72,
    },
    Template {
        id: "gather",
        category: Category::Material,
        title: "Gather {target}",
        description: "The apothecary has run out. Find {count} {target} in {location}.",
        objective: "Gather {count} {target}",
        count: many(5, 6, 4),
        then: None,
        effort: 70,
        hours: 48,
    },
    Template {
        id: "brew",
        category: Category::Material,
        title: "A remedy of {target}",
        description: "Fever spreads. A remedy can be brewed from {count} {target} of {location}.",
        objective: "Collect {count} {target}",
        count: many(2, 10, 2),
        then: Some(("brew", "Brew the remedy")),
        effort: 90,
        hours: 48,
    },
    Template {
        id: "escort",
        category: Category::Person,
        title: "Safe passage for {target}",
        description: "Alone, {target} would not survive the way through {location}.",
        objective: "Meet {target}",
        count: Count::Once,
        then: Some(("journey", "Reach the other side of {location} together")),
        effort: 110,
        hours: 24,
    },
    Template {
        id: "rescue",
        category: Category::Person,
        title: "Bring back {target}",
        description: "Nobody has seen {target} since the trip to {location}.",
        objective: "Find {target}",
        count: Count::Once,
        then: Some(("home", "Lead them home")),
        effort: 140,
        hours: 24,
    },
    Template {
        id: "deliver",
        category: Category::Goods,
        title: "A delivery of {target}",
        description: "{count} {target} are expected in {location}, and late.",
        objective: "Pick up {count} {target}",
        count: many(2, 20, 2),
        then: Some(("handover", "Hand them over in {location}")),
        effort: 80,
        hours: 24,
    },
    Template {
        id: "explore",
        category: Category::Place,
        title: "The way to {target}",
        description: "Somewhere in {location} lies {target}. No map shows it yet.",
        objective: "Find {target}",
        count: Count::Once,
        then: Some(("map", "Draw a map of the way")),
        effort: 90,
        hours: 96,
    },
    Template {
        id: "investigate",
        category: Category::Place,
        title: "Lights at {target}",
        description: "Strange lights were seen at {target} in {location}. Find out what they are.",
        objective: "Find {count} traces at {target}",
        count: many(2, 20, 2),
        then: Some(("report", "Report what you have found")),
        effort: 100,
        hours: 72,
    },
    Template {
        id: "defend",
        category: Category::Place,
        title: "Hold {target}",
        description: "Raiders gather around {target} in {location}. It must not fall.",
        objective: "Repel {count} attacks on {target}",
        count: many(2, 15, 1),
        then: None,
        effort: 150,
        hours: 12,
    },
];

pub(crate) static LOCATIONS: &[Location] = &[
    Location {
        id: "forest",
        name: "the Whispering Forest",
        beasts: &[
            of("wolves", "grey wolves"),
            of("boars", "thorn boars"),
            from(15, "spiders", "giant spiders"),
            from(40, "treants", "rotten treants"),
        ],
        materials: &[
            of("moonwort", "sprigs of moonwort"),
            of("amber", "lumps of amber"),
            from(20, "heartwood", "splinters of heartwood"),
        ],
        persons: &[of("woodcutter", "the lost woodcutter"), of("herbalist", "the old herbalist")],
        places: &[of("hollow-oak", "the Hollow Oak"), of("stone-circle", "the mossy stone circle")],
        goods: &[of("axes", "bundles of axes"), of("letters", "sealed letters")],
        items: &["wolf-tooth charm", "oaken bow"],
    },
    Location {
        id: "mountains",
        name: "the Grey Mountains",
        beasts: &[
            of("goats", "mad mountain goats"),
            of("eagles", "razor eagles"),
            from(20, "trolls", "stone trolls"),
            from(50, "wyverns", "wyverns"),
        ],
        materials: &[
            of("iron", "lumps of iron ore"),
            of("edelweiss", "edelweiss blossoms"),
            from(30, "mithril", "grains of mithril"),
        ],
        persons: &[of("surveyor", "the king's surveyor"), of("hermit", "the hermit of the pass")],
        places: &[of("eyrie", "the Broken Eyrie"), of("old-mine", "the old silver mine")],
        goods: &[of("rope", "coils of rope"), of("lamp-oil", "casks of lamp oil")],
        items: &["climber's boots", "dwarven flask"],
    },
    Location {
        id: "swamp",
        name: "the Drowned Marsh",
        beasts: &[of("leeches", "blood leeches"), of("toads", "venom toads"), from(25, "hydras", "young hydras")],
        materials: &[of("reed", "bundles of black reed"), of("bog-iron", "lumps of bog iron")],
        persons: &[of("fisher", "the stubborn eel fisher"), of("alchemist", "the careless alchemist")],
        places: &[of("sunken-chapel", "the sunken chapel"), of("stilt-house", "the empty stilt house")],
        goods: &[of("salt", "sacks of salt"), of("antidotes", "crates of antidotes")],
        items: &["will-o'-wisp lantern", "eelskin gloves"],
    },
    Location {
        id: "desert",
        name: "the Burning Sands",
        beasts: &[
            of("scorpions", "glass scorpions"),
            of("jackals", "dune jackals"),
            from(35, "sandworms", "sandworms"),
        ],
        materials: &[of("cactus", "cactus hearts"), of("fulgurite", "rods of fulgurite")],
        persons: &[of("caravaneer", "the caravan's scout"), of("astronomer", "the royal astronomer")],
        places: &[of("oasis", "the vanishing oasis"), of("obelisk", "the buried obelisk")],
        goods: &[of("water", "skins of water"), of("silk", "bales of silk")],
        items: &["sun-bleached mask", "scarab ring"],
    },
    Location {
        id: "coast",
        name: "the Saltwind Coast",
        beasts: &[of("crabs", "reef crabs"), of("gulls", "harpy gulls"), from(30, "sirens", "sirens")],
        materials: &[of("pearls", "cloudy pearls"), of("driftwood", "planks of driftwood")],
        persons: &[of("pilot", "the harbour pilot"), of("castaway", "the castaway")],
        places: &[of("lighthouse", "the dark lighthouse"), of("wreck", "the wreck of the Albatross")],
        goods: &[of("sailcloth", "rolls of sailcloth"), of("rum", "kegs of rum")],
        items: &["brass spyglass", "coral dagger"],
    },
    Location {
        id: "ruins",
        name: "the Ruins of Aldermoor",
        beasts: &[
            of("rats", "tomb rats"),
            of("skeletons", "restless skeletons"),
            from(30, "wraiths", "wraiths"),
            from(60, "liches", "lesser liches"),
        ],
        materials: &[of("tablets", "clay tablets"), of("grave-moss", "handfuls of grave moss")],
        persons: &[of("archaeologist", "the archaeologist"), of("gravekeeper", "the last gravekeeper")],
        places: &[of("library", "the burned library"), of("throne-room", "the fallen throne room")],
        goods: &[of("torches", "boxes of torches"), of("holy-water", "vials of holy water")],
        items: &["tarnished crown", "ghostglass vial"],
    },
    Location {
        id: "caves",
        name: "the Echoing Caves",
        beasts: &[of("bats", "shriek bats"), of("slimes", "cave slimes"), from(45, "basilisks", "basilisks")],
        materials: &[of("mushrooms", "pale mushrooms"), of("crystals", "singing crystals")],
        persons: &[of("miner", "the buried miner"), of("bard", "the bard who sought an echo")],
        places: &[of("underground-lake", "the underground lake"), of("bone-pit", "the bone pit")],
        goods: &[of("lanterns", "crates of lanterns"), of("beams", "pit beams")],
        items: &["crystal shard", "miner's pick"],
    },
    Location {
        id: "plains",
        name: "the Golden Plains",
        beasts: &[of("locusts", "iron locusts"), of("bandits", "bandits"), from(20, "centaurs", "rogue centaurs")],
        materials: &[of("barley", "sheaves of red barley"), of("honey", "combs of wild honey")],
        persons: &[of("tax-collector", "the tax collector"), of("runaway", "the miller's daughter")],
        places: &[of("windmill", "the old windmill"), of("burial-mound", "the burial mound")],
        goods: &[of("seed", "sacks of seed"), of("horseshoes", "boxes of horseshoes")],
        items: &["plainsrider's cloak", "harvest knife"],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const CATEGORIES: [Category; 5] =
        [Category::Beast, Category::Material, Category::Person, Category::Place, Category::Goods];

    #[test]
    fn every_location_has_targets_of_every_category_for_beginners() {
        for location in LOCATIONS {
            for category in CATEGORIES {
                assert!(location.targets(category, 1).count() >= 2, "{} {category:?}", location.id);
            }
            assert_eq!(location.items.len(), 2, "{}", location.id);
        }
    }

    #[test]
    fn strong_beasts_need_high_levels() {
        let beasts = |level| Location::find("mountains").unwrap().targets(Category::Beast, level).count();
        assert_eq!([1, 19, 20, 49, 50, 100].map(beasts), [2, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn ids_are_unique() {
        fn check(ids: Vec<&str>) {
            let unique: BTreeSet<_> = ids.iter().collect();
            assert_eq!(unique.len(), ids.len(), "{ids:?}");
        }
        check(TEMPLATES.iter().map(|template| template.id).collect());
        check(LOCATIONS.iter().map(|location| location.id).collect());
        for location in LOCATIONS {
            let targets =
                CATEGORIES.iter().flat_map(|category| location.targets(*category, 100)).map(|target| target.id);
            let steps = TEMPLATES.iter().filter_map(|template| template.then).map(|(id, _)| id);
            check(targets.chain(steps).collect());
        }
    }

    #[test]
    fn counted_targets_are_plural() {
        for template in TEMPLATES {
            match template.count {
                Count::Once => assert!(!template.objective.contains("{count}"), "{}", template.id),
                Count::Growing { least, per, .. } => assert!(least > 1 && per > 0, "{}", template.id),
            }
        }
    }

    #[test]
    fn every_category_has_templates() {
        assert!(TEMPLATES.len() >= 8);
        for category in CATEGORIES {
            assert!(TEMPLATES.iter().any(|template| template.category == category), "{category:?}");
        }
    }
}
