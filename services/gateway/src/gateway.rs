//! Routes requests and creates their responses.

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
use crate::connection::ActiveRequest;
use crate::headers;
use crate::limits::{Limits, PublicMethods};
use crate::metrics::{Metrics, RouteMetrics};
use crate::openapi;
use crate::problem::Problem;
use crate::routes::Routes;
use crate::trace;
use crate::transcode::{Schema, Unsupported};

/// Handles HTTP requests by calling services over `T`.
pub struct Gateway<T> {
    pub(crate) transport: T,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) schema: Arc<Schema>,
    pub(crate) phase: watch::Sender<Phase>,
    routes: Routes,
    other: RouteMetrics,
    openapi: Bytes,
}

/// The phases of the gateway's lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Accepts requests.
    Open,
    /// Accepts no new connections. Handles requests on existing ones, and closes each with the response.
    Draining,
    /// Accepts no new requests.
    Closing,
    /// Ends the requests and streams that are still running.
    Terminating,
}

impl<T: Transport> Gateway<T> {
    /// Creates a gateway to the `public` methods of the fleet. For every other method it answers as for an unknown
    /// path.
    ///
    /// # Errors
    /// If the contract has a message without a JSON mapping.
    pub fn new(transport: T, public: &PublicMethods, limits: Limits, metrics: Metrics) -> Result<Self, Unsupported> {
        let schema = Schema::for_fleet()?;
        Ok(Self {
            transport,
            routes: Routes::new(public.methods(), &schema, &metrics)?,
            other: metrics.route("other"),
            openapi: openapi::document(public.methods(), &schema, &limits).to_string().into(),
            schema: Arc::new(schema),
            phase: watch::Sender::new(Phase::Open),
            limits,
            metrics,
        })
    }

    pub(crate) async fn handle(self: Arc<Self>, request: Request<Incoming>, active: ActiveRequest) -> Response<Body> {
        let started = Instant::now();
        let (head, mut body) = request.into_parts();
        let path = head.uri.path();
        let host = headers::check_host(head.version, &head.headers);
        let (mut response, metrics) = match (host, self.routes.get(path)) {
            (Err(problem), _) => (self.refused(&head, &problem, started), &self.other),
            (Ok(()), Some(route)) => (self.call(route, &head, &mut body, (active, started)).await, &route.metrics),
            (Ok(()), None) => (self.built_in_or_not_found(&head, started), &self.other),
        };
        metrics.record(response.status(), started.elapsed().as_secs_f64());
        let keep_alive = body.is_end_stream() || self.discard_body(&head, response.status(), &mut body).await;
        // With this header the client opens a new connection, and does not send a request on one that is being closed.
        if !keep_alive || *self.phase.borrow() > Phase::Open {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Discards the body of a request that was rejected before it was read. Returns whether the connection can be kept
    /// alive.
    async fn discard_body(&self, head: &Parts, status: StatusCode, body: &mut Incoming) -> bool {
        // The client either waits for `100 Continue` before it sends its body, or did not send it in time.
        if head.headers.contains_key(EXPECT) || status == StatusCode::REQUEST_TIMEOUT {
            return false;
        }
        body::discard(body, Instant::now() + self.limits.body_timeout).await
    }

    /// Requests that are not calls of a method.
    fn built_in_or_not_found(&self, head: &Parts, started: Instant) -> Response<Body> {
        let known = matches!(head.uri.path(), "/livez" | "/readyz" | "/metrics" | "/openapi.json");
        if known && matches!(head.method, Method::GET | Method::HEAD) {
            return self.built_in(head.uri.path());
        }
        let problem =
            if known { Problem::wrong_method(&head.method, "GET, HEAD") } else { self.not_found(head.uri.path()) };
        self.refused(head, &problem, started)
    }

    fn refused(&self, head: &Parts, problem: &Problem, started: Instant) -> Response<Body> {
        let (context, _) = headers::context(&head.headers, self.limits.request);
        let mut span = trace::start(&context, head, None, started);
        let mut response = problem.response(head.uri.path(), &context);
        trace::describe_response(&mut span, &mut response);
        span.end();
        if let Some(id) = headers::request_id(&context) {
            response.headers_mut().insert(headers::REQUEST_ID, id);
        }
        response
    }

    fn built_in(&self, path: &str) -> Response<Body> {
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

    fn not_found(&self, path: &str) -> Problem {
        let similar = self.routes.similar(path);
        let hint = if similar.is_empty() {
            "`/openapi.json` lists all routes".to_owned()
        } else {
            let similar: Vec<String> = similar.iter().map(|path| format!("`{path}`")).collect();
            format!("did you mean {}?", similar.join(" or "))
        };
        Problem::new(StatusCode::NOT_FOUND, Code::NotFound, "there is no route with this path").with_hint(hint)
    }
}
