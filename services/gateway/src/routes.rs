//! Maps paths to methods.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proto::rpc::Method;

use crate::metrics::{Metrics, RouteMetrics};
use crate::transcode::{MessageId, Schema, Unsupported};

/// The path of a method: package `quest.v1`, method `generate` is `/api/quest/v1/generate`.
pub fn path(method: &Method) -> String {
    format!("/api/{}/{}", method.package.replace('.', "/"), method.name)
}

/// The route of one method.
pub(crate) struct Route {
    pub(crate) method: &'static Method,
    pub(crate) input: MessageId,
    pub(crate) output: MessageId,
    pub(crate) metrics: RouteMetrics,
    in_flight: Arc<AtomicUsize>,
}

impl Route {
    /// Acquires a permit for one request, if fewer than `limit` are being handled.
    pub(crate) fn acquire(&self, limit: usize) -> Option<Permit> {
        let previous = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(Arc::clone(&self.in_flight));
        (previous < limit).then_some(permit)
    }
}

/// A permit for one request. Dropping it releases it.
pub(crate) struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The routes of the public methods by path.
pub(crate) struct Routes(HashMap<String, Arc<Route>>);

impl Routes {
    pub(crate) fn new(methods: &[&'static Method], schema: &Schema, metrics: &Metrics) -> Result<Self, Unsupported> {
        let routes = methods.iter().map(|method| {
            let path = path(method);
            let route = Route {
                method,
                input: schema.id(method.input)?,
                output: schema.id(method.output)?,
                metrics: metrics.route(&path),
                in_flight: Arc::default(),
            };
            Ok((path, Arc::new(route)))
        });
        routes.collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Arc<Route>> {
        self.0.get(path)
    }

    /// The routes with a similar path, the most similar first.
    pub(crate) fn similar(&self, path: &str) -> Vec<&str> {
        // Comparing is quadratic in the length, and no route is longer.
        let path: String = path.chars().take(128).collect();
        let similarity = |known: &str| strsim::normalized_damerau_levenshtein(known, &path);
        let mut matches: Vec<(f64, &str)> = self
            .0
            .keys()
            .map(|known| (similarity(known), known.as_str()))
            .filter(|(similarity, _)| *similarity > 0.6)
            .collect();
        matches.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(right.1)));
        let best = matches.first().map_or(0.0, |(best, _)| *best);
        let likely = matches.into_iter().take_while(|(similarity, _)| *similarity > best - 0.05);
        likely.take(3).map(|(_, known)| known).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
        let methods: Vec<&Method> = proto::SERVICES.iter().flat_map(|service| service.methods).collect();
        Routes::new(&methods, &Schema::for_fleet().unwrap(), &Metrics::default()).unwrap()
    }

    #[test]
    fn every_method_has_its_path() {
        let routes = routes();
        for method in proto::SERVICES.iter().flat_map(|service| service.methods) {
            assert_eq!(routes.get(&path(method)).unwrap().method.subject, method.subject);
        }
        assert!(routes.get("/api/ai/llm/v1/infer_stream").unwrap().method.streaming);
    }

    #[test]
    fn a_misspelt_path_finds_similar_routes() {
        assert_eq!(routes().similar("/api/quest/v1/genrate")[0], "/api/quest/v1/generate");
        assert!(routes().similar(&"x".repeat(100_000)).is_empty());
    }

    #[test]
    fn permits_are_limited() {
        let routes = routes();
        let route = routes.get("/api/quest/v1/get").unwrap();
        let first = route.acquire(1).unwrap();
        assert!(route.acquire(1).is_none());
        drop(first);
        assert!(route.acquire(1).is_some());
    }
}
