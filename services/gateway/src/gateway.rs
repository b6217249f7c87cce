//! From a request to its answer.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, EXPECT};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use proto::rpc::{Code, Transport};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::body::{self, Body};
use crate::caller;
use crate::connection::Busy;
use crate::limits::Limits;
use crate::metrics::{Metrics, RouteMetrics};
use crate::openapi;
use crate::problem::Problem;
use crate::routes::Routes;
use crate::transcode::{Schema, Unsupported};

/// Answers HTTP requests by calling the fleet over `T`.
pub struct Gateway<T> {
    pub(crate) transport: T,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) schema: Arc<Schema>,
    pub(crate) phase: watch::Sender<Phase>,
    routes: Routes,
    elsewhere: RouteMetrics,
    openapi: Bytes,
}

/// How far the gateway is on its way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Takes requests.
    Open,
    /// Takes no connections; answers what comes on those that there are, and closes them with the answer.
    Draining,
    /// Takes no requests any more.
    Closing,
    /// Ends what still goes on.
    Over,
}

impl<T: Transport> Gateway<T> {
    /// A gateway to everything in the fleet's contract.
    ///
    /// # Errors
    /// If the contract has a message that cannot be offered as JSON.
    pub fn new(transport: T, limits: Limits, metrics: Metrics) -> Result<Self, Unsupported> {
        let schema = Schema::of_the_fleet()?;
        Ok(Self {
            transport,
            routes: Routes::new(proto::SERVICES, &schema, &metrics)?,
            elsewhere: metrics.route("other"),
            openapi: openapi::document(proto::SERVICES, &schema, &limits).to_string().into(),
            schema: Arc::new(schema),
            phase: watch::Sender::new(Phase::Open),
            limits,
            metrics,
        })
    }

    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>, busy: Busy) -> Response<Body> {
        let started = Instant::now();
        let (head, mut body) = request.into_parts();
        let path = head.uri.path();
        let (mut response, metrics) = match self.routes.get(path) {
            Some(route) => (self.call(route, &head, &mut body, busy).await, &route.metrics),
            None => (self.elsewhere(&head), &self.elsewhere),
        };
        metrics.answered(response.status(), started.elapsed().as_secs_f64());
        let goes_on = body.is_end_stream() || self.empties(&head, response.status(), &mut body).await;
        // A client that is told so sends its next request elsewhere, and meets no closing connection.
        if !goes_on || *self.phase.borrow() > Phase::Open {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Whether the body of a request that was refused before it was read is out of the way.
    async fn empties(&self, head: &Parts, status: StatusCode, body: &mut Incoming) -> bool {
        // One has not sent its body and waits to be told to; of the other it did not come in all the time it had.
        if head.headers.contains_key(EXPECT) || status == StatusCode::REQUEST_TIMEOUT {
            return false;
        }
        body::discard(body, Instant::now() + self.limits.body_pause).await
    }

    /// What is not a method of a service.
    fn elsewhere(&self, head: &Parts) -> Response<Body> {
        let known = matches!(head.uri.path(), "/livez" | "/readyz" | "/metrics" | "/openapi.json");
        if known && matches!(head.method, Method::GET | Method::HEAD) {
            return self.page(head.uri.path());
        }
        let (context, _) = caller::context(&head.headers, self.limits.request);
        let problem =
            if known { Problem::wrong_method(&head.method, "GET, HEAD") } else { self.nowhere(head.uri.path()) };
        let mut response = problem.response(head.uri.path(), &context);
        if let Some(id) = caller::request_id(&context) {
            response.headers_mut().insert(caller::REQUEST_ID, id);
        }
        response
    }

    fn page(&self, path: &str) -> Response<Body> {
        let text = "text/plain; charset=utf-8";
        let (status, kind, body) = match path {
            "/openapi.json" => (StatusCode::OK, "application/json", self.openapi.clone()),
            "/metrics" => (
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                sdk::metrics_text().into(),
            ),
            "/readyz" if *self.phase.borrow() > Phase::Open || !sdk::is_ready() => {
                (StatusCode::SERVICE_UNAVAILABLE, text, Bytes::from_static(b"not ready\n"))
            }
            _ => (StatusCode::OK, text, Bytes::from_static(b"ok\n")),
        };
        let mut response = Response::new(Body::full(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }

    fn nowhere(&self, path: &str) -> Problem {
        let near = self.routes.near(path);
        let hint = if near.is_empty() {
            "`/openapi.json` lists what there is".to_owned()
        } else {
            let near: Vec<String> = near.iter().map(|path| format!("`{path}`")).collect();
            format!("did you mean {}?", near.join(" or "))
        };
        Problem::new(StatusCode::NOT_FOUND, Code::NotFound, "there is nothing at this path").hinting(hint)
    }
}
