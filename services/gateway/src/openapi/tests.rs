//! The document of the fleet.

use super::*;

fn fleet() -> Value {
    let methods: Vec<&Method> = proto::SERVICES.iter().flat_map(|service| service.methods).collect();
    document(&methods, &Schema::for_fleet().unwrap(), &Limits::default())
}

#[test]
fn every_method_is_described() {
    let document = fleet();
    for method in proto::SERVICES.iter().flat_map(|service| service.methods) {
        let post = &document["paths"][routes::path(method)]["post"];
        assert!(post["requestBody"]["content"]["application/json"]["schema"]["$ref"].is_string());
        let kind = if method.streaming { "text/event-stream" } else { "application/json" };
        assert!(post["responses"]["200"]["content"][kind]["schema"].is_object(), "{}", method.subject);
    }
}

#[test]
fn every_reference_resolves() {
    fn walk(value: &Value, document: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(target)) = members.get("$ref") {
                    assert!(document.pointer(&target[1..]).is_some(), "{target}");
                }
                members.values().for_each(|member| walk(member, document));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, document)),
            _ => {}
        }
    }
    let document = fleet();
    walk(&document, &document);
}

#[test]
fn requests_have_both_names_of_a_field_and_no_unknown_ones_at_any_depth() {
    let document = fleet();
    let schemas = &document["components"]["schemas"];
    for (message, names) in [
        ("quest.v1.GenerateRequest", ["playerId", "player_id"]),
        ("npc.behavior.v1.PlanRequest", ["nodeLimit", "node_limit"]),
        ("ai.llm.v1.Sampling", ["maxTokens", "max_tokens"]),
    ] {
        let described = &schemas[message];
        assert_eq!(described["properties"][names[0]], described["properties"][names[1]], "{message}");
        assert!(described["properties"][names[0]].is_object(), "{message}");
        assert_eq!(described["additionalProperties"], false, "{message}");
        let twice = json!({"not": {"required": names}});
        assert!(described["allOf"].as_array().unwrap().contains(&twice), "{message}");
    }
    let update = schemas["state.manager.v1.UpdateRequest"]["allOf"].to_string();
    assert!(update.contains(r#""required":["merge","fields"]"#), "{update}");
    assert_eq!(schemas["npc.behavior.v1.Action"]["additionalProperties"], false);
    assert!(schemas["quest.v1.GenerateResponse"].get("additionalProperties").is_none());
}

#[test]
fn fields_that_the_gateway_handles_are_removed() {
    let document = fleet();
    let schemas = &document["components"]["schemas"];
    let request = &schemas["quest.v1.GenerateRequest"];
    assert!(request["properties"].get("meta").is_none());
    assert_eq!(request["additionalProperties"], false);
    assert_eq!(request["properties"]["playerId"], json!({"type": ["string", "null"]}));
    assert!(schemas["quest.v1.GenerateResponse"]["properties"].get("error").is_none());
    assert_eq!(schemas["quest.v1.QuestState"]["enum"][1], "QUEST_STATE_OFFERED");
    assert_eq!(
        schemas["quest.v1.QuestInfo"]["properties"]["offeredAt"],
        json!({"type": "string", "format": "date-time"})
    );
    assert!(schemas["state.manager.v1.UpdateRequest"]["properties"]["merge"]["description"].is_string());
}
