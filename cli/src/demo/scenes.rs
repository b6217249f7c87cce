//! What happens in the session: each scene takes what earlier ones have made, and some need an operator.

use futures::FutureExt as _;
use serde_json::{Value, json};

use super::{Outcome, Play, Stage};
use crate::problem::counted;

/// A part of the session.
pub(crate) struct Scene {
    /// What it is about.
    pub(crate) title: &'static str,
    pub(crate) play: Play,
}

/// The session, in its order.
pub(crate) const SCENES: &[Scene] = &[
    Scene { title: "a player logs in", play: |stage| login(stage).boxed() },
    Scene { title: "gets a quest", play: |stage| quest(stage).boxed() },
    Scene { title: "walks into a valley", play: |stage| walk(stage).boxed() },
    Scene { title: "the weather turns", play: |stage| weather(stage).boxed() },
    Scene { title: "a smith makes a plan, and a troll a story", play: |stage| people(stage).boxed() },
    Scene { title: "a purchase fails, and its payment is undone", play: |stage| purchase(stage).boxed() },
    Scene { title: "the other services answer", play: |stage| others(stage).boxed() },
    Scene { title: "the player leaves", play: |stage| leave(stage).boxed() },
];

/// The region of all demonstrations. What stands in it is the player's own.
const REGION: &str = "demo-valley";
/// Where the player goes, in metres.
const PLACES: [(f64, f64); 2] = [(10.0, 10.0), (40.0, 25.0)];
/// Hours by which game time goes on, until there is another weather, and for how many days at most.
const HOURS: u32 = 6;
const DAYS: u32 = 10;

async fn login(stage: &mut Stage<'_>) -> Outcome {
    let player = stage.player.clone();
    // Made for this session alone, and never shown.
    let password = format!("{:032x}", fastrand::u128(..));
    let with = |password: &str| json!({ "username": player, "password": password });
    stage.player("auth.v1.Auth/Register", with(&password), |_| format!("`{player}` is registered")).await?;
    stage
        .refused("auth.v1.Auth/Login", with("guessed-by-another"), "PERMISSION_DENIED", "a wrong password is refused")
        .await?;
    let answer = stage.player("auth.v1.Auth/Login", with(&password), |_| "the right one is not".to_owned()).await?;
    let token = json!({ "accessToken": answer["tokens"]["accessToken"] });
    stage
        .player("auth.v1.Auth/Validate", token, |answer| {
            format!("the token is one of `{}`", text(&answer["claims"]["username"]))
        })
        .await?;
    let opened = stage
        .player("bodybroker.v1.BodyBroker/Open", json!({ "playerId": player }), |_| "a session is open".to_owned())
        .await?;
    stage.session_id = opened["session"]["id"].as_str().map(str::to_owned);
    Ok(())
}

async fn leave(stage: &mut Stage<'_>) -> Outcome {
    let session = stage.session()?;
    stage.player("bodybroker.v1.BodyBroker/Close", session, |_| "the session is closed".to_owned()).await?;
    Ok(())
}

async fn quest(stage: &mut Stage<'_>) -> Outcome {
    let player = stage.player.clone();
    let request = json!({ "playerId": player, "level": 7, "location": "forest" });
    let answer = stage.player("quest.v1.Quest/Generate", request, |answer| text(&answer["quest"]["title"])).await?;
    let named = json!({ "playerId": player, "questId": answer["quest"]["id"] });
    stage
        .player("quest.v1.Quest/Accept", named, |answer| {
            let objectives = answer["quest"]["objectives"].as_array().map_or(0, Vec::len);
            format!("accepted, with {}", counted(objectives, "objective"))
        })
        .await?;
    Ok(())
}

async fn walk(stage: &mut Stage<'_>) -> Outcome {
    let bounds = json!({ "min": point((0.0, 0.0)), "max": point((100.0, 100.0)) });
    let region = json!({ "region": { "id": REGION, "name": "Demo Valley", "bounds": bounds, "tags": ["forest"] } });
    stage.operator("world.state.v1.WorldState/PutRegion", region, |_| "there is a valley".to_owned()).await?;
    let mut from = "";
    for place in PLACES {
        let state = json!({ "merge": { "position": { "region": REGION, "x": place.0, "y": place.1 } } });
        let movement = json!({ "fromRegionId": from, "regionId": REGION, "position": point(place) });
        let mut action = stage.session()?;
        action["action"] = json!({ "state": state, "movement": movement });
        let message = |answer: &Value| {
            let revision = text(&answer["state"]["record"]["revision"]);
            format!("at ({}, {}), saved as revision {revision}", place.0, place.1)
        };
        let answer = stage.player("bodybroker.v1.BodyBroker/SubmitAction", action, message).await?;
        stage.expect(answer["outcome"] == "ACTION_OUTCOME_APPLIED", || format!("not all was applied: {answer}"))?;
        from = REGION;
    }
    let around = json!({ "regionId": REGION, "center": point(PLACES[1]), "radius": 5 });
    let near = |answer: &Value| format!("{} within 5 m", count(&answer["neighbors"]));
    stage.player("world.state.v1.WorldState/WithinRadius", around, near).await?;
    Ok(())
}

