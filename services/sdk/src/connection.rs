//! One NATS connection: TLS, credentials, reconnecting with jitter, and the inbox for its replies.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError};
use std::task::{Context as Poller, Poll, Waker};
use std::time::Duration;

use async_nats::client::PublishError;
use async_nats::client::traits::Publisher as _;
use async_nats::jetstream::{self, kv};
use async_nats::message::OutboundMessage;
use async_nats::{AuthError, ConnectErrorKind, ConnectOptions, Event, SubscribeError};
use futures::{Sink as _, StreamExt as _};
use proto::rpc::Error;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;

use crate::credentials::Credentials;
use crate::inbox::{CANCEL, Inbox, Undelivered};
use crate::material::{Material, client_config};
use crate::settings::Settings;

/// The timeout of one attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The interval of pings. A server that leaves two of them unanswered counts as disconnected.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// The timeout of one JetStream request. It is retried afterwards.
const JETSTREAM_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection with its inbox and JetStream handles. It is closed when the last reference is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: async_nats::Client,
    /// The same client, as a queue into which messages can be put without waiting.
    queue: std::sync::Mutex<async_nats::Client>,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) inbox: Arc<Inbox>,
    /// Where a worker takes control messages of the streams that it sends.
    pub(crate) controls: Arc<Inbox>,
    stores: Mutex<HashMap<String, kv::Store>>,
    connected: Arc<AtomicBool>,
    reconnects: watch::Sender<u64>,
    dispatcher: JoinHandle<()>,
    control_dispatcher: OnceLock<JoinHandle<()>>,
}

/// An event that the owner of a connection handles.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ConnectionEvent {
    /// The server will close the connection soon and asks its clients to disconnect.
    LameDuck,
}

/// Why connecting failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Retrying does not help.
    #[error("NATS rejects this service: {0}")]
    Refused(String),
    /// Retrying may help.
    #[error("NATS cannot be reached: {0}")]
    Unreachable(String),
}

impl Connection {
    pub(crate) async fn connect(
        settings: &Settings,
        events: mpsc::UnboundedSender<ConnectionEvent>,
    ) -> Result<Arc<Self>, ConnectError> {
        // The process has one TLS provider; another crate may have installed it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let prefix = settings.inbox_prefix();
        let inbox = Arc::new(Inbox::new(&unguessable(&prefix)));
        let controls = Arc::new(Inbox::new(&unguessable(&settings.control_prefix())));
        let connected = Arc::new(AtomicBool::new(true));
        let reconnects = watch::Sender::new(0);

        let options = options(settings)?.custom_inbox_prefix(prefix).event_callback({
            let (inboxes, connected) = ([Arc::clone(&inbox), Arc::clone(&controls)], Arc::clone(&connected));
            let reconnects = reconnects.clone();
            move |event| {
                if event == Event::Connected {
                    reconnects.send_modify(|count| *count += 1);
                }
                observe(&event, &inboxes, &connected, &events);
                std::future::ready(())
            }
        });
        let client =
            options.connect(settings.connection.urls.as_slice()).await.map_err(|error| match error.kind() {
                ConnectErrorKind::Io | ConnectErrorKind::Dns | ConnectErrorKind::TimedOut => {
                    ConnectError::Unreachable(error.to_string())
                }
                _ => ConnectError::Refused(error.to_string()),
            })?;

        let mut answers =
            client.subscribe(inbox.wildcard()).await.map_err(|error| ConnectError::Unreachable(error.to_string()))?;
        client.flush().await.map_err(|error| ConnectError::Unreachable(error.to_string()))?;
        let dispatcher = tokio::spawn({
            let (client, inbox) = (client.clone(), Arc::clone(&inbox));
            async move {
                while let Some(message) = answers.next().await {
                    if let Undelivered::Cancel(worker) = inbox.deliver(message) {
                        // A worker that misses this message stops when its credit runs out.
                        let _ = client.publish(worker, CANCEL).await;
                    }
                }
            }
        });
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(JETSTREAM_TIMEOUT);
        Ok(Arc::new(Self {
            queue: std::sync::Mutex::new(client.clone()),
            client,
            jetstream,
            inbox,
            controls,
            stores: Mutex::default(),
            connected,
            reconnects,
            dispatcher,
            control_dispatcher: OnceLock::new(),
        }))
    }

    /// Publishes a message. Unlike the methods of the client, this one does not copy the subjects, and its future is small:
    /// there is nearly always room in the client's queue, and only where there is none it waits on the heap.
    pub(crate) async fn publish(&self, message: OutboundMessage) -> Result<(), PublishError> {
        if let Some(mut queue) = self.queue_with_room() {
            return Pin::new(&mut *queue).start_send(message);
        }
        Box::pin(self.client.publish_message(message)).await
    }

