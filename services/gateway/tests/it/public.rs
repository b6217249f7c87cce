//! What is public: only the methods that the setting names are reachable.

use crate::client::GENERATE;
use crate::fleet::Fleet;

const GET: &str = "/api/quest/v1/get";

#[tokio::test]
async fn a_method_that_is_not_public_is_answered_like_an_unknown_path() {
    let gateway = Fleet::quests().behind_a_gateway_to("quest.v1.Quest/Generate");
    let mut client = gateway.client().await;
    assert_eq!(client.post(GENERATE, "{}").await.status, 200);
    for path in [GET, "/api/ai/model/v1/retire", "/api/ai/llm/v1/infer_stream", "/api/nothing"] {
        let answer = client.post(path, "{}").await;
        assert_eq!((answer.status, answer.header("content-type")), (404, "application/problem+json"), "{path}");
        let problem = answer.json();
        assert_eq!(problem["detail"], "there is no route with this path");
        assert!(!problem["hint"].as_str().unwrap().contains(path), "{problem}");
        assert_eq!(client.request("GET", path).await.status, 404);
    }
}

#[tokio::test]
async fn only_public_methods_are_described() {
    let gateway = Fleet::silent().behind_a_gateway_to("quest.v1.Quest/Generate");
    let document = gateway.client().await.request("GET", "/openapi.json").await.json();
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(paths, [GENERATE]);
    assert_eq!(document["tags"].as_array().unwrap().len(), 1);
    assert!(document["components"]["schemas"].get("ai.llm.v1.InferRequest").is_none());
}

#[tokio::test]
async fn without_the_setting_nothing_is_public() {
    let gateway = Fleet::quests().behind_a_gateway_to("");
    let mut client = gateway.client().await;
    assert_eq!(client.post(GENERATE, "{}").await.status, 404);
    let document = client.request("GET", "/openapi.json").await.json();
    assert_eq!(document["paths"], serde_json::json!({}));
    assert_eq!(client.request("GET", "/livez").await.status, 200);
}
