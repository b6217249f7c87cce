//! Changes while clients go on asking: no request fails.

use std::collections::BTreeMap;
use std::time::Duration;

use natsctl::local::client::Client;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::interval;

use super::fleet::{Fleet, serving};
use super::load::{Load, everything};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_everything_is_replaced() {
    let fleet = Fleet::deployed(3).await;
    let load = Load::start(&fleet.gateway().await, everything);
    let watch = Watch::start(&fleet).await;

    fleet.run(&["restart", "--all"]).await.ends(0);
    assert_eq!(revision(&fleet).await, 1, "a restart is no new revision");

    fleet.run(&["scale", "quest-system", "3"]).await.ends(0);
    assert_eq!(serving(&fleet.service("quest-system").await), 3);
    let unchanged = fleet.plan(&[]).await.ends(0).json();
    assert_eq!(unchanged["steps"].as_array().unwrap().len(), 0, "what `scale` has set stays");

    fleet.append("quest-system", "environment:\n  SEASON: winter\n");
    let plan = fleet.plan(&[]).await.ends(2).json();
    let change = &plan["steps"][0]["changes"][0];
    assert_eq!(plan["steps"].as_array().unwrap().len(), 1, "{plan:#}");
    assert_eq!((&change["field"], &change["to"]), (&"definition.environment.SEASON".into(), &"winter".into()));
    fleet.deploy(&["quest-system"]).await.ends(0);
    assert_eq!(revision(&fleet).await, 2);
    assert_eq!(serving(&fleet.service("quest-system").await), 3);

    fleet.run(&["rollback", "quest-system"]).await.ends(0);
    assert_eq!(revision(&fleet).await, 1, "the same content is the same revision");
    fleet.run(&["rollback", "quest-system", "--to", "9"]).await.ends(1).says(&["revision 9", "hint: "]);

    let fewest = watch.ended().await;
    load.ends_without_a_failure(200).await;
    assert_eq!(fewest.len(), fleet.services().len());
    assert!(fewest.values().all(|fewest| *fewest >= 2), "tasks that took requests, at the least: {fewest:?}");
    fleet.is_healthy().await;
}

async fn revision(fleet: &Fleet) -> u64 {
    let status = fleet.status().await;
    let services = status["services"].as_array().unwrap();
    services.iter().find(|service| service["name"] == "quest-system").unwrap()["revision"].as_u64().unwrap()
}

/// How many tasks of each service took requests, at the least.
struct Watch {
    stop: watch::Sender<bool>,
    fewest: JoinHandle<BTreeMap<String, usize>>,
}

impl Watch {
    async fn start(fleet: &Fleet) -> Self {
        let supervisor = Client::connect(&fleet.state()).await.unwrap().unwrap();
        let (stop, stopped) = watch::channel(false);
        let fewest = tokio::spawn(async move {
            let mut fewest = BTreeMap::new();
            let mut ticks = interval(Duration::from_millis(20));
            while !*stopped.borrow() {
                ticks.tick().await;
                for (name, service) in supervisor.describe().await.unwrap().services {
                    let now = serving(&service);
                    fewest.entry(name).and_modify(|least: &mut usize| *least = now.min(*least)).or_insert(now);
                }
            }
            fewest
        });
        Self { stop, fewest }
    }

    async fn ended(self) -> BTreeMap<String, usize> {
        self.stop.send_replace(true);
        self.fewest.await.unwrap()
    }
}
