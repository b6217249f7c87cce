//! What services do now, seen while clients call them.

use serde_json::{Value, json};

use super::fleet::{Fleet, eventually};
use super::http::Http;
use crate::terminal::pty::{SMALL, Terminal};

const CTRL_C: &str = "\x03";

/// Calls again and again: every second call is answered with an error.
async fn call(gateway: &mut Http) {
    loop {
        let plan = gateway.post("/api/npc/behavior/v1/plan", &json!({ "npcId": "smith" })).await.unwrap();
        assert_eq!(plan.status, 200, "{}", plan.body);
        let quest = json!({ "playerId": "ada", "questId": "nowhere" });
        assert_eq!(gateway.post("/api/quest/v1/get", &quest).await.unwrap().status, 404);
    }
}

fn service<'a>(top: &'a Value, name: &str) -> &'a Value {
    top["services"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_shows_what_services_do_while_they_are_called() {
    let fleet = Fleet::deployed(1).await;
    let mut gateway = fleet.gateway().await;
    let seen = eventually("top sees the calls", || async {
        let top = fleet.run(&["top", "--once", "-o", "json"]).await.ends(0).json();
        let is_called = |name| service(&top, name)["requests_per_second"].as_f64().is_some_and(|rate| rate > 0.0);
        ["gateway", "npc-behavior", "quest-system"].into_iter().all(is_called).then_some(top)
    });
    let top = tokio::select! {
        top = seen => top,
        () = call(&mut gateway) => unreachable!("it never ends"),
    };
    assert_eq!(top["services"][0]["name"], "gateway", "the busiest is the first: {top:#}");
    for (name, errors) in [("gateway", 50.0), ("npc-behavior", 0.0), ("quest-system", 100.0)] {
        let load = service(&top, name);
        let number = |key: &str| load[key].as_f64().unwrap_or_else(|| panic!("{name}: no {key}: {load:#}"));
        assert!((number("error_percent") - errors).abs() < 10.0, "{load:#}");
        assert!(number("p50_us") > 0.0 && number("p50_us") <= number("p99_us") && number("mean_us") > 0.0, "{load:#}");
        assert_eq!((&load["tasks"], &load["measured"]), (&json!(2), &json!(2)), "{load:#}");
        assert_eq!(load.get("in_flight").is_none(), name == "gateway", "{load:#}");
        #[cfg(target_os = "linux")]
        assert!(number("memory_mib") > 0.0, "{load:#}");
    }

    let table = fleet.run(&["top", "quest-system"]).await.ends(0);
    assert!(table.out.starts_with("environment test: 1 service, "), "{table:?}");
    table.shows(&["REQ/S", "P99", "quest-system"]);
    fleet.run(&["top", "quest-sytem"]).await.ends(1).says(&["hint: did you mean `quest-system`?"]);

    let mut terminal = Terminal::start(&fleet.command(&["top"]), SMALL);
    terminal.until("nothing is measured yet");
    terminal.until(" requests/s, ");
    terminal.types(CTRL_C);
    let ended = terminal.ended();
    assert_eq!((ended.code, ended.is_cursor_hidden), (Some(130), false), "{}", ended.text());
    assert!(!ended.text().contains("interrupted"), "{}", ended.text());
}
