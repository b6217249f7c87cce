//! Every change can be planned, saved, reviewed, carried out from a file, and seen in the history; what loses something wants a word.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use super::fleet::{Fleet, eventually, serving};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_planned_saved_carried_out_and_recorded() {
    let fleet = Fleet::deployed(1).await;
    a_dry_run_changes_nothing(&fleet).await;
    a_saved_plan_is_carried_out_and_no_other(&fleet).await;
    a_stopped_task_is_replaced(&fleet).await;
    what_loses_something_wants_a_word(&fleet).await;
    the_history_knows_it_all(&fleet).await;
}

async fn tasks(fleet: &Fleet, service: &str) -> BTreeSet<String> {
    fleet.service(service).await.tasks.into_iter().map(|task| task.id).collect()
}

async fn a_dry_run_changes_nothing(fleet: &Fleet) {
    let before = tasks(fleet, "quest-system").await;
    for (arguments, step) in [
        (vec!["restart", "--all"], "> restart service quest-system"),
        (vec!["scale", "quest-system", "3"], "~ scale service quest-system"),
        (vec!["stop", "--all", "quest-system"], "- stop task "),
        (vec!["down"], "- stop environment test"),
    ] {
        let run = fleet.run(&[arguments.as_slice(), &["--dry-run"]].concat()).await.ends(2);
        assert!(run.out.contains(step), "{run:?}");
    }
    fleet.run(&["scale", "quest-system", "2", "--dry-run"]).await.ends(0);
    assert_eq!(tasks(fleet, "quest-system").await, before);
}

async fn a_saved_plan_is_carried_out_and_no_other(fleet: &Fleet) {
    let file = fleet.path("plan.json").display().to_string();
    fleet.run(&["scale", "quest-system", "3", "--dry-run", "--save", &file]).await.ends(2);
    fleet.run(&["scale", "quest-system", "4", "--plan", &file]).await.ends(1).says(&["another change", "hint: "]);
    fleet.run(&["scale", "quest-system", "3", "--plan", &file]).await.ends(0);
    assert_eq!(serving(&fleet.service("quest-system").await), 3);
    fleet.run(&["scale", "quest-system", "3", "--plan", &file]).await.ends(1).says(&["has changed since"]);

    fleet.append("quest-system", "environment:\n  SEASON: winter\n");
    fleet.plan(&["--save", &file]).await.ends(2);
    fleet.append("npc-behavior", "environment:\n  SEASON: winter\n");
    let refused = fleet.deploy(&["--all", "--plan", &file]).await.ends(1);
    refused.says(&["has changed since", "update service npc-behavior", "nothing was changed"]);
    assert_eq!(fleet.service("quest-system").await.revision, 1);
    fleet.plan(&["--save", &file]).await.ends(2);
    fleet.deploy(&["--all", "--plan", &file]).await.ends(0);
    assert_eq!(fleet.service("quest-system").await.revision, 2);
    fleet.run(&["rollback", "quest-system", "--plan", "nothing.json"]).await.ends(1).says(&["`nothing.json`"]);
}

async fn a_stopped_task_is_replaced(fleet: &Fleet) {
    let stopped = tasks(fleet, "npc-behavior").await.pop_first().unwrap();
    fleet.run(&["stop", "no-such-task"]).await.ends(1).says(&["no task `no-such-task` runs", "hint: "]);
    let run = fleet.run(&["stop", &stopped, "--output", "json"]).await.ends(0).json();
    assert_eq!(run["stopping"], json!([stopped]));
    eventually("another task has taken its place", || async {
        let service = fleet.service("npc-behavior").await;
        let is_gone = service.tasks.iter().all(|task| task.id != stopped);
        (is_gone && serving(&service) == 2).then_some(())
    })
    .await;
    fleet.is_healthy().await;
}

async fn what_loses_something_wants_a_word(fleet: &Fleet) {
    let (file, good) = fleet.service_manifest("state-manager");
    fs::write(&file, good.replace("players: { history: 64 }", "players: { history: 3 }")).unwrap();
    let plan = fleet.plan(&[]).await.ends(2).json();
    let step = &plan["steps"][0];
    assert_eq!(
        (&step["action"], &step["kind"], &step["name"]),
        (&json!("reduce"), &json!("bucket"), &json!("players"))
    );
    let refused = fleet.deploy(&["--all"]).await.ends(1);
    refused.says(&["loses something for good", "reduce bucket players", "older ones are deleted", "--force history"]);
    // Other services have nothing to do with it.
    let other = fleet.deploy(&["npc-behavior", "--output", "json"]).await.ends(0).json();
    assert_eq!(other["steps"], json!([]));
    fleet.deploy(&["--all", "--force", "replicas"]).await.ends(1);
    fleet.deploy(&["--all", "--force", "history"]).await.ends(0);
    fleet.plan(&[]).await.ends(0);
    // Growing again loses nothing.
    fs::write(&file, good).unwrap();
    fleet.deploy(&["--all"]).await.ends(0);
}

async fn the_history_knows_it_all(fleet: &Fleet) {
    fleet.run(&["restart", "gateway"]).await.ends(0);
    fleet.run(&["rollback", "quest-system"]).await.ends(0);
    let records = fleet.run(&["history", "--output", "json"]).await.ends(0).json();
    let records = records.as_array().unwrap();
    let commands: Vec<&str> = records.iter().map(|record| record["command"].as_str().unwrap()).collect();
    let expected =
        ["rollback quest-system", "restart gateway", "deploy", "--force history", "stop ", "--plan", "scale"];
    for (part, command) in expected.iter().zip(&commands) {
        assert!(command.contains(part), "`{part}` is not in `{command}`: {commands:#?}");
    }
    let done = |record: &&Value| record["result"] == "done" && record["ended"].is_string();
    assert!(records.iter().all(|record| done(&record)), "{records:#?}");
    let steps: Vec<&str> =
        records[0]["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["roll back service quest-system"]);
    let shown = fleet.run(&["history", "--limit", "1"]).await.ends(0).out;
    assert!(shown.contains("rollback quest-system") && shown.contains("done"), "{shown}");
}
