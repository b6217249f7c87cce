//! Rules: whether they are valid, and which of them routes a message.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use proto::router::v1::{Evaluation, Rule};
use sdk::{Error, Follow, Id, SubjectPattern, Update, check_count, check_text, required};

use crate::content::{Content, MAX_SUBJECT};
use crate::destination::Destinations;
use crate::predicate::{self, shortened};

const MAX_PREDICATES: usize = 16;
const MAX_DESTINATIONS: usize = 8;
const MAX_DESCRIPTION: usize = 512;
/// Bytes of a rule, and of the rules of one answer.
const MAX_RULE: usize = 16 << 10;
const MAX_PAGE_BYTES: usize = 512 << 10;
/// Characters of the reason why a rule does not match: a thousand of them are in one answer.
const MAX_REASON: usize = 160;

/// The key of a rule.
pub(crate) fn key(id: &str) -> Result<Id, Error> {
    Id::new("rule", id, 64)
}

/// The rule of a request, if it is valid and its destinations are some that the router may deliver to.
pub(crate) fn checked(rule: Option<Rule>, accepted: &Destinations) -> Result<Rule, Error> {
    let rule = Rule { revision: 0, ..required("rule", rule)? };
    key(&rule.id)?;
    pattern(&rule)?;
    check_count("predicates", rule.predicates.len(), MAX_PREDICATES)?;
    rule.predicates.iter().try_for_each(predicate::check)?;
    if !rule.description.is_empty() {
        check_text("description", &rule.description, MAX_DESCRIPTION)?;
    }
    if rule.destinations.is_empty() {
        return Err(Error::invalid("a rule needs at least one destination"));
    }
    check_count("destinations", rule.destinations.len(), MAX_DESTINATIONS)?;
    let mut subjects = BTreeSet::new();
    for destination in &rule.destinations {
        accepted.check(destination)?;
        if !subjects.insert(&destination.subject) {
            return Err(Error::invalid(format_args!("destination `{}` is given twice", destination.subject)));
        }
    }
    match rule.encoded_len() {
        size if size <= MAX_RULE => Ok(rule),
        size => Err(Error::invalid(format_args!("the rule has {size} bytes, at most {MAX_RULE} are allowed"))),
    }
}

fn pattern(rule: &Rule) -> Result<SubjectPattern, Error> {
    SubjectPattern::new("subject", &rule.subject, MAX_SUBJECT)
}

/// All rules, in the order in which they are tried.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// By priority and id.
    ordered: BTreeMap<(u32, String), (SubjectPattern, Rule)>,
    priorities: BTreeMap<String, u32>,
}

impl Follow<Rule> for Rules {
    fn apply(&mut self, update: Update<Rule>) {
        if let Some(priority) = self.priorities.remove(&update.key) {
            self.ordered.remove(&(priority, update.key.clone()));
        }
        let Some(rule) = update.record.map(|stored| stored.value) else { return };
        // What is stored was checked.
        let Ok(pattern) = pattern(&rule) else { return };
        self.priorities.insert(update.key.clone(), rule.priority);
        self.ordered.insert((rule.priority, update.key), (pattern, rule));
    }
}

impl Rules {
    pub(crate) fn count(&self) -> usize {
        self.ordered.len()
    }

    /// Those after the one with this id, or the first ones; fewer than `limit` if they are large.
    pub(crate) fn page(&self, after_id: &str, limit: usize) -> Result<Vec<Rule>, Error> {
        let from = match (after_id, self.priorities.get(after_id)) {
            ("", _) => None,
            (_, None) => return Err(Error::not_found(key(after_id)?)),
            (_, Some(priority)) => Some((*priority, after_id.to_owned())),
        };
        let later = self.ordered.iter().filter(|(place, _)| from.as_ref().is_none_or(|from| *place > from));
        let mut bytes = 0;
        let fits = |rule: &&Rule| {
            bytes += rule.encoded_len();
            bytes <= MAX_PAGE_BYTES
        };
        Ok(later.map(|(_, (_, rule))| rule).take(limit).take_while(fits).cloned().collect())
    }

    /// The first rule that matches.
    pub(crate) fn first(&self, content: &Content) -> Option<&Rule> {
        self.enabled().find(|(pattern, rule)| matches(pattern, rule, content).is_ok()).map(|(_, rule)| rule)
    }

    /// How each rule takes a message.
    pub(crate) fn evaluations(&self, content: &Content) -> Vec<Evaluation> {
        let evaluate = |(pattern, rule): (&SubjectPattern, &Rule)| {
            let reason = matches(pattern, rule, content).err();
            let (matches, reason) = (reason.is_none(), shortened(&reason.unwrap_or_default(), MAX_REASON));
            Evaluation { rule_id: rule.id.clone(), matches, reason }
        };
        self.enabled().map(evaluate).collect()
    }

