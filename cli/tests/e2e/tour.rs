//! Every rpc of the services that the tests' fleets have, called through the gateway as a client would. One that is added to the
//! contract of such a service has to be added here.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::http::Http;

struct Tour<'a> {
    gateway: &'a mut Http,
    called: BTreeSet<String>,
}

/// What is there afterwards.
pub(crate) struct Traces {
    /// A quest of `ada` that is not touched again.
    pub(crate) quest: Value,
}

pub(crate) async fn take(gateway: &mut Http) -> Traces {
    let mut tour = Tour { gateway, called: BTreeSet::new() };
    let quest = tour.quests().await;
    tour.states().await;
    tour.models().await;
    tour.management().await;
    tour.texts().await;
    tour.plans().await;
    let path = |method: &proto::rpc::Method| format!("/api/{}/{}", method.package.replace('.', "/"), method.name);
    let is_visited = |service: &&&proto::rpc::Service| service.methods.iter().any(|it| tour.called.contains(&path(it)));
    let visited: Vec<_> = proto::SERVICES.iter().filter(is_visited).collect();
    assert_eq!(visited.len(), 5, "{visited:?}");
    let all: BTreeSet<String> = visited.into_iter().flat_map(|service| service.methods).map(path).collect();
    let missing: Vec<&String> = all.difference(&tour.called).collect();
    assert!(missing.is_empty(), "the tour does not visit {missing:?}");
    Traces { quest }
}

impl Tour<'_> {
    async fn call(&mut self, path: &str, body: Value) -> Value {
        let path = format!("/api/{path}");
        let answer = self.gateway.post(&path, &body).await.unwrap();
        self.called.insert(path.clone());
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.body);
        answer.json()
    }

    async fn quests(&mut self) -> Value {
        let request = json!({ "playerId": "ada", "level": 7, "location": "forest", "seed": "1" });
        let quest = self.call("quest/v1/generate", request.clone()).await["quest"].clone();
        let named = json!({ "playerId": "ada", "questId": quest["id"] });
        assert_eq!(self.call("quest/v1/get", named.clone()).await["quest"], quest);
        assert_eq!(self.call("quest/v1/accept", named.clone()).await["quest"]["state"], "QUEST_STATE_ACTIVE");
        for objective in quest["objectives"].as_array().unwrap() {
            let mut progress = named.clone();
            progress["objectiveId"] = objective["id"].clone();
            progress["amount"] = objective["required"].clone();
            self.call("quest/v1/progress", progress).await;
        }
        let completed = self.call("quest/v1/complete", named).await["quest"].clone();
        assert_eq!(completed["state"], "QUEST_STATE_COMPLETED");

        let other = self.call("quest/v1/generate", request).await["quest"].clone();
        let named = json!({ "playerId": "ada", "questId": other["id"] });
        assert_eq!(self.call("quest/v1/abandon", named).await["quest"]["state"], "QUEST_STATE_ABANDONED");
        let quests = self.call("quest/v1/list", json!({ "playerId": "ada" })).await;
        assert_eq!(quests["quests"].as_array().unwrap().len(), 2);
        completed
    }

    async fn states(&mut self) {
        let (player, door) =
            (json!({ "kind": "KIND_PLAYER", "id": "ada" }), json!({ "kind": "KIND_ENTITY", "id": "door" }));
        let update = json!({ "key": player, "expectedRevision": "0", "merge": { "gold": 5 } });
        let first = self.call("state/manager/v1/update", update).await["record"].clone();
        let patch = json!({ "path": "inventory.sword", "value": true });
        let update = json!({ "key": player, "expectedRevision": first["revision"], "fields": { "patches": [patch] } });
        let second = self.call("state/manager/v1/update", update).await["record"].clone();
        assert_eq!(second["data"], json!({ "gold": 5, "inventory": { "sword": true } }));
        self.call("state/manager/v1/update", json!({ "key": door, "merge": { "open": true } })).await;
        assert_eq!(self.call("state/manager/v1/get", json!({ "key": player })).await["record"], second);
        let keys = json!([player, door, { "kind": "KIND_ENTITY", "id": "ghost" }]);
        let batch = self.call("state/manager/v1/batch_get", json!({ "keys": keys })).await;
        let count = |field: &str| batch[field].as_array().unwrap().len();
        assert_eq!((count("records"), count("missing")), (2, 1));
        let history = self.call("state/manager/v1/history", json!({ "key": player })).await;
        assert_eq!(history["records"], json!([second, first]));
    }

    async fn models(&mut self) {
        let models = self.call("ai/model/v1/list", json!({})).await;
        let model = models["models"][0].clone();
        let chosen = self.call("ai/model/v1/select", json!({ "capability": model["capabilities"][0] })).await;
        let named = self.call("ai/model/v1/get", json!({ "id": chosen["model"]["id"] })).await;
        assert_eq!(named["model"], chosen["model"]);
    }

    /// What no manifest makes public.
    async fn management(&mut self) {
        for method in ["register", "retire"] {
            let path = format!("/api/ai/model/v1/{method}");
            let answer = self.gateway.post(&path, &json!({})).await.unwrap();
            assert_eq!(answer.status, 404, "{path}: {}", answer.body);
            self.called.insert(path);
        }
    }

    async fn texts(&mut self) {
        let prompt = json!({ "prompt": "the king", "sampling": { "maxTokens": 12, "seed": "7", "temperature": 1 } });
        let answer = self.call("ai/llm/v1/infer", prompt.clone()).await;
        assert_eq!(answer["usage"]["completionTokens"], 12, "{answer}");
        let path = "/api/ai/llm/v1/infer_stream";
        let stream = self.gateway.post(path, &prompt).await.unwrap();
        self.called.insert(path.to_owned());
        assert_eq!(stream.status, 200, "{}", stream.body);
        let last = stream.body.trim_end().rsplit("\n\n").next().unwrap();
        assert!(last.lines().any(|line| line == "event: done"), "{}", stream.body);
        let messages = stream.body.lines().filter_map(|line| line.strip_prefix("data: "));
        let texts =
            messages.filter_map(|data| Some(serde_json::from_str::<Value>(data).ok()?["text"].as_str()?.to_owned()));
        assert_eq!(texts.collect::<String>(), answer["text"].as_str().unwrap(), "the same seed, the same text");
    }

    async fn plans(&mut self) {
        let actions = json!([
            { "name": "buy", "cost": 3, "preconditions": { "gold": 1 }, "effects": { "sword": 1 } },
            { "name": "mine", "cost": 1, "effects": { "gold": 1 } },
            { "name": "forge", "cost": 5, "effects": { "sword": 1 } }
        ]);
        let plan =
            self.call("npc/behavior/v1/plan", json!({ "npcId": "smith", "goal": { "sword": 1 }, "actions": actions }));
        let plan = plan.await;
        assert_eq!((&plan["steps"], plan["cost"].as_f64()), (&json!(["mine", "buy"]), Some(4.0)));
    }
}