async fn weather(stage: &mut Stage<'_>) -> Outcome {
    let region = json!({ "regionId": REGION, "biome": "BIOME_TEMPERATE", "seed": "7" });
    stage.operator("weather.v1.WeatherManager/PutRegion", region, |_| "the valley has weather".to_owned()).await?;
    let named = json!({ "regionId": REGION });
    let condition = |answer: &Value| name(&answer["weather"]["condition"], "CONDITION_");
    let now = stage.player("weather.v1.WeatherManager/Current", named.clone(), condition).await?;
    let duration_ms = u64::from(HOURS) * 3_600_000;
    for _ in 0..DAYS * 24 / HOURS {
        // Game time goes on, and with it the weather.
        stage
            .operator("time.v1.TimeManager/Advance", json!({ "durationMs": duration_ms.to_string() }), |_| {
                format!("{HOURS} hours pass")
            })
            .await?;
        let then = stage.player("weather.v1.WeatherManager/Current", named.clone(), condition).await?;
        if then["weather"]["condition"] != now["weather"]["condition"] {
            break;
        }
    }
    let place =
        json!({ "sessionId": stage.player, "regionId": REGION, "position": { "x": PLACES[1].0, "y": PLACES[1].1 } });
    let describe = "narrative.environment.v1.EnvironmentalNarrative/Describe";
    stage.player(describe, place, |answer| text(&answer["text"])).await?;
    Ok(())
}

