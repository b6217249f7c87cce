//! Which traces are recorded.

use super::SpanContext;

/// Decides whether the spans of a trace are recorded: what `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sampler {
    /// Whether a trace that came from elsewhere is recorded if its sender records it, whatever `choice` says.
    pub(crate) parent_based: bool,
    pub(crate) choice: Choice,
}

/// Which traces to choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Choice {
    All,
    None,
    /// This share of all traces, from 0 to 1. Every service that is given the same share chooses the same traces.
    Ratio(f64),
}

impl Sampler {
    /// Of a task without an exporter: it records nothing, and passes on what others have decided.
    pub(crate) const WITHOUT_EXPORTER: Self = Self { parent_based: true, choice: Choice::None };

    /// The sampler of this name.
    pub(crate) fn named(name: &str, ratio: f64) -> Option<Self> {
        let (parent_based, choice) = name.strip_prefix("parentbased_").map_or((false, name), |choice| (true, choice));
        let choice = match choice {
            "always_on" => Choice::All,
            "always_off" => Choice::None,
            "traceidratio" => Choice::Ratio(ratio),
            _ => return None,
        };
        Some(Self { parent_based, choice })
    }

    /// Whether a trace that begins here is recorded.
    pub(crate) fn samples_root(self, trace_id: u128) -> bool {
        match self.choice {
            Choice::All => true,
            Choice::None => false,
            // As the SDKs of OpenTelemetry do it: the lower 63 bits of the id are random.
            Choice::Ratio(ratio) => (((trace_id as u64) >> 1) as f64) < ratio * (1_u64 << 63) as f64,
        }
    }

    /// Whether the continuation of a trace is recorded here.
    pub(crate) fn samples_child(self, parent: SpanContext) -> bool {
        if self.parent_based { parent.sampled } else { self.samples_root(parent.trace_id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sender_decides_unless_the_sampler_says_otherwise() {
        #[track_caller]
        fn check(name: &str, root: bool, sampled_parent: bool, unsampled_parent: bool) {
            let sampler = Sampler::named(name, 0.0).unwrap();
            let child = |sampled| sampler.samples_child(SpanContext { trace_id: 7, span_id: 1, sampled });
            assert_eq!((sampler.samples_root(7), child(true), child(false)), (root, sampled_parent, unsampled_parent));
        }
        check("always_on", true, true, true);
        check("always_off", false, false, false);
        check("traceidratio", false, false, false);
        check("parentbased_always_on", true, true, false);
        check("parentbased_always_off", false, true, false);
        check("parentbased_traceidratio", false, true, false);
        assert_eq!(Sampler::named("sometimes", 1.0), None);
    }

    #[test]
    fn a_ratio_chooses_its_share_of_random_traces() {
        let chosen = |ratio: f64| {
            let sampler = Sampler { parent_based: true, choice: Choice::Ratio(ratio) };
            let mut ids = fastrand::Rng::with_seed(11);
            (0..100_000).filter(|_| sampler.samples_root(ids.u128(..))).count()
        };
        assert_eq!((chosen(0.0), chosen(1.0)), (0, 100_000));
        assert!((900..1_100).contains(&chosen(0.01)), "{}", chosen(0.01));
        assert!((49_000..51_000).contains(&chosen(0.5)), "{}", chosen(0.5));
    }
}
