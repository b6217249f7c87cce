//! What a caller keeps for each method that it calls, so that it is looked up once per call and not piece by piece.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use proto::rpc::{Error, Method};

use crate::breaker::Breaker;
use crate::metrics;

/// The destinations of one worker.
#[derive(Debug, Default)]
pub(crate) struct Destinations(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By the address of the subject, which is never moved: faster to look up than text.
    methods: HashMap<usize, Arc<Destination>>,
    /// By package: all methods of one service fail together.
    breakers: HashMap<&'static str, Arc<Breaker>>,
}

/// One method that is called.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) method: &'static Method,
    pub(crate) breaker: Arc<Breaker>,
    answered: Counter,
}

impl Destinations {
    pub(crate) fn of(&self, method: &'static Method) -> Arc<Destination> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { methods, breakers } = &mut *known;
        let destination = methods.entry(method.subject.as_ptr().addr()).or_insert_with(|| {
            let breaker = Arc::clone(breakers.entry(method.package).or_default());
            Arc::new(Destination { method, breaker, answered: metrics::calls_answered(method.subject) })
        });
        Arc::clone(destination)
    }
}

impl Destination {
    /// Counts one attempt.
    pub(crate) fn count<T>(&self, result: &Result<T, Error>) {
        match result {
            Ok(_) => {
                self.answered.inc();
            }
            Err(error) => metrics::count_failed_call(self.method.subject, error),
        }
    }
}
