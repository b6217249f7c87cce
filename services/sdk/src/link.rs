//! One NATS connection: TLS, credentials, reconnect with jitter, and the inbox that its answers come to.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::{self, kv};
use async_nats::{ConnectErrorKind, ConnectOptions, Event};
use futures::StreamExt as _;
use proto::rpc::Error;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use crate::inbox::{CANCEL, Inbox, Undelivered};
use crate::material::{Material, tls};
use crate::settings::Settings;

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Two of these without an answer, and the server counts as gone.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// How long JetStream may take to answer one request, before it is asked again.
const JETSTREAM_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection and what belongs to it. Ends with its last holder.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: async_nats::Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) inbox: Arc<Inbox>,
    stores: Mutex<HashMap<String, kv::Store>>,
    connected: Arc<AtomicBool>,
    dispatcher: JoinHandle<()>,
}

/// What a connection tells its owner.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LinkEvent {
    /// The server will close the connection soon and asks its clients to leave.
    LameDuck,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// It will not get better by trying again.
    #[error("NATS refuses this service: {0}")]
    Refused(String),
    /// It may.
    #[error("NATS cannot be reached: {0}")]
    Unreachable(String),
}

impl Link {
    pub(crate) async fn connect(
        settings: &Settings,
        events: mpsc::UnboundedSender<LinkEvent>,
    ) -> Result<Arc<Self>, LinkError> {
        // The process has one TLS provider; somebody else may have installed it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let prefix = settings.inbox_prefix();
        let inbox = Arc::new(Inbox::new(&format!("{prefix}.{:016x}", fastrand::u64(..))));
        let connected = Arc::new(AtomicBool::new(true));

        let options = options(settings)?.custom_inbox_prefix(prefix).event_callback({
            let (inbox, connected) = (Arc::clone(&inbox), Arc::clone(&connected));
            move |event| {
                observe(&event, &inbox, &connected, &events);
                std::future::ready(())
            }
        });
        let client = options.connect(settings.link.urls.as_slice()).await.map_err(|error| match error.kind() {
            ConnectErrorKind::Io | ConnectErrorKind::Dns | ConnectErrorKind::TimedOut => {
                LinkError::Unreachable(error.to_string())
            }
            _ => LinkError::Refused(error.to_string()),
        })?;

        let mut answers =
            client.subscribe(inbox.wildcard()).await.map_err(|error| LinkError::Unreachable(error.to_string()))?;
        client.flush().await.map_err(|error| LinkError::Unreachable(error.to_string()))?;
        let dispatcher = tokio::spawn({
            let (client, inbox) = (client.clone(), Arc::clone(&inbox));
            async move {
                while let Some(message) = answers.next().await {
                    if let Undelivered::Cancel(worker) = inbox.deliver(message) {
                        // A worker that does not hear of it stops for want of credit.
                        let _ = client.publish(worker, CANCEL).await;
                    }
                }
            }
        });
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(JETSTREAM_TIMEOUT);
        Ok(Arc::new(Self { client, jetstream, inbox, stores: Mutex::default(), connected, dispatcher }))
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// The handle of a bucket; asked for once per connection.
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
}

impl Drop for Link {
    fn drop(&mut self) {
        self.dispatcher.abort();
    }
}

fn options(settings: &Settings) -> Result<ConnectOptions, LinkError> {
    let link = &settings.link;
    let mut options = ConnectOptions::new()
        .name(format!("{}/{}", settings.service, settings.task))
        .connection_timeout(CONNECT_TIMEOUT)
        .ping_interval(PING_INTERVAL)
        .ignore_discovered_servers()
        .reconnect_delay_callback(reconnect_delay);
    options = with_tls(options, &link.ca, &link.client_certificate).map_err(LinkError::Refused)?;
    if let Some(credentials) = &link.credentials {
        let text = credentials.read().map_err(LinkError::Refused)?;
        let with_credentials = options.credentials(&text);
        options =
            with_credentials.map_err(|_| LinkError::Refused(format!("{credentials} holds no credentials of NATS")))?;
    }
    if let Some((user, password)) = &link.user {
        options = options.user_and_password(user.clone(), password.clone());
    }
    Ok(options)
}

fn with_tls(
    options: ConnectOptions,
    ca: &Option<Material>,
    client_certificate: &Option<(Material, Material)>,
) -> Result<ConnectOptions, String> {
    let Some(ca) = ca else {
        return match client_certificate {
            None => Ok(options),
            Some(_) => Err("a certificate was given, but not who signs those of the servers (`NATS_CA`)".to_owned()),
        };
    };
    let files = client_certificate.as_ref().map(|(certificate, key)| certificate.file().zip(key.file()));
    match (ca.file(), files) {
        // Files are read again whenever the client reconnects.
        (Some(ca), None) => Ok(options.require_tls(true).add_root_certificates(ca.clone())),
        (Some(ca), Some(Some((certificate, key)))) => Ok(options
            .require_tls(true)
            .add_root_certificates(ca.clone())
            .add_client_certificate(certificate.clone(), key.clone())),
        _ => Ok(options.require_tls(true).tls_client_config(tls(ca, client_certificate.as_ref())?)),
    }
}

fn observe(event: &Event, inbox: &Inbox, connected: &AtomicBool, events: &mpsc::UnboundedSender<LinkEvent>) {
    match event {
        Event::Connected => {
            connected.store(true, Ordering::Relaxed);
            tracing::info!("connected to NATS");
        }
        Event::Disconnected => {
            connected.store(false, Ordering::Relaxed);
            // Their answers would have come by the connection that is gone: better to fail now than at the deadline.
            inbox.fail_all();
            tracing::warn!("disconnected from NATS");
        }
        Event::LameDuckMode => {
            // Nobody listens when the task is stopping: then there is nothing to move.
            let _ = events.send(LinkEvent::LameDuck);
        }
        Event::SlowConsumer(subscription) => {
            tracing::error!(subscription, "messages were dropped: this worker reads too slowly");
        }
        Event::ServerError(error) => tracing::error!(%error, "NATS reports an error"),
        Event::ClientError(error) => tracing::warn!(%error, "NATS client error"),
        Event::Draining | Event::Closed => {}
    }
}

/// Full jitter: a whole fleet that loses one server does not come to the next one at the same moment.
fn reconnect_delay(attempt: usize) -> Duration {
    let most = 10_u64 << attempt.min(8);
    Duration::from_millis(fastrand::u64(0..=most))
}