    fn enabled(&self) -> impl Iterator<Item = (&SubjectPattern, &Rule)> {
        self.ordered.values().map(|(pattern, rule)| (pattern, rule)).filter(|(_, rule)| !rule.disabled)
    }
}

fn matches(pattern: &SubjectPattern, rule: &Rule, content: &Content) -> Result<(), String> {
    if !pattern.matches(&content.message.subject) {
        return Err(format!("subject `{}` does not match `{pattern}`", content.message.subject));
    }
    rule.predicates.iter().try_for_each(|predicate| predicate::holds(predicate, content))
}

#[cfg(test)]
pub(crate) mod tests {
    use proto::router::v1::{Comparison, Destination, Predicate};
    use sdk::testing::written;

    use super::*;
    use crate::content::tests::content;
    use crate::destination::EVENT;
    use crate::predicate::tests::field;

    /// A rule for bosses, which become events.
    pub(crate) fn rule(id: &str, priority: u32, subject: &str) -> Rule {
        Rule {
            id: id.to_owned(),
            priority,
            subject: subject.to_owned(),
            predicates: vec![field("kind", Comparison::Equal, &["boss"])],
            destinations: vec![Destination { subject: EVENT.to_owned(), ..Destination::default() }],
            ..Rule::default()
        }
    }

    fn rules(all: &[Rule]) -> Rules {
        let mut rules = Rules::default();
        for (revision, rule) in (1..).zip(all) {
            rules.apply(written(&rule.id, revision, rule.clone()));
        }
        rules
    }

    #[test]
    fn the_first_rule_that_matches_routes() {
        let mut rules = rules(&[
            rule("late", 9, "game.>"),
            Rule { disabled: true, ..rule("off", 0, ">") },
            rule("b", 1, "game.*"),
            rule("a", 1, "game.spawned"),
            Rule { predicates: Vec::new(), ..rule("other", 0, "shop.>") },
        ]);
        let boss = content("game.spawned", r#"{"kind": "boss"}"#);
        let first = |rules: &Rules, content: &Content| rules.first(content).map(|rule| rule.id.clone());
        assert_eq!(first(&rules, &boss).as_deref(), Some("a"));
        assert_eq!(first(&rules, &content("shop.sold", "")).as_deref(), Some("other"));
        assert_eq!(first(&rules, &content("game.spawned", "")), None);
        let told: Vec<_> = rules.evaluations(&boss).into_iter().map(|it| (it.rule_id, it.matches)).collect();
        let expected = [("other", false), ("a", true), ("b", true), ("late", true)];
        assert_eq!(told, expected.map(|(id, matches)| (id.to_owned(), matches)));

        rules.apply(written("a", 9, rule("a", 2, "game.spawned")));
        assert_eq!((first(&rules, &boss).as_deref(), rules.count()), (Some("b"), 5));
        rules.apply(Update { key: "b".to_owned(), revision: 10, record: None });
        assert_eq!((first(&rules, &boss).as_deref(), rules.count()), (Some("a"), 4));
        let ids = |page: Vec<Rule>| page.into_iter().map(|rule| rule.id).collect::<Vec<_>>();
        assert_eq!(ids(rules.page("", 2).unwrap()), ["off", "other"]);
        assert_eq!(ids(rules.page("other", 9).unwrap()), ["a", "late"]);
        assert_eq!(rules.page("b", 9).unwrap_err().message(), "rule `b` does not exist");
    }

    #[test]
    fn a_rule_that_is_not_valid_is_refused() {
        #[track_caller]
        fn refused(rule: Rule, because: &str) {
            let error = checked(Some(rule), &Destinations::default()).unwrap_err();
            assert!(error.message().contains(because), "{error}");
        }
        assert!(checked(Some(rule("a", 1, "game.>")), &Destinations::default()).is_ok());
        refused(rule("a.b", 1, "game"), "rule id must be");
        refused(rule("a", 1, "game..x"), "subject must be 1 to 128 bytes");
        refused(Rule { destinations: Vec::new(), ..rule("a", 1, "game") }, "at least one destination");
        let destination = rule("a", 1, "game").destinations.remove(0);
        let twice = vec![destination.clone(), destination.clone()];
        refused(Rule { destinations: twice, ..rule("a", 1, "game") }, "is given twice");
        refused(Rule { predicates: vec![Default::default(); 17], ..rule("a", 1, "game") }, "at most 16 are allowed");
        let values = vec!["x".repeat(256); 32];
        let predicate = Predicate { values, ..field("kind", Comparison::Equal, &[]) };
        let large = vec![predicate; 3];
        refused(Rule { predicates: large, ..rule("a", 1, "game") }, "bytes, at most 16384 are allowed");
        let elsewhere = Destination { subject: "svc.payment.v1.charge".to_owned(), ..destination };
        refused(
            Rule { destinations: vec![elsewhere], ..rule("a", 1, "game") },
            "must be one of evt.router.message.routed.v1",
        );
    }
}
