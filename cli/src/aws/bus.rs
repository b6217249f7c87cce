//! The ways to the bus: straight, if this machine is inside the network; through a tunnel of Systems Manager; or by a natsctl that runs
//! as a task inside. The first that works is taken.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::Client;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Aws;
use super::error::failed;
use super::session::{Destination, Plugin, Tunnel};
use crate::image::Binaries;
use crate::nats::bus::{self, BusRequest, ExpectedTasks, RESPONSE_TIMEOUT, RespondingTasks};
use crate::nats::connect::CONNECT_TIMEOUT;
use crate::nats::jetstream::{Assets, JetStream};
use crate::nats::secret::{ClientSecret, TunnelEndpoint};

/// Whoever is inside the network is answered at once.
const INSIDE: Duration = Duration::from_secs(1);
/// How long JetStream may take to list what it has.
const LISTING: Duration = Duration::from_secs(5);
/// Names the one way that is to be tried: `direct`, `tunnel` or `task`.
const VARIABLE: &str = "NATSCTL_BUS";

/// How the bus is reached.
pub(crate) enum Bus {
    /// This machine is inside the network.
    Direct(Client),
    /// Through a session on one of the NATS nodes.
    Tunnel(Client, Box<Tunnel>),
    /// A task asks.
    Task,
}

impl Aws {
    /// The way to the bus; looked for once.
    pub(crate) async fn bus(&self) -> anyhow::Result<&Bus> {
        self.bus.get_or_try_init(async || self.find_bus().await).await
    }

    async fn find_bus(&self) -> anyhow::Result<Bus> {
        let only = std::env::var(VARIABLE).unwrap_or_default();
        let wanted = |way: &str| only.is_empty() || only == way;
        let nats = &self.handover.nats;
        if wanted("direct") {
            let connected = timeout(INSIDE, TcpStream::connect((&*nats.host, nats.port))).await;
            if connected.is_ok_and(|connected| connected.is_ok()) || only == "direct" {
                return Ok(Bus::Direct(self.own_identity().await?.connect("natsctl", None, CONNECT_TIMEOUT).await?));
            }
            tracing::info!(host = nats.host, port = nats.port, "NATS cannot be reached from here");
        }
        if wanted("tunnel") {
            match self.tunnel_to_nats().await {
                Ok((client, tunnel)) => return Ok(Bus::Tunnel(client, Box::new(tunnel))),
                Err(error) if only == "tunnel" => return Err(error),
                Err(error) => tracing::info!("no tunnel: {error:#}"),
            }
        }
        Ok(Bus::Task)
    }

    async fn tunnel_to_nats(&self) -> anyhow::Result<(Client, Tunnel)> {
        let plugin = Plugin::find().await?;
        let (host, port) = (self.handover.nats.host.clone(), self.handover.nats.port);
        let tunnel = self.tunnel(&plugin, &Destination::Host { host: host.clone(), port }, None).await?;
        let endpoint = TunnelEndpoint { url: format!("tls://127.0.0.1:{}", tunnel.local_port), host };
        let client = self.own_identity().await?.connect("natsctl", Some(&endpoint), CONNECT_TIMEOUT).await?;
        Ok((client, tunnel))
    }

    /// natsctl's own identity.
    async fn own_identity(&self) -> anyhow::Result<ClientSecret> {
        let name = &self.handover.nats.operator_secret;
        let answer = self.clients.secrets().get_secret_value().secret_id(name).send().await;
        let answer = answer.map_err(|error| failed(&format!("read the secret `{name}`"), error))?;
        ClientSecret::parse(answer.secret_string().unwrap_or_default(), &format!("the secret `{name}`"))
    }
}

impl Bus {
    /// For people: how it was asked.
    pub(crate) fn way(&self) -> String {
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

    /// Which tasks answer; asks until those that should have, or the time is over.
    pub(crate) async fn find(
        &self,
        aws: &Aws,
        expected: BTreeMap<String, ExpectedTasks>,
        binaries: Option<&Binaries>,
    ) -> anyhow::Result<RespondingTasks> {
        match self.client() {
            Some(client) => bus::find(client, &expected, RESPONSE_TIMEOUT).await,
            None => aws.errand(BusRequest::Find(expected), binaries).await,
        }
    }

    /// Makes streams and buckets, or changes what differs.
    pub(crate) async fn ensure(&self, aws: &Aws, assets: Assets, binaries: Option<&Binaries>) -> anyhow::Result<()> {
        match self.client() {
            Some(client) => bus::ensure(client, &assets).await,
            None => aws.errand(BusRequest::Ensure(assets), binaries).await.map(drop),
        }
    }

    /// What there is; `None` if only a task could tell.
    pub(crate) async fn observe(&self) -> anyhow::Result<Option<Assets>> {
        match self.client() {
            Some(client) => JetStream::new(client.clone()).observe(LISTING).await.map(Some),
            None => Ok(None),
        }
    }
}
