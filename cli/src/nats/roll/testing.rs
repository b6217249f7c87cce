//! A server as tests need it.

use super::observation::{Health, Meta, Server, Traffic, Usage};

/// One that is well and leads a cluster of itself.
pub(in crate::nats) fn server() -> Server {
    Server {
        instance: "A".to_owned(),
        version: "2.15.1".parse().unwrap(),
        cluster: None,
        config: None,
        started: String::new(),
        clients: 0,
        peers: 0,
        health: Health { enabled: Ok(()), meta: Ok(()), full: Ok(()) },
        meta: Some(Meta { leader: Some("a".to_owned()), peers: Vec::new() }),
        traffic: Traffic::Direct,
        storage: Usage { used: 1, limit: 100 },
        slow_consumers: 0,
        certificate_ends: Some("2027-11-30T00:00:00Z".to_owned()),
    }
}
