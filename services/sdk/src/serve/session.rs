//! The subscriptions of a worker on one connection.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{join_all, select_all};
use proto::rpc::Error;

use super::Contract;
use crate::connection::Connection;
use crate::discovery::{Discovery, Served};
use crate::fleet::Fleet;
use crate::queue_group::Membership;

/// The contracts that a worker serves on one connection.
pub(super) struct Session {
    connection: Arc<Connection>,
    members: Vec<(Membership, Contract)>,
    discovery: Discovery,
}

impl Session {
    pub(super) async fn open(fleet: &Fleet, contracts: &[Contract]) -> Result<Self, Error> {
        let (connection, settings) = (fleet.connection(), fleet.settings());
        let failed = |error: &dyn std::fmt::Display| Error::unavailable(format_args!("failed to subscribe: {error}"));
        let group = format!("svc-{}-workers", settings.service);
        let mut members = Vec::with_capacity(contracts.len());
        let mut served = Vec::with_capacity(contracts.len());
        for contract in contracts {
            let service = contract.service();
            let joined = Membership::join(&connection, service.subject, group.clone()).await;
            members.push((joined.map_err(|error| failed(&error))?, Arc::clone(contract)));
            served.push(Served { service, group: group.clone(), metrics: Arc::clone(contract.metrics()) });
        }
        if served.iter().any(|served| served.service.methods.iter().any(|method| method.streaming)) {
            connection.take_controls().await.map_err(|error| failed(&error))?;
        }
        let discovery = Discovery::answer(fleet, served).await.map_err(|error| failed(&error))?;
        connection.client.flush().await.map_err(|error| failed(&error))?;
        Ok(Self { connection, members, discovery })
    }

    /// Accepts requests until a subscription ends.
    pub(super) async fn receive(&mut self) -> Error {
        let Self { connection, members, .. } = self;
        let receiving = members.iter_mut().map(|(membership, contract)| {
            let connection = &*connection;
            async move {
                while let Some(message) = membership.next_request().await {
                    Arc::clone(contract).receive(connection, message);
                }
            }
            .boxed()
        });
        select_all(receiving).await;
        Error::unavailable("the subscription ended")
    }

    /// Leaves the queue groups, finishes the accepted requests, and only then stops answering discovery.
    pub(super) async fn close(self, leave_timeout: Duration) {
        let Self { connection, members, discovery } = self;
        let leaving = members.into_iter().map(|(membership, contract)| {
            let connection = &connection;
            async move {
                membership.leave(leave_timeout, |message| Arc::clone(&contract).receive(connection, message)).await;
                contract.wait_until_idle().await;
            }
        });
        join_all(leaving).await;
        if let Err(error) = connection.client.flush().await {
            tracing::warn!(%error, "the last responses may not have been sent");
        }
        discovery.stop();
    }
}
