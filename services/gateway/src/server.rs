//! Accepts connections, and ends without failing a request.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use proto::rpc::Transport;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::connection::{Connection, Pace};
use crate::gateway::{Gateway, Phase};
use crate::metrics::Open;

/// Longer heads are refused with 431.
const LONGEST_HEAD: usize = 64 * 1024;
/// When the process has no file descriptor left, others must be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What is cut short is told within this time.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Answers what comes to `listener` until `stop`, and then finishes what was begun.
///
/// At the order to stop no connection is accepted any more. Each answer closes its connection; connections without a
/// request stay open for a moment, so that a request that is on its way is still answered.
///
/// # Errors
/// If the socket cannot be used.
pub async fn serve<T: Transport>(
    listener: TcpListener,
    gateway: Arc<Gateway<T>>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(connection(socket, Arc::clone(&gateway)));
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    gateway.phase.send_replace(Phase::Draining);
    let limits = &gateway.limits;
    let ordered = Instant::now();
    // Whoever is in the queue of the socket has been promised an answer.
    let listener = listener.into_std()?;
    while let Ok((socket, _)) = listener.accept() {
        socket.set_nonblocking(true)?;
        connections.spawn(connection(TcpStream::from_std(socket)?, Arc::clone(&gateway)));
    }
    drop(listener);
    let steps = [(Phase::Closing, limits.linger.min(limits.drain)), (Phase::Over, limits.drain)];
    for (next, after) in steps {
        if finish(&mut connections, ordered + after).await {
            return Ok(());
        }
        gateway.phase.send_replace(next);
    }
    if !finish(&mut connections, Instant::now() + LAST_WORDS).await {
        tracing::warn!(connections = connections.len(), "clients did not take their answers in time");
    }
    Ok(())
}

/// Whether all connections have ended by `deadline`.
async fn finish(connections: &mut JoinSet<()>, deadline: Instant) -> bool {
    let all = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        () = all => true,
        () = sleep_until(deadline) => false,
    }
}

async fn connection<T: Transport>(socket: TcpStream, gateway: Arc<Gateway<T>>) {
    // Without it a small answer may wait for the acknowledgement of the one before.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "connection was gone at once");
        return;
    }
    let _open = Open::new(&gateway.metrics.connections);
    let mut phase = gateway.phase.subscribe();
    let pace = Pace::new(&gateway.limits);
    let socket = Connection::new(socket, Arc::clone(&pace), &gateway.limits);
    let service = service_fn(|request| {
        let (gateway, busy) = (Arc::clone(&gateway), pace.busy());
        async move { Ok::<_, Infallible>(gateway.answer(request, busy).await) }
    });
    // The deadlines are the connection's: hyper's own for the head also ends idle connections.
    let serving =
        http1::Builder::new().header_read_timeout(None).max_buf_size(LONGEST_HEAD).serve_connection(socket, service);
    let mut serving = pin!(serving);
    let mut late = pin!(pace.late());
    let closing = async { phase.wait_for(|phase| *phase >= Phase::Closing).await.is_ok() };
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = late.as_mut() => Ok(()),
        _ = closing => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                served = serving => served,
                () = late => Ok(()),
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended early");
    }
}
