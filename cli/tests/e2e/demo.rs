//! All services of the repository at once, and the session that is played through them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::fleet::Fleet;

#[tokio::test]
async fn a_session_is_played_through_all_services_and_what_fails_is_named() {
    let fleet = Fleet::complete(3);
    fleet.deploy(&["--all"]).await.ends(0);

    let played = fleet.run(&["demo", "--output", "json"]).await.ends(0).json();
    let steps = played["steps"].as_array().unwrap();
    assert!(steps.iter().all(|step| step["passed"] == true), "{played:#}");
    assert_eq!((&played["failed"], &played["skipped"]), (&json!([]), &json!([])));
    let called: BTreeSet<&str> = steps.iter().filter_map(|step| step["service"].as_str()).collect();
    let traced: BTreeSet<&str> = played["services"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(traced.is_superset(&called) && traced.contains("gateway"), "{called:?} {traced:?}");
    fleet.run(&["trace", played["trace_id"].as_str().unwrap()]).await.ends(0);

    // Another session is another player: nothing is in its way that the first one has left.
    let again = fleet.run(&["smoke"]).await.ends(0);
    assert!(again.out.contains(" calls passed in ") && !again.out.contains("failed"), "{}", again.out);

    fleet.run(&["scale", "npc-behavior", "0"]).await.ends(0);
    let broken = fleet.run(&["smoke"]).await.ends(1);
    assert!(broken.out.contains("1 scene failed: npc.behavior.v1.Behavior/Plan"), "{}", broken.out);
    assert!(broken.out.contains("natsctl logs npc-behavior"), "{}", broken.out);
}

#[tokio::test]
async fn a_method_is_called_by_hand() {
    let fleet = Fleet::deployed(1).await;
    let plan = r#"{"npcId": "smith", "goal": {"sword": 1}, "actions": [{"name": "forge", "cost": 5, "effects": {"sword": 1}}]}"#;
    let answer = fleet.run(&["call", "npc.behavior.v1.Behavior/Plan", plan]).await.ends(0).json();
    assert_eq!(answer["steps"], json!(["forge"]));

    let check = async |arguments: &[&str], message: &str, hint: &str| {
        let refused = fleet.run(&[&["call"], arguments].concat()).await.ends(1);
        assert!(refused.err.contains(message) && refused.err.contains(hint), "{}", refused.err);
    };
    check(&["quest.v1.get", r#"{"playerId": "ada", "questId": "none"}"#], "(NOT_FOUND)", "").await;
    check(&["quest.v1.Gett"], "no contract has a method `quest.v1.Gett`", "quest.v1.get").await;
    check(&["quest.v1.get", "{"], "the request is no JSON", "playerId").await;
    check(&["quest.v1.get", r#"{"player": "ada"}"#], "player", "docs/services.md").await;
    check(&["ai.llm.v1.infer_stream"], "answers with a stream", "/api/ai/llm/v1/infer_stream").await;
    check(&["auth.v1.login", "--timeout", "200 ms"], "no task serves `svc.auth.v1.login`", "natsctl status").await;
}
