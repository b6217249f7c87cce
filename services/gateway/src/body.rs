//! Response bodies, and reading request bodies.

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

/// How much of a body that is too long is still read, so that a client that reads only after sending sees the response.
const MAX_DISCARDED_BYTES: usize = 64 * 1024 * 1024;

/// The body of a response.
pub(crate) enum Body {
    /// A complete body.
    Full(Option<Bytes>),
    /// A stream of server-sent events.
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
            Self::Events(events) => events.is_finished(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// Reads the whole body, up to the size limit and until `deadline`.
pub(crate) async fn read(body: &mut Incoming, limits: &Limits, deadline: Instant) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > limits.body as u64 {
        return Err(too_long(limits));
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        let next_deadline = deadline.min(Instant::now() + limits.body_timeout);
        let frame = match timeout_at(next_deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => return Err(Problem::bad_request("the body is incomplete")),
            Ok(None) => break,
            Err(_) => {
                return Err(Problem::new(
                    StatusCode::REQUEST_TIMEOUT,
                    Code::InvalidArgument,
                    "the body was not received in time",
                ));
            }
        };
        // Trailers are ignored.
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + all.len() + data.len() > limits.body {
            return Err(too_long(limits));
        }
        // Nearly every body arrives in one frame, and then nothing is copied.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// Reads the rest of the body, because a client that reads only after sending would not see the response otherwise.
/// Returns whether the connection can be kept alive.
pub(crate) async fn discard(body: &mut Incoming, deadline: Instant) -> bool {
    let mut read = 0;
    while read < MAX_DISCARDED_BYTES && !body.is_end_stream() {
        match timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => read += frame.data_ref().map_or(0, Bytes::len),
            Ok(None) => return true,
            _ => return false,
        }
    }
    read < MAX_DISCARDED_BYTES
}

fn too_long(limits: &Limits) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        Code::InvalidArgument,
        format!("body is longer than {} bytes", limits.body),
    )
}
