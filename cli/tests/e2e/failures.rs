//! Deployments that cannot succeed: they end, say why, and leave what ran before.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fleet::{Fleet, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_deployment_says_why_and_what_ran_before_goes_on() {
    let fleet = Fleet::new(1);
    a_service_that_crashes_from_the_beginning(&fleet).await;
    fleet.deploy(&["--all"]).await.ends(0);
    fleet.is_healthy().await;
    a_setting_that_the_service_refuses(&fleet).await;
    a_service_that_never_becomes_ready(&fleet).await;
    calls_that_are_rejected(&fleet).await;
}

async fn a_service_that_crashes_from_the_beginning(fleet: &Fleet) {
    let broken = fleet.binaries_with("npc-behavior", "echo 'the book of spells is lost'; exit 7");
    let failed = fleet.run(&["deploy", "--all", "--binaries", &broken]).await.ends(1);
    failed.says(&[
        "deployment of `npc-behavior` revision 1 failed: ",
        "exited with code 7 before it was ready",
        "  | the book of spells is lost",
        "hint: ",
        "natsctl logs npc-behavior",
    ]);
    let reason = reason(fleet, "npc-behavior").await;
    assert!(reason.contains("exited with code 7"), "{reason}");
}

async fn a_setting_that_the_service_refuses(fleet: &Fleet) {
    let (file, good) = fleet.service_manifest("ai-integration");
    let bad = good.replace(r#"LLM_BACKENDS: """#, "LLM_BACKENDS: nonsense");
    assert_ne!(bad, good);
    fs::write(&file, bad).unwrap();
    let began = Instant::now();
    let failed = fleet.deploy(&["--all"]).await.ends(1);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    failed.says(&[
        "deployment of `ai-integration` revision 2 failed: ",
        "exited with code 1 before it was ready",
        "`LLM_BACKENDS` must be a list of the form `name=value,name=value`",
    ]);
    assert!(
        reason(fleet, "ai-integration").await.contains("the last deployment failed, of revision 2; revision 1 runs: ")
    );
    still_answers(fleet, "/api/ai/llm/v1/infer", json!({ "prompt": "the king", "sampling": { "maxTokens": 4 } })).await;

    fs::write(&file, good).unwrap();
    fleet.deploy(&["--all"]).await.ends(0);
    fleet.is_healthy().await;
    assert_eq!(fleet.service("ai-integration").await.revision, 1);
}

async fn a_service_that_never_becomes_ready(fleet: &Fleet) {
    let (file, good) = fleet.service_manifest("quest-system");
    fleet.append("quest-system", "health: { start_period: 1 s }\n");
    let broken = fleet.binaries_with("quest-system", "echo 'waiting for inspiration'; exec sleep 600");
    let failed = fleet.run(&["deploy", "quest-system", "--binaries", &broken]).await.ends(1);
    failed.says(&[
        "deployment of `quest-system` revision 2 failed: ",
        "was not ready within 1s",
        "  | waiting for inspiration",
    ]);
    assert!(reason(fleet, "quest-system").await.contains("was not ready within 1s"));
    still_answers(fleet, "/api/quest/v1/generate", json!({ "playerId": "ada", "level": 7 })).await;

    fs::write(&file, good).unwrap();
    fleet.deploy(&["quest-system"]).await.ends(0);
    fleet.is_healthy().await;
}

/// The status names them until what is called is back.
async fn calls_that_are_rejected(fleet: &Fleet) {
    fleet.run(&["scale", "quest-system", "0"]).await.ends(0);
    let (path, request) = ("/api/quest/v1/get", json!({ "playerId": "ada", "questId": "q" }));
    let gateway = fleet.gateway().await;
    let call = || async { gateway.another().post(path, &request).await.unwrap() };
    let status = eventually("calls are rejected", || async {
        assert_eq!(call().await.status, 503);
        let status = fleet.status().await;
        status["open_circuits"].is_array().then_some(status)
    });
    let status = status.await;
    let circuit = &status["open_circuits"][0];
    assert_eq!(status["healthy"], false);
    assert_eq!(
        [&circuit["caller"], &circuit["destination"], &circuit["callee"]],
        ["gateway", "quest.v1", "quest-system"]
    );
    let problem = status["problems"][0].as_str().unwrap();
    assert!(problem.starts_with("`gateway` rejects calls to `quest-system` (`quest.v1`) since 2"), "{problem}");

    fleet.run(&["scale", "quest-system", "2"]).await.ends(0);
    eventually("calls are let through", || async { (call().await.status == 404).then_some(()) }).await;
    fleet.becomes_healthy().await;
    assert!(fleet.status().await.get("open_circuits").is_none());
}

/// Why `natsctl status` calls a service unhealthy.
async fn reason(fleet: &Fleet, service: &str) -> String {
    let status = fleet.run(&["status", "--output", "json"]).await.ends(3).json();
    assert_eq!(status["healthy"], false);
    let services = status["services"].as_array().unwrap();
    let found = services.iter().find(|found| found["name"] == service).unwrap();
    found["reason"].as_str().unwrap_or_else(|| panic!("{found}")).to_owned()
}

async fn still_answers(fleet: &Fleet, path: &str, body: Value) {
    fleet.gateway().await.post(path, &body).await.unwrap().json();
}
