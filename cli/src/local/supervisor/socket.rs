//! The unix socket of the supervisor: reads requests, passes them on as events, and writes the answers.

use std::fs;
use std::io;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::reconcile::Event;
use crate::local::dir::Dir;
use crate::local::protocol::{Refusal, Response};

/// How long clients may take to read the last answers.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Socket {
    dir: Dir,
    closing: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Socket {
    /// Only the holder of the lock may call this: it removes the socket that a killed supervisor has left.
    pub(super) fn listen(dir: &Dir, events: mpsc::UnboundedSender<Event>) -> anyhow::Result<Self> {
        let path = dir.socket();
        dir.create_socket_dir()?;
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("failed to remove `{}`", path.display()));
        }
        let listener =
            UnixListener::bind(&path).with_context(|| format!("failed to listen on `{}`", path.display()))?;
        let (closing, closed) = watch::channel(false);
        let accepting = tokio::spawn(accept(listener, events, closed));
        Ok(Self { dir: dir.clone(), closing, accepting })
    }

    /// Listens again where the socket was removed: without it nobody could reach the supervisor. Answers that are under way are sent.
    pub(super) fn restore(&mut self, dir: &Dir, events: &mpsc::UnboundedSender<Event>) {
        let path = dir.socket();
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => return,
        }
        match Self::listen(dir, events.clone()) {
            Ok(socket) => {
                tracing::warn!(path = %path.display(), "the socket was removed, and is there again");
                std::mem::replace(self, socket).closing.send_replace(true);
            }
            Err(error) => tracing::error!(error = format!("{error:#}"), "failed to listen again"),
        }
    }

    /// Stops listening, and waits until clients have read their answers.
    pub(super) async fn close(mut self) {
        let _ = fs::remove_file(self.dir.socket());
        if let Err(error) = self.dir.remove_shared_socket_dir() {
            tracing::warn!(%error, "the socket's directory is left");
        }
        self.closing.send_replace(true);
        if timeout(CLOSE_TIMEOUT, &mut self.accepting).await.is_err() {
            self.accepting.abort();
        }
    }
}

async fn accept(listener: UnixListener, events: mpsc::UnboundedSender<Event>, mut closing: watch::Receiver<bool>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (events, mut closing) = (events.clone(), closing.clone());
                    connections.spawn(async move {
                        if let Err(error) = serve(stream, &events, &mut closing).await {
                            tracing::debug!(%error, "connection lost");
                        }
                    });
                }
                Err(error) => tracing::warn!(%error, "connection not accepted"),
            },
            Some(_) = connections.join_next() => {}
            _ = closing.changed() => break,
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn serve(
    stream: UnixStream,
    events: &mpsc::UnboundedSender<Event>,
    closing: &mut watch::Receiver<bool>,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line?,
            _ = closing.wait_for(|closing| *closing) => None,
        };
        let Some(line) = line else { return Ok(()) };
        let response = match serde_json::from_str(&line) {
            Ok(request) => {
                let (reply, answer) = oneshot::channel();
                let _ = events.send(Event::Requested(request, reply));
                answer.await.unwrap_or_else(|_| refused("the supervisor has ended"))
            }
            Err(error) => refused(&format!("failed to parse the request: {error}")),
        };
        let mut answer = serde_json::to_vec(&response)?;
        answer.push(b'\n');
        writer.write_all(&answer).await?;
    }
}

fn refused(message: &str) -> Response {
    Response::Refused(Refusal { message: message.to_owned(), hint: None })
}
