//! Per-method state of the calling side, so that each call needs one look-up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use proto::rpc::Method;

use crate::breaker::{Breaker, Failure, OpenCircuit};
use crate::metrics;

/// The methods that one worker calls.
#[derive(Debug)]
pub(crate) struct Destinations {
    /// The service that calls.
    caller: Arc<str>,
    cache: Mutex<Cache>,
}

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
    pub(crate) fn new(caller: &str) -> Self {
        Self { caller: caller.into(), cache: Mutex::default() }
    }

    /// The circuits that reject calls now, ordered by destination.
    pub(crate) fn open_circuits(&self) -> Vec<OpenCircuit> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open: Vec<_> = cache.breakers.values().filter_map(|breaker| breaker.open()).collect();
        open.sort_unstable_by_key(|circuit| circuit.destination);
        open
    }

    pub(crate) fn of(&self, method: &'static Method) -> Arc<Destination> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let Cache { methods, breakers } = &mut *cache;
        let destination = methods.entry(method.subject.as_ptr().addr()).or_insert_with(|| {
            let breaker = || Arc::new(Breaker::new(Arc::clone(&self.caller), method.package));
            let breaker = Arc::clone(breakers.entry(method.package).or_insert_with(breaker));
            Arc::new(Destination { method, breaker, answered: metrics::calls_answered(method.subject) })
        });
        Arc::clone(destination)
    }
}

impl Destination {
    /// Counts one attempt.
    pub(crate) fn count<T>(&self, result: &Result<T, Failure>) {
        match result {
            Ok(_) => {
                self.answered.inc();
            }
            Err(failure) => metrics::count_failed_call(self.method.subject, failure.error()),
        }
    }
}
