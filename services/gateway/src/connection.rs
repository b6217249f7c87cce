//! One client's connection: no client can hold it by sending slowly, by sending nothing, or by not reading.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::limits::Limits;

/// While a request is being handled there is no deadline for reading.
const NO_DEADLINE: u64 = u64::MAX;
/// Set in deadlines of a head that has begun to come.
const IN_HEAD: u64 = 1 << 63;

/// Until when the client must have sent something. Shared by the socket, which sees bytes, and the service, which sees requests.
#[derive(Debug)]
pub(crate) struct Pace {
    base: Instant,
    /// Milliseconds after `base`.
    deadline: AtomicU64,
    idle: Duration,
    head: Duration,
}

impl Pace {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let pace =
            Self { base: Instant::now(), deadline: AtomicU64::new(NO_DEADLINE), idle: limits.idle, head: limits.head };
        pace.wait(pace.idle, 0);
        Arc::new(pace)
    }

    /// A request is being handled until the answer is dropped.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.deadline.store(NO_DEADLINE, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    fn wait(&self, patience: Duration, mark: u64) {
        let deadline = (self.base.elapsed() + patience).as_millis();
        let deadline = u64::try_from(deadline).unwrap_or(u64::MAX >> 2);
        self.deadline.store(deadline | mark, Ordering::Relaxed);
    }

    /// The first byte of a request has its own, shorter deadline for the rest of the head.
    fn received(&self) {
        if self.deadline.load(Ordering::Relaxed) & IN_HEAD == 0 {
            self.wait(self.head, IN_HEAD);
        }
    }

    /// Returns when the client has kept us waiting for too long.
    ///
    /// Looks every now and then, so that nothing has to be done for it per request.
    pub(crate) async fn late(&self) {
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
pub(crate) struct Busy(Arc<Pace>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.wait(self.0.idle, 0);
    }
}

/// A socket that notes when something comes, and gives up on a client that takes nothing.
pub(crate) struct Connection {
    socket: TokioIo<TcpStream>,
    pace: Arc<Pace>,
    write_pause: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    pub(crate) fn new(socket: TcpStream, pace: Arc<Pace>, limits: &Limits) -> Self {
        Self { socket: TokioIo::new(socket), pace, write_pause: limits.write_pause, stalled: None }
    }

    fn poll_written<R>(&mut self, written: Poll<io::Result<R>>, waker: &mut Context<'_>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let pause = self.write_pause;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + pause)));
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
            self.pace.received();
        }
        read
    }
}

impl Write for Connection {
    fn poll_write(mut self: Pin<&mut Self>, waker: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(waker, bytes);
        self.poll_written(written, waker)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        waker: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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
