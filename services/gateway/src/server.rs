//! Accepts connections, and shuts down without failing a request.

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

use crate::connection::{Connection, ReadDeadline};
use crate::gateway::{Gateway, Phase};
use crate::metrics::GaugeGuard;

/// Longer heads are rejected with 431.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The pause after a failed accept, for example when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The time for sending the responses of interrupted requests.
const FINAL_RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves `listener` until `stop` resolves, and then drains.
///
/// While draining, no connection is accepted. Each response closes its connection. Idle connections stay open for a
/// moment, so that a request in flight is still answered.
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
    let stop_requested = Instant::now();
    // Connections in the accept queue of the socket are still served.
    let listener = listener.into_std()?;
    while let Ok((socket, _)) = listener.accept() {
        socket.set_nonblocking(true)?;
        connections.spawn(connection(TcpStream::from_std(socket)?, Arc::clone(&gateway)));
    }
    drop(listener);
    let steps = [(Phase::Closing, limits.linger.min(limits.drain)), (Phase::Terminating, limits.drain)];
    for (next, after) in steps {
        if finish(&mut connections, stop_requested + after).await {
            return Ok(());
        }
        gateway.phase.send_replace(next);
    }
    if !finish(&mut connections, Instant::now() + FINAL_RESPONSE_TIMEOUT).await {
        tracing::warn!(connections = connections.len(), "clients did not read their responses in time");
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
    // Otherwise a small response may wait for the acknowledgement of the previous one.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "connection was closed at once");
        return;
    }
    let _open = GaugeGuard::new(&gateway.metrics.connections);
    let mut phase = gateway.phase.subscribe();
    let read_deadline = ReadDeadline::new(&gateway.limits);
    let socket = Connection::new(socket, Arc::clone(&read_deadline), &gateway.limits);
    let client = socket.client();
    let service = service_fn(|request| {
        let (gateway, active) = (Arc::clone(&gateway), read_deadline.start_request(client.clone()));
        async move { Ok::<_, Infallible>(gateway.handle(request, active).await) }
    });
    // `Connection` has the deadlines, because hyper's timeout for the head would also end idle connections.
    // A client that has sent its request may close its sending side, and still gets its response.
    let serving = http1::Builder::new()
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(socket, service);
    let mut serving = pin!(serving);
    let expired = async {
        tokio::select! {
            () = read_deadline.expired() => {}
            () = client.is_gone() => {}
        }
    };
    let mut expired = pin!(expired);
    let closing = async { phase.wait_for(|phase| *phase >= Phase::Closing).await.is_ok() };
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = expired.as_mut() => Ok(()),
        _ = closing => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                served = serving => served,
                () = expired => Ok(()),
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended early");
    }
}
