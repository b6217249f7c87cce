//! Three routes to NATS: directly, if this machine is inside the network; through a tunnel of Session Manager; or by a natsctl that
//! runs as a task inside. The first that works is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::Client;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::session::{Destination, Plugin, SessionManager, Tunnel};
use super::{Aws, remote_task, secrets};
use crate::error::Hinted;
use crate::image::Binaries;
use crate::model::observed::Assets;
use crate::nats::bus::{self, BusRequest, ExpectedTasks, RESPONSE_TIMEOUT, RespondingTasks};
use crate::nats::connect::CONNECT_TIMEOUT;
use crate::nats::jetstream::JetStream;
use crate::nats::secret::{ClientSecret, TunnelEndpoint};

/// How long a TCP connection inside the network may take.
const INSIDE: Duration = Duration::from_secs(1);
/// How long JetStream may take to list streams and buckets.
const LISTING: Duration = Duration::from_secs(5);
/// Names the only route that is tried: `direct`, `tunnel` or `task`.
const VARIABLE: &str = "NATSCTL_BUS";

impl Aws {
    /// The client of natsctl's own user.
    ///
    /// # Errors
    /// NATS can be reached neither from here nor through a tunnel.
    pub(crate) async fn nats_client(&self) -> anyhow::Result<Client> {
        self.bus().await?.client().cloned().ok_or_else(|| {
            let hint = "run this inside the network, or install the Session Manager plugin and see `natsctl doctor`";
            Hinted::new("NATS can be reached neither from here nor through a tunnel", hint).into()
        })
    }
}

/// How NATS is reached.
pub(crate) enum Bus {
    /// This machine is inside the network.
    Direct(Client),
    /// Through a session on one of the NATS nodes.
    Tunnel(Client, Box<Tunnel>),
    /// By a task in the cluster.
    Task,
}

impl Bus {
    /// Takes the first route that works.
    ///
    /// # Errors
    /// The only route that may be tried does not work, or natsctl's own identity cannot be used.
    pub(super) async fn connect(aws: &Aws) -> anyhow::Result<Self> {
        let only = std::env::var(VARIABLE).unwrap_or_default();
        let wanted = |route: &str| only.is_empty() || only == route;
        let nats = &aws.handover.nats;
        if wanted("direct") {
            let connected = timeout(INSIDE, TcpStream::connect((&*nats.host, nats.port))).await;
            if connected.is_ok_and(|connected| connected.is_ok()) || only == "direct" {
                let client = own_identity(aws).await?.connect("natsctl", None, CONNECT_TIMEOUT).await?;
                return Ok(Self::Direct(client));
            }
            tracing::info!(host = nats.host, port = nats.port, "NATS cannot be reached from here");
        }
        if wanted("tunnel") {
            match tunnel(aws).await {
                Ok((client, tunnel)) => return Ok(Self::Tunnel(client, Box::new(tunnel))),
                Err(error) if only == "tunnel" => return Err(error),
                Err(error) => tracing::info!("no tunnel: {error:#}"),
            }
        }
        Ok(Self::Task)
    }

    /// For people: by which route NATS was reached.
    pub(crate) fn route(&self) -> String {
        match self {
            Self::Direct(_) => "the bus was asked directly".to_owned(),
            Self::Tunnel(_, tunnel) => format!("the bus was asked through a tunnel by `{}`", tunnel.through),
            Self::Task => "the bus was asked by a task in the cluster".to_owned(),
        }
    }

    fn client(&self) -> Option<&Client> {
        match self {
            Self::Direct(client) | Self::Tunnel(client, _) => Some(client),
            Self::Task => None,
        }
    }

    /// The tasks that answer; asks until all that are expected have, or the time is over.
    pub(crate) async fn find(
        &self,
        aws: &Aws,
        expected: BTreeMap<String, ExpectedTasks>,
        binaries: Option<&Binaries>,
    ) -> anyhow::Result<RespondingTasks> {
        match self.client() {
            Some(client) => bus::find(client, &expected, RESPONSE_TIMEOUT).await,
            None => remote_task::ask(aws, BusRequest::Find(expected), binaries).await,
        }
    }

    /// Makes streams, buckets and consumers, or changes those that differ.
    pub(crate) async fn ensure(&self, aws: &Aws, assets: Assets, binaries: Option<&Binaries>) -> anyhow::Result<()> {
        match self.client() {
            Some(client) => bus::ensure(client, &assets).await,
            None => remote_task::ask(aws, BusRequest::Ensure(assets), binaries).await.map(drop),
        }
    }

    /// Deletes consumers, by stream and name.
    pub(crate) async fn delete_consumers(
        &self,
        aws: &Aws,
        names: BTreeSet<String>,
        binaries: Option<&Binaries>,
    ) -> anyhow::Result<()> {
        match self.client() {
            Some(client) => bus::delete_consumers(client, &names).await,
            None => remote_task::ask(aws, BusRequest::DeleteConsumers(names), binaries).await.map(drop),
        }
    }

    /// The streams and buckets that exist; `None` if only a task could list them.
    pub(crate) async fn observe(&self) -> anyhow::Result<Option<Assets>> {
        match self.client() {
            Some(client) => JetStream::new(client.clone()).observe(LISTING).await.map(Some),
            None => Ok(None),
        }
    }
}

async fn tunnel(aws: &Aws) -> anyhow::Result<(Client, Tunnel)> {
    let plugin = Plugin::find().await?;
    let manager = SessionManager::new(aws, &plugin);
    let tunnel = Tunnel::open(&manager, &Destination::nats(&aws.handover), None).await?;
    let endpoint =
        TunnelEndpoint { url: format!("tls://127.0.0.1:{}", tunnel.local_port), host: aws.handover.nats.host.clone() };
    let client = own_identity(aws).await?.connect("natsctl", Some(&endpoint), CONNECT_TIMEOUT).await?;
    Ok((client, tunnel))
}

/// natsctl's own identity.
async fn own_identity(aws: &Aws) -> anyhow::Result<ClientSecret> {
    let name = &aws.handover.nats.operator_secret;
    ClientSecret::parse(&secrets::value(aws.clients.secrets(), name).await?, &format!("the secret `{name}`"))
}