    /// `None` if the client's queue is full or closed.
    fn queue_with_room(&self) -> Option<MutexGuard<'_, async_nats::Client>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let room = Pin::new(&mut *queue).poll_ready(&mut Poller::from_waker(Waker::noop()));
        matches!(room, Poll::Ready(Ok(()))).then_some(queue)
    }

    /// Subscribes to control messages of streams, which a worker with streaming methods needs before its first request.
    pub(crate) async fn take_controls(&self) -> Result<(), SubscribeError> {
        let mut messages = self.client.subscribe(self.controls.wildcard()).await?;
        let controls = Arc::clone(&self.controls);
        let dispatcher = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                controls.deliver(message);
            }
        });
        // A second one would be the same.
        if let Err(second) = self.control_dispatcher.set(dispatcher) {
            second.abort();
        }
        Ok(())
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Changes when the connection was lost and is there again, maybe to another server.
    pub(crate) fn reconnects(&self) -> watch::Receiver<u64> {
        self.reconnects.subscribe()
    }

    /// The handle of a bucket, cached for each connection.
    pub(crate) async fn store(&self, bucket: &str) -> Result<kv::Store, Error> {
        let mut stores = self.stores.lock().await;
        if let Some(store) = stores.get(bucket) {
            return Ok(store.clone());
        }
        let store = self.jetstream.get_key_value(bucket).await;
        let store =
            store.map_err(|error| Error::unavailable(format_args!("bucket `{bucket}` cannot be opened: {error}")))?;
        stores.insert(bucket.to_owned(), store.clone());
        Ok(store)
    }

    /// Lets [`Self::store`] read the configuration of a bucket again.
    pub(crate) async fn forget_store(&self, bucket: &str) {
        self.stores.lock().await.remove(bucket);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.dispatcher.abort();
        if let Some(dispatcher) = self.control_dispatcher.get() {
            dispatcher.abort();
        }
    }
}

/// A prefix of reply subjects that only those know who were asked.
fn unguessable(prefix: &str) -> String {
    // Keys of the hash come from the system's source of randomness.
    format!("{prefix}.{:016x}", RandomState::new().hash_one(prefix))
}

fn options(settings: &Settings) -> Result<ConnectOptions, ConnectError> {
    let connection = &settings.connection;
    let options = match &connection.credentials {
        Some(credentials) => with_credentials(credentials.clone()).map_err(ConnectError::Refused)?,
        None => ConnectOptions::new(),
    };
    let mut options = options
        .name(format!("{}/{}", settings.service, settings.task))
        .connection_timeout(CONNECT_TIMEOUT)
        .ping_interval(PING_INTERVAL)
        .ignore_discovered_servers()
        .reconnect_delay_callback(reconnect_delay);
    options = with_tls(options, &connection.ca, &connection.client_certificate).map_err(ConnectError::Refused)?;
    if let Some((user, password)) = &connection.user {
        options = options.user_and_password(user.clone(), password.clone());
    }
    Ok(options)
}

/// The credentials are read at every attempt to connect: those that have expired are not tried again once there are others.
fn with_credentials(credentials: Material) -> Result<ConnectOptions, String> {
    Credentials::read(&credentials)?;
    Ok(ConnectOptions::with_auth_callback(move |nonce| {
        let auth = Credentials::read(&credentials).and_then(|credentials| credentials.prove(&nonce));
        std::future::ready(auth.map_err(AuthError::new))
    }))
}

fn with_tls(
    options: ConnectOptions,
    ca: &Option<Material>,
    client_certificate: &Option<(Material, Material)>,
) -> Result<ConnectOptions, String> {
    let Some(ca) = ca else {
        return match client_certificate {
            None => Ok(options),
            Some(_) => Err("a client certificate is set, but not the CA of the servers (`NATS_CA`)".to_owned()),
        };
    };
    let options = options.require_tls(true);
    // Material that is damaged is found before a server is asked, and named.
    let config = client_config(ca, client_certificate.as_ref())?;
    let files = client_certificate.as_ref().map(|(certificate, key)| certificate.file().zip(key.file()));
    match (ca.file(), files) {
        // The client reads files again when it reconnects.
        (Some(ca), None) => Ok(options.add_root_certificates(ca.clone())),
        (Some(ca), Some(Some((certificate, key)))) => {
            Ok(options.add_root_certificates(ca.clone()).add_client_certificate(certificate.clone(), key.clone()))
        }
        _ => Ok(options.tls_client_config(config)),
    }
}

fn observe(
    event: &Event,
    inboxes: &[Arc<Inbox>; 2],
    connected: &AtomicBool,
    events: &mpsc::UnboundedSender<ConnectionEvent>,
) {
    match event {
        Event::Connected => {
            connected.store(true, Ordering::Relaxed);
            tracing::info!("connected to NATS");
        }
        Event::Disconnected => {
            connected.store(false, Ordering::Relaxed);
            // Their replies would have arrived on the lost connection: fail now rather than at the deadline.
            for inbox in inboxes {
                inbox.fail_all();
            }
            tracing::warn!("disconnected from NATS");
        }
        Event::LameDuckMode => {
            // The receiver is gone when the task is stopping: then there is no need to move.
            let _ = events.send(ConnectionEvent::LameDuck);
        }
        Event::SlowConsumer(subscription) => {
            tracing::error!(subscription, "slow consumer: messages were dropped");
        }
        Event::ServerError(error) => tracing::error!(%error, "NATS server error"),
        Event::ClientError(error) => tracing::warn!(%error, "NATS client error"),
        Event::Draining | Event::Closed => {}
    }
}

/// Full jitter: when a server fails, its clients do not all reconnect to the next one at the same moment.
fn reconnect_delay(attempt: usize) -> Duration {
    let max = 10_u64 << attempt.min(8);
    Duration::from_millis(fastrand::u64(0..=max))
}