async fn people(stage: &mut Stage<'_>) -> Outcome {
    let actions = json!([
        { "name": "buy a sword", "cost": 3, "preconditions": { "gold": 1 }, "effects": { "sword": 1 } },
        { "name": "mine gold", "cost": 1, "effects": { "gold": 1 } },
        { "name": "forge a sword", "cost": 5, "effects": { "sword": 1 } }
    ]);
    let request = json!({ "npcId": "smith", "goal": { "sword": 1 }, "actions": actions });
    let steps =
        |answer: &Value| answer["steps"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
    stage.player("npc.behavior.v1.Behavior/Plan", request, steps).await?;

    let choice = |id: &str, text: &str, to: &str| json!({ "id": id, "text": text, "to": to });
    let choices = [choice("pay", "Pay the toll.", "across"), choice("swim", "Swim.", "wet")];
    let arc = json!({
        "id": "demo-bridge",
        "title": "The bridge",
        "firstBeat": "bridge",
        "beats": [
            { "id": "bridge", "text": "A troll keeps the bridge.", "choices": choices },
            { "id": "across", "text": "You are across, and poorer.", "isEnding": true },
            { "id": "wet", "text": "You are across, and wet.", "isEnding": true }
        ]
    });
    stage.operator("story.v1.StoryTeller/PutArc", json!({ "arc": arc }), |_| "there is a story".to_owned()).await?;
    let mut named = json!({ "playerId": stage.player, "arcId": "demo-bridge" });
    let scene = |answer: &Value| text(&answer["scene"]["text"]);
    stage.player("story.v1.StoryTeller/Start", named.clone(), scene).await?;
    named["choiceId"] = json!("swim");
    stage.player("story.v1.StoryTeller/Advance", named, scene).await?;
    Ok(())
}

async fn purchase(stage: &mut Stage<'_>) -> Outcome {
    let (player, wallet) = (stage.player.clone(), format!("{}-wallet", stage.player));
    let accounts = [(&*wallet, "WALLET"), ("demo-shop", "WALLET"), ("demo-bank", "EXTERNAL")];
    for (account, kind) in accounts {
        let kind = format!("ACCOUNT_KIND_{kind}");
        let request = json!({ "accountId": account, "kind": kind, "currency": "EUR" });
        stage.operator("payment.v1.Payment/OpenAccount", request, |_| format!("`{account}` is open")).await?;
    }
    let amount = json!({ "currency": "EUR", "minorUnits": "500" });
    let key = json!({ "idempotencyKey": format!("{player}-wages") });
    let transfer = json!({ "meta": key, "fromAccountId": "demo-bank", "toAccountId": wallet, "amount": amount });
    stage.operator("payment.v1.Payment/Transfer", transfer, |_| "the wallet has 5.00 EUR".to_owned()).await?;

    // The shop is paid, and has no sword: a record that must not exist yet is one that does.
    let charge = json!({ "accountId": wallet, "payeeAccountId": "demo-shop", "amount": amount });
    let refund = json!({ "amountMinor": "500" });
    let sword =
        json!({ "key": { "kind": "KIND_PLAYER", "id": player }, "expectedRevision": "0", "merge": { "sword": true } });
    let steps = json!([
        {
            "id": "pay",
            "call": { "method": "payment.v1.Payment/Charge", "request": { "json": charge } },
            "compensation": {
                "method": "payment.v1.Payment/Refund",
                "request": { "json": refund },
                "inputs": [{ "stepId": "pay", "from": "entry.id", "to": "charge_id" }]
            }
        },
        {
            "id": "sword",
            "call": { "method": "state.manager.v1.StateManager/Update", "request": { "json": sword } },
            "retries": 0
        }
    ]);
    let workflow = json!({ "workflowId": format!("{player}-purchase"), "steps": steps });
    let started = |_: &Value| "5.00 EUR for a sword".to_owned();
    stage.operator("orchestration.v1.Orchestration/Start", workflow, started).await?;
    let named = json!({ "workflowId": format!("{player}-purchase") });
    let ended = |answer: &Value| answer["workflow"]["endedAt"].is_string();
    let message = |answer: &Value| format!("the purchase is {}", name(&answer["workflow"]["state"], "WORKFLOW_STATE_"));
    let workflow = stage.operator_until("orchestration.v1.Orchestration/Status", named, ended, message).await?;
    let state = &workflow["workflow"]["state"];
    stage.expect(state == "WORKFLOW_STATE_COMPENSATED", || format!("the workflow ended as {state}"))?;

    let balance = json!({ "accountId": wallet });
    let cents = |answer: &Value| format!("{} cents are back in the wallet", text(&answer["account"]["balanceMinor"]));
    let answer = stage.operator("payment.v1.Payment/Balance", balance, cents).await?;
    let cents = &answer["account"]["balanceMinor"];
    stage.expect(cents == "500", || format!("the wallet has {cents} cents, not 500"))
}

async fn others(stage: &mut Stage<'_>) -> Outcome {
    let prompt = json!({ "prompt": "The old gate", "sampling": { "maxTokens": 12, "seed": "7" } });
    stage.player("ai.llm.v1.Llm/Infer", prompt, |answer| text(&answer["text"])).await?;
    let frames = json!({ "clientId": stage.player, "frameTimesUs": vec![8_000; 60], "targetFps": 60 });
    let profile = |answer: &Value| format!("quality {}", name(&answer["recommendation"]["profile"], "PROFILE_"));
    stage.player("performance.v1.PerformanceMode/Report", frames, profile).await?;
    let reads = [
        ("ai.model.v1.ModelManagement/List", json!({}), "models", "model"),
        ("language.v1.LanguageSystem/ListLanguages", json!({}), "languages", "language"),
        ("settings.v1.Settings/Definitions", json!({}), "definitions", "setting"),
        ("capability.v1.CapabilityRegistry/Find", json!({ "name": "demo" }), "providers", "provider"),
        ("knowledge.v1.KnowledgeBase/Search", json!({ "query": "gate" }), "hits", "document"),
    ];
    for (method, request, field, noun) in reads {
        stage.player(method, request, |answer| counted(length(&answer[field]), noun)).await?;
    }
    let internal = [
        ("ai.router.v1.AiRouter/ListBackends", "backends", "backend"),
        ("router.v1.Router/ListRules", "rules", "rule"),
        ("event.bus.v1.EventBus/ListStreams", "streams", "stream"),
    ];
    for (method, field, noun) in internal {
        stage.operator(method, json!({}), |answer| counted(length(&answer[field]), noun)).await?;
    }
    Ok(())
}

fn point((x, y): (f64, f64)) -> Value {
    json!({ "x": x, "y": y, "z": 0 })
}

fn length(list: &Value) -> usize {
    list.as_array().map_or(0, Vec::len)
}

/// How many entities there are.
fn count(entities: &Value) -> String {
    match length(entities) {
        1 => "1 entity".to_owned(),
        number => format!("{number} entities"),
    }
}

/// A value as people read it.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The value of an enumeration in lower case, without what all its values begin with.
fn name(value: &Value, prefix: &str) -> String {
    text(value).trim_start_matches(prefix).to_lowercase().replace('_', " ")
}
