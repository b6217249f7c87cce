//! The two kinds of answer, and how a request's body is read.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use proto::rpc::Code;
use tokio::time::{Instant, timeout_at};

use crate::events::Events;
use crate::limits::Limits;
use crate::problem::Problem;

/// This much of a body that is too long is still read, so that a client that sends first and reads then sees the answer.
const PATIENCE_BYTES: usize = 64 * 1024 * 1024;

/// What a response is made of.
pub(crate) enum Body {
    /// Everything at once.
    Full(Option<Bytes>),
    /// A stream of events.
    Events(Box<Events>),
}

impl Body {
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(Some(bytes.into()))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, waker: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Events(events) => events.poll(waker).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Events(events) => events.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// Reads the whole body, but no more of it than is allowed and no longer than until `deadline`.
pub(crate) async fn read(body: &mut Incoming, limits: &Limits, deadline: Instant) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > limits.body as u64 {
        return Err(too_long(limits));
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        let patience = deadline.min(Instant::now() + limits.body_pause);
        let frame = match timeout_at(patience, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => return Err(Problem::bad_request("body ended before its end")),
            Ok(None) => break,
            Err(_) => {
                return Err(Problem::new(
                    StatusCode::REQUEST_TIMEOUT,
                    Code::InvalidArgument,
                    "body did not come in time",
                ));
            }
        };
        // What is not data is trailers, which nobody here reads.
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + all.len() + data.len() > limits.body {
            return Err(too_long(limits));
        }
        // Nearly every body is one piece, and then nothing is copied.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// Reads what is left of the body and says whether the connection can go on after it. A client that sends first and reads
/// then would otherwise not see the answer.
pub(crate) async fn discard(body: &mut Incoming, deadline: Instant) -> bool {
    let mut read = 0;
    while read < PATIENCE_BYTES && !body.is_end_stream() {
        match timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => read += frame.data_ref().map_or(0, Bytes::len),
            Ok(None) => return true,
            _ => return false,
        }
    }
    read < PATIENCE_BYTES
}

fn too_long(limits: &Limits) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        Code::InvalidArgument,
        format!("body is longer than {} bytes", limits.body),
    )
}
