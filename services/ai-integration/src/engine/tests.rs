use futures::TryStreamExt as _;
use proto::ai::llm::v1::{FinishReason, Sampling};
use proto::ai::model::v1::{
    GetResponse, ListRequest, ListResponse, ModelManagement, ModelManagementServer, RegisterRequest, RegisterResponse,
    RetireRequest, RetireResponse, SelectResponse,
};
use proto::common::v1::TokenUsage;
use sdk::{Channel, Code};

use super::*;

/// A registry of three models. The id of a selected model shows the request.
pub(crate) struct Registry;

fn model(id: &str, state: ModelState) -> Model {
    Model {
        id: id.to_owned(),
        capabilities: vec!["text".to_owned()],
        context_length: 50,
        state: state.into(),
        ..Model::default()
    }
}

impl ModelManagement for Registry {
    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        let model = match request.id.as_str() {
            "here" => model("here", ModelState::Active),
            "vast" => Model { context_length: 5_000, ..model("vast", ModelState::Active) },
            "gone" => model("gone", ModelState::Retired),
            id => return Err(Error::not_found(format_args!("model `{id}`"))),
        };
        Ok(GetResponse { error: None, model: Some(model) })
    }

    async fn select(&self, request: SelectRequest) -> Result<SelectResponse, Error> {
        let id = format!("for-{}-{}", request.capability, request.min_context_length);
        Ok(SelectResponse { model: Some(model(&id, ModelState::Active)), ..SelectResponse::default() })
    }

    async fn list(&self, _: ListRequest) -> Result<ListResponse, Error> {
        Err(Error::internal("unused"))
    }

    async fn register(&self, _: RegisterRequest) -> Result<RegisterResponse, Error> {
        Err(Error::internal("unused"))
    }

    async fn retire(&self, _: RetireRequest) -> Result<RetireResponse, Error> {
        Err(Error::internal("unused"))
    }
}

fn engine() -> Engine {
    let models = ModelManagementClient::from(Channel::to(ModelManagementServer(Registry)));
    Engine::new(models, Backends::default())
}

impl Engine {
    async fn infer(&self, request: InferRequest) -> Result<InferResponse, Error> {
        self.prepare(request).await?.infer().await
    }
}

fn request(model_id: &str, capability: &str, max_tokens: u32) -> InferRequest {
    InferRequest {
        prompt: "Tell me, smith.".to_owned(),
        model_id: model_id.to_owned(),
        capability: capability.to_owned(),
        sampling: Some(Sampling { max_tokens: Some(max_tokens), seed: Some(1), ..Sampling::default() }),
        meta: None,
    }
}

async fn refused(request: InferRequest, code: Code, because: &str) {
    let error = engine().infer(request).await.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert!(error.message().contains(because), "{error}");
}

#[tokio::test]
async fn a_model_is_selected_by_capability_and_context_length() {
    let response = engine().infer(request("", "dialogue", 7)).await.unwrap();
    assert_eq!(response.model_id, "for-dialogue-12");
    assert_eq!(response.finish_reason(), FinishReason::Length);
    let usage = TokenUsage { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 };
    assert_eq!(response.usage, Some(usage));
}

#[tokio::test]
async fn a_named_model_is_used_if_it_can_be() {
    let response = engine().infer(request("here", "text", 45)).await.unwrap();
    assert_eq!(response.model_id, "here");
    refused(request("here", "", 46), Code::InvalidArgument, "need 51 tokens").await;
    refused(request("here", "code", 5), Code::FailedPrecondition, "does not have the capability `code`").await;
    refused(request("gone", "", 5), Code::FailedPrecondition, "`gone` is retired").await;
    refused(request("lost", "", 5), Code::NotFound, "`lost`").await;
}

#[tokio::test]
async fn a_text_is_cached_under_what_it_depends_on_if_it_is_the_same_each_time() {
    let key = async |request: InferRequest| {
        let prepared = engine().prepare(request).await.unwrap();
        prepared.cache_key().map(|key| format!("{key:?}"))
    };
    let seeded = |seed| {
        let sampling = Some(Sampling { max_tokens: Some(5), seed, ..Sampling::default() });
        InferRequest { sampling, ..request("here", "", 5) }
    };
    assert_eq!(key(seeded(None)).await, None);
    let known = key(seeded(Some(1))).await;
    assert!(known.is_some());
    assert_eq!(key(InferRequest { capability: "text".to_owned(), ..seeded(Some(1)) }).await, known);
    for other in [
        seeded(Some(2)),
        InferRequest { prompt: "Tell me".to_owned(), ..seeded(Some(1)) },
        InferRequest { model_id: "vast".to_owned(), ..seeded(Some(1)) },
        request("here", "", 6),
    ] {
        assert_ne!(key(other).await, known);
    }
}

#[tokio::test]
async fn bad_input_is_refused_before_a_model_is_selected() {
    refused(request("lost", "", 0), Code::InvalidArgument, "`max_tokens`").await;
}

#[tokio::test]
async fn a_stream_has_the_text_of_the_unary_response() {
    let whole = engine().infer(request("here", "", 20)).await.unwrap();
    let InferRequest { prompt, model_id, capability, sampling, meta } = request("here", "", 20);
    let request = InferStreamRequest { meta, prompt, model_id, capability, sampling };
    let stream = engine().infer_stream(request).await.unwrap();
    let messages: Vec<InferStreamResponse> = stream.try_collect().await.unwrap();

    let text: String = messages.iter().map(|message| message.text.as_str()).collect();
    assert_eq!(text, whole.text);
    assert!(messages.iter().all(|message| message.model_id == "here"));
    let (last, before) = messages.split_last().unwrap();
    assert_eq!((last.finish_reason, last.usage), (whole.finish_reason, whole.usage));
    assert!(last.text.is_empty());
    assert!(before.iter().all(|message| message.usage.is_none() && !message.text.is_empty()));
    assert!(before.iter().all(|message| message.finish_reason() == FinishReason::Unspecified));
}
