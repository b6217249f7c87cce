//! Selects the best model for a request, with the reason. The same models and the same request give the same selection.

use std::cmp::Ordering;
use std::fmt;

use proto::ai::model::v1::{Model, Preference, SelectRequest};
use sdk::Error;

use crate::registry::is_active;

/// The selected model, and the reason in one sentence.
#[derive(Debug, PartialEq)]
pub(crate) struct Choice<'a> {
    pub(crate) model: &'a Model,
    pub(crate) reason: String,
}

/// How many models each filter excluded. A model is counted for the first filter that it fails.
pub(crate) type Excluded = Vec<(&'static str, usize)>;

/// No model passes all filters.
#[derive(Debug, PartialEq)]
pub(crate) struct NoModel {
    pub(crate) excluded: Excluded,
}

impl From<NoModel> for Error {
    fn from(none: NoModel) -> Self {
        let details = none.excluded.iter().map(|(filter, count)| (format!("excluded_by_{filter}"), *count));
        details.fold(Self::failed_precondition(&none), |error, (key, count)| error.with_detail(&key, count))
    }
}

impl fmt::Display for NoModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match summary(&self.excluded) {
            Some(summary) => write!(f, "no model fits; excluded: {summary}"),
            None => f.write_str("no model is registered"),
        }
    }
}

type Filter = (&'static str, fn(&Model, &SelectRequest) -> bool);

/// The filters in order. A limit of 0 allows everything.
const FILTERS: [Filter; 5] = [
    ("retirement", |model, _| is_active(model)),
    ("capability", |model, request| model.capabilities.iter().any(|can| can == capability(request))),
    ("context_length", |model, request| model.context_length >= request.min_context_length),
    ("cost", |model, request| within(model.cost_per_1k_tokens_micros, request.max_cost_per_1k_tokens_micros)),
    ("latency", |model, request| within(model.latency_ms.into(), request.max_latency_ms.into())),
];

/// The capability that the model must have.
pub(crate) fn capability(request: &SelectRequest) -> &str {
    match request.capability.as_str() {
        "" => "text",
        capability => capability,
    }
}

pub(crate) fn select<'a>(models: &'a [Model], request: &SelectRequest) -> Result<Choice<'a>, NoModel> {
    let (mut fitting, excluded) = filter(models, request);
    let ranking = Ranking::new(request.preference(), &fitting);
    fitting.sort_by(|one, other| ranking.compare(one, other));
    match fitting[..] {
        [] => Err(NoModel { excluded }),
        [model, ..] => Ok(Choice { model, reason: reason(&fitting, &ranking, &excluded) }),
    }
}

fn filter<'a>(models: &'a [Model], request: &SelectRequest) -> (Vec<&'a Model>, Excluded) {
    let mut counts = [0; FILTERS.len()];
    let fitting = models
        .iter()
        .filter(|model| match FILTERS.iter().position(|(_, passes)| !passes(model, request)) {
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

/// Orders models, the best first. Ties are broken by id.
struct Ranking {
    preference: Preference,
    max_cost: u128,
    max_latency: u128,
}

impl Ranking {
    fn new(preference: Preference, models: &[&Model]) -> Self {
        let max_cost = models.iter().map(|model| cost(model)).max().unwrap_or_default();
        let max_latency = models.iter().map(|model| latency(model)).max().unwrap_or_default();
        Self { preference, max_cost: max_cost.max(1), max_latency: max_latency.max(1) }
    }

    fn compare(&self, one: &Model, other: &Model) -> Ordering {
        self.score(one).cmp(&self.score(other)).then_with(|| one.id.cmp(&other.id))
    }

    /// Lower is better. Integers, so that rounding has no influence.
    fn score(&self, model: &Model) -> (u128, u128) {
        match self.preference {
            Preference::Cheapest => (cost(model), latency(model)),
            Preference::Fastest => (latency(model), cost(model)),
            // cost / max_cost + latency / max_latency, over the common denominator
            Preference::Unspecified => (cost(model) * self.max_latency + latency(model) * self.max_cost, cost(model)),
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
    if let Some(summary) = summary(excluded) {
        reason.push_str("; excluded: ");
        reason.push_str(&summary);
    }
    reason
}

fn described(model: &Model) -> String {
    format!("`{}` ({} µ$ per 1000 tokens, {} ms)", model.id, model.cost_per_1k_tokens_micros, model.latency_ms)
}

/// For example `2 by capability, 1 by cost`; `None` if nothing was excluded.
fn summary(excluded: &Excluded) -> Option<String> {
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
    fn check(request: &SelectRequest, expected: &str) {
        let models = models();
        let choice = select(&models, request).map(|choice| choice.model.id.as_str());
        assert_eq!(choice, Ok(expected), "{request:?}");
    }

    #[test]
    fn preference_decides_among_matching_models() {
        let preferring =
            |preference: Preference| SelectRequest { preference: preference.into(), ..SelectRequest::default() };
        check(&preferring(Preference::Cheapest), "cheap");
        check(&preferring(Preference::Fastest), "quick");
        check(&preferring(Preference::Unspecified), "even");
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
    fn ties_are_broken_by_id_in_any_order() {
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
    fn the_reason_names_the_runner_up_and_the_exclusions() {
        let models = models();
        let choice = select(&models, &SelectRequest::default()).unwrap();
        assert_eq!(
            choice.reason,
            "`even` (40 µ$ per 1000 tokens, 40 ms) is the best by cost and latency of 4 that fit, \
             ahead of `cheap` (10 µ$ per 1000 tokens, 80 ms); excluded: 1 by retirement, 1 by capability"
        );
    }

    #[test]
    fn the_reason_says_if_there_was_only_one_candidate() {
        let models = [model("one", 1, 2)];
        let choice = select(&models, &SelectRequest::default()).unwrap();
        assert_eq!(choice.reason, "`one` (1 µ$ per 1000 tokens, 2 ms) is the only one that fits");
    }

    #[test]
    fn no_match_counts_what_each_filter_excluded() {
        let request =
            SelectRequest { max_cost_per_1k_tokens_micros: 20, max_latency_ms: 20, ..SelectRequest::default() };
        let none = select(&models(), &request).map(|choice| choice.reason).unwrap_err();
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
