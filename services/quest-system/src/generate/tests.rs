use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proto::rpc::Code;

use super::*;

const NOW: Timestamp = Timestamp { seconds: 1_800_000_000, nanos: 5 };

fn key() -> QuestKey {
    QuestKey::new("p1".to_owned(), "q1".to_owned()).unwrap()
}

fn made(seed: u64, level: u32, location: &str, past: &[QuestInfo]) -> QuestInfo {
    let key = key();
    let spec = QuestSpec::new(&key, level, location, Some(seed)).unwrap();
    generate(&spec, past, NOW)
}

#[test]
fn invalid_parameters_are_refused() {
    let key = key();
    let check = |level, location, message: &str| {
        let error = QuestSpec::new(&key, level, location, None).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::InvalidArgument, message));
        error
    };
    check(0, "", "level 0 is not 1 to 100");
    check(101, "", "level 101 is not 1 to 100");
    check(u32::MAX, "forest", "level 4294967295 is not 1 to 100");
    let error = check(1, "moon", "location `moon` is unknown");
    assert!(error.detail("known").unwrap().starts_with("forest, mountains,"));
}

#[test]
fn the_quest_of_an_input_never_changes() {
    let check = |seed, level, location, expected: &str| {
        let quest = made(seed, level, location, &[]);
        let objectives: Vec<_> =
            quest.objectives.iter().map(|objective| format!("{} {}", objective.id, objective.required)).collect();
        let reward = quest.reward.unwrap();
        let seen = format!(
            "{} in {}: {}; {} xp, {} gold, {:?}",
            quest.template,
            quest.location,
            objectives.join(", "),
            reward.experience,
            reward.gold,
            reward.items
        );
        assert_eq!(seen, expected);
    };
    check(0, 1, "", "investigate in plains: windmill 3, report 1; 79 xp, 15 gold, [\"plainsrider's cloak\"]");
    check(1, 1, "forest", "hunt in forest: wolves 3; 72 xp, 15 gold, [\"oaken bow\"]");
    check(2, 30, "mountains", "gather in mountains: iron 14; 464 xp, 100 gold, []");
    check(
        u64::MAX,
        100,
        "ruins",
        "deliver in ruins: holy-water 7, handover 1; 1902 xp, 373 gold, [\"tarnished crown\"]",
    );
}

#[test]
fn all_fields_of_a_quest_are_set() {
    let quest = made(1, 1, "forest", &[]);
    assert_eq!((quest.id.as_str(), quest.player_id.as_str()), ("q1", "p1"));
    assert_eq!((quest.state(), quest.level, quest.revision), (QuestState::Offered, 1, 0));
    assert_eq!(quest.offered_at, Some(NOW));
    assert_eq!(quest.title, "Hunt the grey wolves");
    assert_eq!(quest.description, "The grey wolves of the Whispering Forest have grown bold. Bring down 3 of them.");
    assert_eq!(quest.objectives[0].description, "Bring down 3 grey wolves");
}

/// A past quest of this player.
fn earlier(template: &str, target: &str, state: QuestState, age: i64) -> QuestInfo {
    QuestInfo {
        id: format!("{template}-{target}-{age}"),
        template: template.to_owned(),
        state: state.into(),
        objectives: vec![Objective { id: target.to_owned(), ..Objective::default() }],
        offered_at: Some(Timestamp { seconds: NOW.seconds - age, nanos: 0 }),
        ..QuestInfo::default()
    }
}

fn how_often(template: &str, past: &[QuestInfo]) -> usize {
    (0..2000).filter(|seed| made(*seed, 1, "forest", past).template == template).count()
}

#[test]
fn recent_templates_are_less_likely() {
    let hunts = |count: i64, newest_age| {
        (0..count).map(|age| earlier("hunt", "wolves", QuestState::Completed, newest_age + age)).collect::<Vec<_>>()
    };
    let fresh = how_often("hunt", &[]);
    let once = how_often("hunt", &hunts(1, 1));
    let always = how_often("hunt", &hunts(6, 1));
    assert!((150..250).contains(&fresh), "{fresh}");
    assert!(once * 2 < fresh, "{once} of {fresh}");
    assert!(always < once && always > 0, "{always} of {once}");

    // Older than the newest quests.
    let mut past = hunts(6, 1000);
    past.extend((0..6).map(|age| earlier("gather", "amber", QuestState::Abandoned, age)));
    assert!(how_often("hunt", &past) >= fresh);
}

#[test]
fn the_order_of_past_quests_does_not_matter() {
    let mut past: Vec<_> =
        (0..12).map(|age| earlier(TEMPLATES[age as usize % 10].id, "x", QuestState::Completed, age / 2)).collect();
    let expected: Vec<_> = (0..50).map(|seed| made(seed, 9, "", &past)).collect();
    past.reverse();
    assert_eq!((0..50).map(|seed| made(seed, 9, "", &past)).collect::<Vec<_>>(), expected);
}

