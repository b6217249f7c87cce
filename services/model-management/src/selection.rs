//! Chooses the best model for what is asked, and says why. The same models and the same question give the same choice.

use std::cmp::Ordering;
use std::fmt;

use proto::ai::model::v1::{Model, Preference, SelectRequest};

use crate::registry::is_active;

/// The model that is used, and why this one, in one sentence.
#[derive(Debug, PartialEq)]
pub(crate) struct Choice<'a> {
    pub(crate) model: &'a Model,
    pub(crate) reason: String,
}

/// How many models each filter excluded. A model counts for the first filter that it fails.
pub(crate) type Excluded = Vec<(&'static str, usize)>;

/// No model passes all filters.
#[derive(Debug, PartialEq)]
pub(crate) struct NoModel {
    pub(crate) excluded: Excluded,
}

impl fmt::Display for NoModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match tally(&self.excluded) {
            Some(tally) => write!(f, "no model fits; excluded: {tally}"),
            None => f.write_str("no model is registered"),
        }
    }
}

type Filter = (&'static str, fn(&Model, &SelectRequest) -> bool);

/// In this order; 0 stands for any.
const FILTERS: [Filter; 5] = [
    ("retirement", |model, _| is_active(model)),
    ("capability", |model, asked| model.capabilities.iter().any(|can| can == capability(asked))),
    ("context_length", |model, asked| model.context_length >= asked.min_context_length),
    ("cost", |model, asked| within(model.cost_per_1k_tokens_micros, asked.max_cost_per_1k_tokens_micros)),
    ("latency", |model, asked| within(model.latency_ms.into(), asked.max_latency_ms.into())),
];

/// What the model must be able to do.
pub(crate) fn capability(asked: &SelectRequest) -> &str {
    match asked.capability.as_str() {
        "" => "text",
        capability => capability,
    }
}

pub(crate) fn select<'a>(models: &'a [Model], asked: &SelectRequest) -> Result<Choice<'a>, NoModel> {
    let (mut fitting, excluded) = filter(models, asked);
    let ranking = Ranking::new(asked.preference(), &fitting);
    fitting.sort_by(|one, other| ranking.compare(one, other));
    match fitting[..] {
        [] => Err(NoModel { excluded }),
        [model, ..] => Ok(Choice { model, reason: reason(&fitting, &ranking, &excluded) }),
    }
}

fn filter<'a>(models: &'a [Model], asked: &SelectRequest) -> (Vec<&'a Model>, Excluded) {
    let mut counts = [0; FILTERS.len()];
    let fitting = models
        .iter()
        .filter(|model| match FILTERS.iter().position(|(_, passes)| !passes(model, asked)) {
            Some(failed) => {
                counts[failed] += 1;
                false
            }
            None => true,
        })
        .collect();
    let excluded = FILTERS.iter().map(|&(name, _)| name).zip(counts).collect();
    (fitting, excluded)
}

fn within(value: u64, limit: u64) -> bool {
    limit == 0 || value <= limit
}

/// An order of models in which the first is the best. Ties are broken by id.
struct Ranking {
    preference: Preference,
    dearest: u128,
    slowest: u128,
}

impl Ranking {
    fn new(preference: Preference, models: &[&Model]) -> Self {
        let dearest = models.iter().map(|model| cost(model)).max().unwrap_or_default();
        let slowest = models.iter().map(|model| latency(model)).max().unwrap_or_default();
        Self { preference, dearest: dearest.max(1), slowest: slowest.max(1) }
    }

    fn compare(&self, one: &Model, other: &Model) -> Ordering {
        self.score(one).cmp(&self.score(other)).then_with(|| one.id.cmp(&other.id))
    }

    /// The smaller the better. Whole numbers, so that no rounding decides.
    fn score(&self, model: &Model) -> (u128, u128) {
        match self.preference {
            Preference::Cheapest => (cost(model), latency(model)),
            Preference::Fastest => (latency(model), cost(model)),
            // cost / dearest + latency / slowest, over the common denominator
            Preference::Unspecified => (cost(model) * self.slowest + latency(model) * self.dearest, cost(model)),
        }
    }

    fn superlative(&self) -> &'static str {
        match self.preference {
            Preference::Cheapest => "the cheapest",
            Preference::Fastest => "the fastest",
            Preference::Unspecified => "the best by cost and latency",
        }
    }
}

fn cost(model: &Model) -> u128 {
    model.cost_per_1k_tokens_micros.into()
}

fn latency(model: &Model) -> u128 {
    model.latency_ms.into()
}

fn reason(fitting: &[&Model], ranking: &Ranking, excluded: &Excluded) -> String {
    let mut reason = match fitting {
        [best, next, ..] => format!(
            "{} is {} of {} that fit, ahead of {}",
            described(best),
            ranking.superlative(),
            fitting.len(),
            described(next)
        ),
        [best, ..] => format!("{} is the only one that fits", described(best)),
        [] => String::new(),
    };
    if let Some(tally) = tally(excluded) {
        reason.push_str("; excluded: ");
        reason.push_str(&tally);
    }
    reason
}

