//! Per-method state of the calling side, so that each call needs one look-up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use proto::rpc::{Error, Method};

use crate::breaker::Breaker;
use crate::metrics;

/// The methods that one worker calls.
#[derive(Debug, Default)]
pub(crate) struct Destinations(Mutex<Cache>);

#[derive(Debug, Default)]
struct Cache {
    /// By the address of the subject, which is static: comparing addresses is faster than comparing text.
    methods: HashMap<usize, Arc<Destination>>,
    /// By package: the methods of one service share a circuit breaker, because they fail together.
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
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Cache { methods, breakers } = &mut *cache;
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