/// Quests with every template and every target of the location.
fn everything_in(location: &str, state: QuestState) -> Vec<QuestInfo> {
    pairs(Location::find(location).unwrap(), 100)
        .into_iter()
        .map(|(template, target)| earlier(template.id, target.id, state, 1))
        .collect()
}

#[test]
fn open_quests_are_not_generated_again() {
    for state in [QuestState::Offered, QuestState::Active] {
        let mut past = everything_in("forest", state);
        // Only one pair is unused, so every seed gives that one.
        past.retain(|quest| (quest.template.as_str(), quest.objectives[0].id.as_str()) != ("explore", "hollow-oak"));
        for seed in 0..50 {
            assert_eq!(pair_of(&made(seed, 5, "forest", &past)), Some(("explore", "hollow-oak")));
        }
    }
    let over = everything_in("forest", QuestState::Completed);
    assert!((0..50).map(|seed| made(seed, 5, "forest", &over).title).collect::<BTreeSet<_>>().len() > 5);
}

#[test]
fn a_quest_is_repeated_if_no_other_is_left() {
    let past = everything_in("forest", QuestState::Active);
    assert_eq!(made(3, 5, "forest", &past).location, "forest");

    // Without a location, one with unused pairs is chosen.
    let everywhere_but_plains = LOCATIONS
        .iter()
        .filter(|location| location.id != "plains")
        .flat_map(|location| everything_in(location.id, QuestState::Active))
        .collect::<Vec<_>>();
    for seed in 0..50 {
        assert_eq!(made(seed, 5, "", &everywhere_but_plains).location, "plains");
    }
}

#[test]
fn without_a_location_all_locations_are_used() {
    let locations: BTreeSet<_> = (0..200).map(|seed| made(seed, 5, "", &[]).location).collect();
    assert_eq!(locations.len(), LOCATIONS.len());
}

#[test]
fn counts_and_rewards_grow_with_the_level() {
    let total = |level| {
        let mut by_template: BTreeMap<String, (u32, u32, u32)> = BTreeMap::new();
        for quest in (0..500).map(|seed| made(seed, level, "", &[])) {
            let reward = quest.reward.as_ref().unwrap();
            let sum = by_template.entry(quest.template.clone()).or_default();
            sum.0 = sum.0.max(quest.objectives[0].required);
            sum.1 = sum.1.max(reward.experience);
            sum.2 = sum.2.max(reward.gold);
        }
        by_template
    };
    let (low, middle, high) = (total(1), total(30), total(100));
    for template in TEMPLATES {
        let [low, middle, high] = [&low, &middle, &high].map(|totals| totals[template.id]);
        assert!(low.1 < middle.1 && middle.1 < high.1, "{}: experience", template.id);
        assert!(low.2 < middle.2 && middle.2 < high.2, "{}: gold", template.id);
        match template.count {
            Count::Once => assert_eq!((low.0, high.0), (1, 1), "{}", template.id),
            Count::Growing { .. } => assert!(low.0 < high.0, "{}: count", template.id),
        }
    }
}

#[test]
fn twenty_open_quests_are_the_limit() {
    let open = |count| vec![earlier("hunt", "wolves", QuestState::Offered, 1); count];
    let mut quests = open(19);
    quests.extend(everything_in("forest", QuestState::Completed));
    assert_eq!(check_open_limit(&quests), Ok(()));
    let error = check_open_limit(&open(20)).unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert_eq!(error.message(), "player has 20 open quests, and at most 20 are allowed");
}

proptest! {
    #[test]
    fn every_quest_is_playable(seed: u64, level in 1_u32..=100, place in 0..=LOCATIONS.len()) {
        let location = LOCATIONS.get(place).map_or("", |location| location.id);
        let quest = made(seed, level, location, &[]);
        prop_assert_eq!(&quest, &made(seed, level, location, &[]));

        let at = Location::find(&quest.location).unwrap();
        prop_assert!(location.is_empty() || at.id == location);
        let template = TEMPLATES.iter().find(|template| template.id == quest.template).unwrap();
        prop_assert!(at.targets(template.category, level).any(|target| target.id == quest.objectives[0].id));
        let ids: BTreeSet<_> = quest.objectives.iter().map(|objective| &objective.id).collect();
        prop_assert_eq!(ids.len(), quest.objectives.len());
        for objective in &quest.objectives {
            prop_assert!((1..=40).contains(&objective.required) && objective.done == 0);
        }
        let texts = quest.objectives.iter().map(|objective| &objective.description);
        for text in texts.chain([&quest.title, &quest.description]) {
            prop_assert!(!text.is_empty() && !text.contains(['{', '}']), "{}", text);
        }
        let reward = quest.reward.clone().unwrap();
        prop_assert!(reward.experience > 0 && reward.gold > 0 && reward.items.len() <= 1);
        prop_assert!(quest.expires_at.unwrap().seconds > NOW.seconds);
    }
}
