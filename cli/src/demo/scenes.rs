//! What happens in the session: each scene takes what earlier ones have made, and some need an operator.

use futures::FutureExt as _;
use serde_json::{Value, json};

use super::{Interruption, Outcome, Play, Stage};

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
    Scene { title: "a smith makes a plan", play: |stage| plan(stage).boxed() },
    Scene { title: "a story begins", play: |stage| story(stage).boxed() },
    Scene { title: "a payment is refunded", play: |stage| payment(stage).boxed() },
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
            format!("accepted, with {}", crate::problem::counted(objectives, "objective"))
        })
        .await?;
    Ok(())
}

async fn walk(stage: &mut Stage<'_>) -> Outcome {
    let player = stage.player.clone();
    let point = |(x, y): (f64, f64)| json!({ "x": x, "y": y, "z": 0 });
    let bounds = json!({ "min": point((0.0, 0.0)), "max": point((100.0, 100.0)) });
    let region = json!({ "region": { "id": REGION, "name": "Demo Valley", "bounds": bounds, "tags": ["forest"] } });
    stage.operator("world.state.v1.WorldState/PutRegion", region, |_| "there is a valley".to_owned()).await?;
    let entity = json!({ "id": player, "regionId": REGION, "kind": "player", "position": point(PLACES[0]) });
    stage
        .operator("world.state.v1.WorldState/UpsertEntity", json!({ "entity": entity }), |_| {
            "the player is in it".to_owned()
        })
        .await?;
    let step = json!({ "regionId": REGION, "entityId": player, "toRegionId": REGION, "position": point(PLACES[1]) });
    stage.operator("world.state.v1.WorldState/MoveEntity", step, |_| "and walks 33 m".to_owned()).await?;
    let key = json!({ "kind": "KIND_PLAYER", "id": player });
    let position = json!({ "region": REGION, "x": PLACES[1].0, "y": PLACES[1].1 });
    stage
        .player(
            "state.manager.v1.StateManager/Update",
            json!({ "key": key, "merge": { "position": position } }),
            |answer| format!("saved as revision {}", text(&answer["record"]["revision"])),
        )
        .await?;
    let around = json!({ "regionId": REGION, "center": point(PLACES[1]), "radius": 5 });
    stage
        .player("world.state.v1.WorldState/WithinRadius", around, |answer| {
            let near = answer["neighbors"].as_array().map_or(0, Vec::len);
            format!("{} within 5 m", crate::problem::counted(near, "entity").replace("entitys", "entities"))
        })
        .await?;
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

async fn plan(stage: &mut Stage<'_>) -> Outcome {
    let actions = json!([
        { "name": "buy a sword", "cost": 3, "preconditions": { "gold": 1 }, "effects": { "sword": 1 } },
        { "name": "mine gold", "cost": 1, "effects": { "gold": 1 } },
        { "name": "forge a sword", "cost": 5, "effects": { "sword": 1 } }
    ]);
    let request = json!({ "npcId": "smith", "goal": { "sword": 1 }, "actions": actions });
    let steps =
        |answer: &Value| answer["steps"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
    stage.player("npc.behavior.v1.Behavior/Plan", request, steps).await?;
    Ok(())
}

async fn story(stage: &mut Stage<'_>) -> Outcome {
    let choice = |id: &str, text: &str, to: &str| json!({ "id": id, "text": text, "to": to });
    let arc = json!({
        "id": "demo-bridge",
        "title": "The bridge",
        "firstBeat": "bridge",
        "beats": [
            { "id": "bridge", "text": "A troll keeps the bridge.", "choices": [choice("pay", "Pay the toll.", "across"), choice("swim", "Swim.", "wet")] },
            { "id": "across", "text": "You are across, and poorer.", "isEnding": true },
            { "id": "wet", "text": "You are across, and wet.", "isEnding": true }
        ]
    });
    stage.operator("story.v1.StoryTeller/PutArc", json!({ "arc": arc }), |_| "there is a story".to_owned()).await?;
    let named = json!({ "playerId": stage.player, "arcId": "demo-bridge" });
    let scene = |answer: &Value| text(&answer["scene"]["text"]);
    stage.player("story.v1.StoryTeller/Start", named.clone(), scene).await?;
    let mut chosen = named.clone();
    chosen["choiceId"] = json!("swim");
    stage.player("story.v1.StoryTeller/Advance", chosen, scene).await?;
    Ok(())
}

async fn payment(stage: &mut Stage<'_>) -> Outcome {
    let (wallet, bank, shop) = (format!("{}-wallet", stage.player), "demo-bank", "demo-shop");
    for (account, kind) in
        [(wallet.as_str(), "ACCOUNT_KIND_WALLET"), (bank, "ACCOUNT_KIND_EXTERNAL"), (shop, "ACCOUNT_KIND_WALLET")]
    {
        let request = json!({ "accountId": account, "kind": kind, "currency": "EUR" });
        stage.operator("payment.v1.Payment/OpenAccount", request, |_| format!("`{account}` is open")).await?;
    }
    let amount = json!({ "currency": "EUR", "minorUnits": "500" });
    let keyed = |stage: &Stage<'_>, step: &str| json!({ "idempotencyKey": format!("{}-{step}", stage.player) });
    let transfer = json!({ "meta": keyed(stage, "transfer"), "fromAccountId": bank, "toAccountId": wallet, "amount": amount, "description": "demo" });
    stage.operator("payment.v1.Payment/Transfer", transfer, |_| "5.00 EUR come in".to_owned()).await?;
    let charge = json!({ "meta": keyed(stage, "charge"), "accountId": wallet, "payeeAccountId": shop, "amount": amount, "description": "a sword" });
    let charged =
        stage.operator("payment.v1.Payment/Charge", charge, |_| "and are paid for a sword".to_owned()).await?;
    let refund = json!({ "meta": keyed(stage, "refund"), "chargeId": charged["entry"]["id"], "amountMinor": "500", "description": "sold out" });
    stage.operator("payment.v1.Payment/Refund", refund, |_| "which is sold out: refunded".to_owned()).await?;
    let balance = stage
        .operator("payment.v1.Payment/Balance", json!({ "accountId": wallet }), |answer| {
            format!("{} cents are in the wallet", text(&answer["account"]["balanceMinor"]))
        })
        .await?;
    match balance["account"]["balanceMinor"].as_str() {
        Some("500") => Ok(()),
        _ => Err(Interruption::Failed),
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
