//! A client connection. A client cannot occupy it by sending slowly, by sending nothing, or by not reading.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::limits::Limits;
use crate::malformed::{self, FirstLine};

/// There is no deadline for reading while a request is being handled.
const NO_DEADLINE: u64 = u64::MAX;
/// The bit of `deadline` that is set while the head of a request is being received.
const IN_HEAD: u64 = 1 << 63;

/// The deadline by which the client must send data. Shared by the socket, which sees bytes, and the service, which sees
/// requests.
#[derive(Debug)]
pub(crate) struct ReadDeadline {
    base: Instant,
    /// Milliseconds after `base`.
    deadline: AtomicU64,
    idle: Duration,
    head: Duration,
}

impl ReadDeadline {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let read_deadline =
            Self { base: Instant::now(), deadline: AtomicU64::new(NO_DEADLINE), idle: limits.idle, head: limits.head };
        read_deadline.set(read_deadline.idle, 0);
        Arc::new(read_deadline)
    }

    /// Suspends the deadline until the response is dropped.
    pub(crate) fn start_request(self: &Arc<Self>, client: Client) -> ActiveRequest {
        self.deadline.store(NO_DEADLINE, Ordering::Relaxed);
        ActiveRequest { read_deadline: Arc::clone(self), client }
    }

    fn set(&self, timeout: Duration, mark: u64) {
        let deadline = (self.base.elapsed() + timeout).as_millis();
        let deadline = u64::try_from(deadline).unwrap_or(u64::MAX >> 2);
        self.deadline.store(deadline | mark, Ordering::Relaxed);
    }

    /// With the first byte of a request, the shorter deadline for its head starts.
    fn received(&self) {
        if self.deadline.load(Ordering::Relaxed) & IN_HEAD == 0 {
            self.set(self.head, IN_HEAD);
        }
    }

    /// Returns when the deadline has passed.
    ///
    /// Polls the deadline at intervals, so that requests do not have to reset a timer.
    pub(crate) async fn expired(&self) {
        loop {
            let now = Instant::now();
            let soon = now + self.head / 2;
            match self.deadline() {
                Some(deadline) if deadline <= now => return,
                Some(deadline) => sleep_until(deadline.min(soon)).await,
                None => sleep_until(soon).await,
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self.deadline.load(Ordering::Relaxed) {
            NO_DEADLINE => None,
            deadline => Some(self.base + Duration::from_millis(deadline & !IN_HEAD)),
        }
    }
}

/// A request that is being handled.
pub(crate) struct ActiveRequest {
    read_deadline: Arc<ReadDeadline>,
    pub(crate) client: Client,
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.read_deadline.set(self.read_deadline.idle, 0);
    }
}

/// What the socket tells about the client while a request of it is being handled.
///
/// The end of what a client sends does not mean that it is gone: it may have closed only its sending side. A client that
/// is gone resets the connection, at the latest when it is sent something.
#[derive(Clone)]
pub(crate) struct Client(Arc<OwnedReadHalf>);

impl Client {
    /// Returns when the client has reset the connection.
    pub(crate) async fn is_gone(&self) {
        match self.0.ready(Interest::ERROR).await {
            Ok(ready) if ready.is_error() => {}
            // Then reading or writing fails.
            _ => std::future::pending().await,
        }
    }

    /// Whether the client sends no more. Wakes when that changes.
    pub(crate) fn has_ended(&self, waker: &mut Context<'_>) -> bool {
        let socket: &TcpStream = (*self.0).as_ref();
        let mut byte = [0];
        matches!(socket.poll_peek(waker, &mut ReadBuf::new(&mut byte)), Poll::Ready(Ok(0)))
    }
}

/// A socket that a [`Client`] looks at, too.
struct Socket {
    read: Arc<OwnedReadHalf>,
    write: OwnedWriteHalf,
    first_line: FirstLine,
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, waker: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Arc::clone(&self.read);
        let socket: &TcpStream = (*read).as_ref();
        loop {
            ready!(socket.poll_read_ready(waker))?;
            match socket.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    self.first_line.receive(&mut buffer.filled_mut()[before..]);
                    return Poll::Ready(read.map(|_| ()));
                }
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, waker: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(waker, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        waker: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write_vectored(waker, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.write.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, waker: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(waker)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, waker: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(waker)
    }
}

/// A socket that records when data arrives, and fails when a write is blocked for too long.
pub(crate) struct Connection {
    socket: TokioIo<Socket>,
    read_deadline: Arc<ReadDeadline>,
    write_timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    refusal: Option<io::Cursor<Vec<u8>>>,
}

impl Connection {
    pub(crate) fn new(socket: TcpStream, read_deadline: Arc<ReadDeadline>, limits: &Limits) -> Self {
        let (read, write) = socket.into_split();
        let socket = TokioIo::new(Socket { read: Arc::new(read), write, first_line: FirstLine::default() });
        Self { socket, read_deadline, write_timeout: limits.write_timeout, stalled: None, refusal: None }
    }

    /// The client at the other end.
    pub(crate) fn client(&self) -> Client {
        Client(Arc::clone(&self.socket.inner().read))
    }

    fn poll_written<R>(&mut self, written: Poll<io::Result<R>>, waker: &mut Context<'_>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + timeout)));
        match stalled.as_mut().poll(waker) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Read for Connection {
    fn poll_read(mut self: Pin<&mut Self>, waker: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.socket).poll_read(waker, buffer);
        if read.is_ready() {
            self.read_deadline.received();
        }
        read
    }
}

impl Connection {
    /// Writes a document in place of an answer of hyper's own, which has no body.
    fn poll_refuse(&mut self, waker: &mut Context<'_>, bytes: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.refusal.is_none() {
            self.refusal = malformed::refusal(bytes, &self.socket.inner().first_line).map(io::Cursor::new);
        }
        let mut refusal = self.refusal.take()?;
        while let Some(rest) = refusal.get_ref().get(refusal.position() as usize..).filter(|rest| !rest.is_empty()) {
            let written = Pin::new(&mut self.socket).poll_write(waker, rest);
            match self.poll_written(written, waker) {
                Poll::Ready(Ok(written)) => refusal.set_position(refusal.position() + written as u64),
                other => {
                    self.refusal = Some(refusal);
                    return Some(other);
                }
            }
        }
        Some(Poll::Ready(Ok(bytes.len())))
    }
}

impl Write for Connection {
    fn poll_write(mut self: Pin<&mut Self>, waker: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(written) = self.poll_refuse(waker, bytes) {
            return written;
        }
        self.socket.inner_mut().first_line.forget();
        let written = Pin::new(&mut self.socket).poll_write(waker, bytes);
        self.poll_written(written, waker)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        waker: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [bytes] = bytes
            && let Some(written) = self.poll_refuse(waker, bytes)
        {
            return written;
        }
        self.socket.inner_mut().first_line.forget();
        let written = Pin::new(&mut self.socket).poll_write_vectored(waker, bytes);
        self.poll_written(written, waker)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, waker: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(waker)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, waker: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(waker)
    }
}
