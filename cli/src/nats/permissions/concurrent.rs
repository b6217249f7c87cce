//! Services that connect at the same time, as they do whenever a server starts.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use futures::future::{join, join_all, try_join_all};
use futures::stream::select_all;
use tokio::time::timeout;

use super::tests::NOBODY;
use super::*;
use crate::manifest::fixture::Tree;
use crate::nats::testing::{PATIENCE, TestCluster, round_trip};

/// A call that a manifest permits: the caller, the callee and the subject.
type Call = (String, String, &'static str);

fn calls(manifests: &Manifests) -> Vec<Call> {
    let mut calls = Vec::new();
    for caller in manifests.services.values() {
        for callee in manifests.callees(caller).iter().filter_map(|callee| manifests.services.get(callee)) {
            let method = manifests.callable(caller, callee).into_iter().next();
            calls.extend(method.map(|method| (caller.name.to_string(), callee.name.to_string(), method.subject)));
        }
    }
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_crosses_although_all_services_connect_at_once() {
    let manifests = Tree::valid().load().unwrap();
    let cluster = TestCluster::start(1, &accounts(&manifests)).await;
    let connecting = manifests.services.values().map(async |service| {
        let client = cluster.service(&service.name).await;
        let group = format!("svc-{}-workers", service.name);
        let subscribing =
            serves(service).map(|served| client.queue_subscribe(format!("{}.>", served.subject), group.clone()));
        let requests = select_all(try_join_all(subscribing).await.unwrap());
        round_trip(&client, NOBODY).await;
        (service.name.to_string(), (client, requests))
    });
    let mut services: BTreeMap<String, _> = join_all(connecting).await.into_iter().collect();
    for (caller, callee, subject) in calls(&manifests) {
        let caller_client = services[&caller].0.clone();
        let (callee_client, requests) = services.get_mut(&callee).unwrap();
        let answering = async {
            let request = requests.next().await.unwrap();
            callee_client.publish(request.reply.unwrap(), "answer".into()).await.unwrap();
        };
        let (answer, ()) = timeout(PATIENCE, join(caller_client.request(subject, "".into()), answering)).await.unwrap();
        assert_eq!(answer.unwrap().payload, "answer", "{caller} calls {callee}");
    }
}
