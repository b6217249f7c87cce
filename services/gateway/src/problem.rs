//! Errors in responses: `application/problem+json` (RFC 9457).

use std::collections::BTreeMap;

use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use proto::rpc::{Code, Error};
use sdk::{Context, reason};
use serde_json::{Map, Value};

use crate::body::Body;
use crate::transcode::InvalidBody;

/// Why a request failed, and how to fix it.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: Code,
    detail: String,
    details: BTreeMap<String, String>,
    hint: Option<String>,
    /// In seconds.
    retry_after: Option<u64>,
    allow: Option<&'static str>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: Code, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            details: BTreeMap::new(),
            hint: None,
            retry_after: None,
            allow: None,
        }
    }

    /// 400: the request is invalid.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::InvalidArgument, detail)
    }

    /// 405, with the allowed methods.
    pub(crate) fn wrong_method(found: &http::Method, allow: &'static str) -> Self {
        let detail = format!("method `{found}` is not allowed");
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, detail);
        Self { allow: Some(allow), ..problem }.with_hint(format!("use {allow}"))
    }

    /// 400: the body is not a valid request of this method.
    pub(crate) fn invalid_body(bad: &InvalidBody, text: &[u8]) -> Self {
        let (line, column) = bad.position(text);
        let field = bad.field();
        let subject = if field.is_empty() { String::new() } else { format!("`{field}`: ") };
        let mut problem = Self::bad_request(format!("line {line}, column {column}: {subject}{}", bad.problem()));
        problem.details.insert("line".to_owned(), line.to_string());
        problem.details.insert("column".to_owned(), column.to_string());
        if !field.is_empty() {
            problem.details.insert("field".to_owned(), field);
        }
        problem.hint = bad.hint().map(str::to_owned);
        problem
    }

    /// 503: too many concurrent requests.
    pub(crate) fn overloaded() -> Self {
        Error::unavailable("too many requests to this route are being handled")
            .with_detail(reason::KEY, reason::OVERLOADED)
            .into()
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The body for a request with this path and context.
    pub(crate) fn json(&self, path: &str, context: &Context) -> Vec<u8> {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let mut out = Map::new();
        let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
        put("type", "about:blank".into());
        put("title", title.into());
        put("status", self.status.as_u16().into());
        put("detail", self.detail.as_str().into());
        put("instance", path.into());
        put("code", self.code.as_str_name().into());
        if !self.details.is_empty() {
            let details = self.details.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str())));
            put("details", Value::Object(details.collect()));
        }
        if let Some(hint) = &self.hint {
            put("hint", hint.as_str().into());
        }
        put("request_id", context.request_id().into());
        put("trace_id", context.trace_id().into());
        Value::Object(out).to_string().into_bytes()
    }

    /// The response.
    pub(crate) fn response(&self, path: &str, context: &Context) -> Response<Body> {
        let mut response = Response::new(Body::full(self.json(path, context)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let is_timeout = error.detail(reason::KEY) == Some(reason::TIMEOUT);
        let status = match error.code() {
            Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            // Not 412, which is for conditional requests, nor 409, after which the client reads and retries.
            Code::FailedPrecondition => StatusCode::UNPROCESSABLE_ENTITY,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Unavailable if is_timeout => StatusCode::GATEWAY_TIMEOUT,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut problem = Self::new(status, error.code(), error.message());
        problem.details.clone_from(error.details());
        let named = error.detail(reason::RETRY_AFTER_MS).and_then(|value| value.parse::<u64>().ok());
        let named = named.map(|milliseconds| milliseconds.div_ceil(1000).max(1));
        problem.retry_after = match status {
            StatusCode::SERVICE_UNAVAILABLE => Some(named.unwrap_or(1)),
            // What is exhausted may be a size, which no repeat helps: a service that expects one says when.
            StatusCode::TOO_MANY_REQUESTS => named,
            _ => None,
        };
        problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: Error, status: u16, retry_after: Option<u64>) {
        let problem = Problem::from(error);
        assert_eq!((problem.status.as_u16(), problem.retry_after), (status, retry_after));
    }

    #[test]
    fn every_code_has_its_status() {
        let error = |code| Error::new(code, "no");
        check(error(Code::InvalidArgument), 400, None);
        check(error(Code::OutOfRange), 400, None);
        check(error(Code::NotFound), 404, None);
        check(error(Code::AlreadyExists), 409, None);
        check(error(Code::Aborted), 409, None);
        check(error(Code::PermissionDenied), 403, None);
        check(error(Code::ResourceExhausted), 429, None);
        check(error(Code::FailedPrecondition), 422, None);
        check(error(Code::Unimplemented), 501, None);
        check(error(Code::Internal), 500, None);
        check(error(Code::Unknown), 500, None);
        check(error(Code::DataLoss), 500, None);
        check(error(Code::Unavailable), 503, Some(1));
    }

    #[test]
    fn the_reason_decides_where_the_code_does_not() {
        let error = |reason| Error::unavailable("no").with_detail(reason::KEY, reason);
        check(error(reason::TIMEOUT), 504, None);
        check(error(reason::NO_RESPONDERS), 503, Some(1));
        check(error(reason::CIRCUIT_OPEN).with_detail(reason::RETRY_AFTER_MS, 41_001), 503, Some(42));
    }

    #[test]
    fn a_repeat_is_advised_only_where_it_can_succeed() {
        let exhausted = || Error::new(Code::ResourceExhausted, "no");
        check(exhausted().with_detail(reason::RETRY_AFTER_MS, 100), 429, Some(1));
        check(exhausted().with_detail(reason::RETRY_AFTER_MS, "soon"), 429, None);
        for code in [Code::InvalidArgument, Code::FailedPrecondition, Code::Aborted, Code::Internal] {
            let status = Problem::from(Error::new(code, "no")).status.as_u16();
            check(Error::new(code, "no").with_detail(reason::RETRY_AFTER_MS, 100), status, None);
        }
        let late = Error::unavailable("late").with_detail(reason::KEY, reason::TIMEOUT);
        check(late.with_detail(reason::RETRY_AFTER_MS, 100), 504, None);
    }
}