fn described(model: &Model) -> String {
    format!("`{}` ({} µ$ per 1000 tokens, {} ms)", model.id, model.cost_per_1k_tokens_micros, model.latency_ms)
}

/// For example `2 by capability, 1 by cost`; nothing if nothing was excluded.
fn tally(excluded: &Excluded) -> Option<String> {
    let parts: Vec<String> = excluded
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(filter, count)| format!("{count} by {}", filter.replace('_', " ")))
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use proto::ai::model::v1::ModelState;

    use super::*;

    fn model(id: &str, cost: u64, latency_ms: u32) -> Model {
        Model {
            id: id.to_owned(),
            capabilities: vec!["text".to_owned()],
            context_length: 1000,
            cost_per_1k_tokens_micros: cost,
            latency_ms,
            state: ModelState::Active.into(),
            ..Model::default()
        }
    }

    fn models() -> Vec<Model> {
        let code = Model { capabilities: vec!["code".to_owned()], ..model("coder", 1, 1) };
        let old = Model { state: ModelState::Retired.into(), ..model("old", 0, 0) };
        let wide = Model { context_length: 9000, ..model("wide", 90, 90) };
        vec![code, model("even", 40, 40), model("cheap", 10, 80), model("quick", 80, 10), old, wide]
    }

    #[track_caller]
    fn check(asked: &SelectRequest, expected: &str) {
        let models = models();
        let choice = select(&models, asked).map(|choice| choice.model.id.as_str());
        assert_eq!(choice, Ok(expected), "{asked:?}");
    }

    #[test]
    fn preference_decides_among_those_that_fit() {
        let asked =
            |preference: Preference| SelectRequest { preference: preference.into(), ..SelectRequest::default() };
        check(&asked(Preference::Cheapest), "cheap");
        check(&asked(Preference::Fastest), "quick");
        check(&asked(Preference::Unspecified), "even");
    }

    #[test]
    fn each_limit_excludes() {
        let any = SelectRequest::default;
        check(&SelectRequest { capability: "code".to_owned(), ..any() }, "coder");
        check(&SelectRequest { min_context_length: 1001, ..any() }, "wide");
        check(&SelectRequest { max_cost_per_1k_tokens_micros: 10, ..any() }, "cheap");
        check(&SelectRequest { max_latency_ms: 10, ..any() }, "quick");
    }

    #[test]
    fn ties_are_broken_by_id_whatever_the_order() {
        let mut models = vec![model("b", 1, 1), model("a", 1, 1), model("c", 1, 1)];
        for _ in 0..3 {
            models.rotate_left(1);
            assert_eq!(select(&models, &SelectRequest::default()).unwrap().model.id, "a");
        }
    }

    #[test]
    fn free_and_instant_models_are_compared_too() {
        let models = [model("free", 0, 0), model("dear", u64::MAX, u32::MAX)];
        assert_eq!(select(&models, &SelectRequest::default()).unwrap().model.id, "free");
    }

    #[test]
    fn the_reason_names_what_was_beaten_and_what_was_excluded() {
        let models = models();
        let choice = select(&models, &SelectRequest::default()).unwrap();
        assert_eq!(
            choice.reason,
            "`even` (40 µ$ per 1000 tokens, 40 ms) is the best by cost and latency of 4 that fit, \
             ahead of `cheap` (10 µ$ per 1000 tokens, 80 ms); excluded: 1 by retirement, 1 by capability"
        );
    }

    #[test]
    fn a_single_candidate_is_called_that() {
        let models = [model("one", 1, 2)];
        let choice = select(&models, &SelectRequest::default()).unwrap();
        assert_eq!(choice.reason, "`one` (1 µ$ per 1000 tokens, 2 ms) is the only one that fits");
    }

    #[test]
    fn no_match_counts_what_each_filter_excluded() {
        let asked = SelectRequest { max_cost_per_1k_tokens_micros: 20, max_latency_ms: 20, ..SelectRequest::default() };
        let none = select(&models(), &asked).map(|choice| choice.reason).unwrap_err();
        assert_eq!(
            none.excluded,
            [("retirement", 1), ("capability", 1), ("context_length", 0), ("cost", 3), ("latency", 1)]
        );
        assert_eq!(
            none.to_string(),
            "no model fits; excluded: 1 by retirement, 1 by capability, 3 by cost, 1 by latency"
        );
    }

    #[test]
    fn an_empty_registry_says_so() {
        let none = select(&[], &SelectRequest::default()).map(|choice| choice.reason).unwrap_err();
        assert_eq!(none.to_string(), "no model is registered");
    }
}
