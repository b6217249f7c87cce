//! The embedded models, which every fleet has: they run inside ai-integration.

use proto::ai::model::v1::{Model, ModelState};

/// In increasing order of cost and quality.
pub(crate) fn embedded() -> [Model; 3] {
    [
        model("ngram-small", &["text"], 2_048, 5, 2),
        model("ngram-medium", &["dialogue", "text"], 8_192, 20, 4),
        model("ngram-large", &["dialogue", "narrative", "text"], 32_768, 60, 8),
    ]
}

fn model(id: &str, capabilities: &[&str], context_length: u32, cost_micros: u64, latency_ms: u32) -> Model {
    Model {
        id: id.to_owned(),
        capabilities: capabilities.iter().map(|&capability| capability.to_owned()).collect(),
        context_length,
        cost_per_1k_tokens_micros: cost_micros,
        latency_ms,
        state: ModelState::Active.into(),
        backend: String::new(),
        revision: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;

    #[test]
    fn embedded_models_satisfy_the_rules_of_registration() {
        for model in embedded() {
            assert_eq!(registry::normalized(model.clone()), Ok(model));
        }
    }
}
