//! The service against a real nats-server.

use futures::future::join_all;
use proto::language::v1::{LanguageSummary, Phonology};
use sdk::Code;
use sdk::testing::{NatsServer, as_request};

use super::*;
use crate::words::tests::{english, noun};

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.bucket("languages", 1).await;
    server
}

async fn service(server: &NatsServer) -> Service {
    Service::new(server.fleet("language-system").await).await.unwrap()
}

/// A service with English, which has a text and names, and a language that falls back to it.
async fn with_languages(server: &NatsServer) -> Service {
    let service = service(server).await;
    let texts = [("greet".to_owned(), "Hail, {who}!".to_owned())].into();
    let nuclei = vec!["a".to_owned(), "o".to_owned()];
    let phonology = Phonology { onsets: vec!["b".to_owned(), "r".to_owned()], nuclei, ..Phonology::default() };
    service.has_put(None, Language { texts, phonology: Some(phonology), ..english() }).await.unwrap();
    service.has_put(None, elvish()).await.unwrap();
    service
}

fn elvish() -> Language {
    let lexicon = vec![noun("sword", "megil"), noun("friend", "mellon")];
    Language {
        id: "elvish".to_owned(),
        name: "Elvish".to_owned(),
        fallback: "en".to_owned(),
        lexicon,
        ..Language::default()
    }
}

impl Service {
    async fn has_put(&self, key: Option<&str>, language: Language) -> Result<LanguageSummary, Error> {
        let request = PutLanguageRequest { language: Some(language), ..PutLanguageRequest::default() };
        Ok(as_request(key, self.put_language(request)).await?.language.unwrap())
    }

    async fn deleted(&self, id: &str) -> Result<Option<LanguageSummary>, Error> {
        let request = DeleteLanguageRequest { language_id: id.to_owned(), ..DeleteLanguageRequest::default() };
        Ok(as_request(None, self.delete_language(request)).await?.language)
    }
}

#[tokio::test]
async fn a_text_is_translated_and_the_fallback_named() {
    let server = server().await;
    let service = with_languages(&server).await;
    let request = TranslateRequest {
        language_id: "elvish".to_owned(),
        key: "greet".to_owned(),
        arguments: [("who".to_owned(), "Rose".to_owned())].into(),
        ..TranslateRequest::default()
    };
    let answer = service.translate(request.clone()).await.unwrap();
    assert_eq!((&*answer.text, &*answer.language_id, answer.is_fallback), ("Hail, Rose!", "en", true));

    let refused = async |request: TranslateRequest| service.translate(request).await.unwrap_err();
    let nobody = refused(TranslateRequest { arguments: Default::default(), ..request.clone() }).await;
    assert_eq!((nobody.code(), nobody.message()), (Code::InvalidArgument, "argument `who` is missing"));
    let unknown = refused(TranslateRequest { language_id: "orcish".to_owned(), ..request.clone() }).await;
    assert_eq!((unknown.code(), unknown.message()), (Code::NotFound, "language `orcish` does not exist"));
    let silent = refused(TranslateRequest { key: "bye".to_owned(), ..request }).await;
    assert_eq!(silent.code(), Code::NotFound);
}

#[tokio::test]
async fn a_text_is_glossed_and_detected() {
    let server = server().await;
    let service = with_languages(&server).await;
    let text = "Two swords and MEN".to_owned();
    let gloss = GlossRequest { language_id: "en".to_owned(), text, ..GlossRequest::default() };
    let answer = service.gloss(gloss).await.unwrap();
    let words: Vec<_> = answer.words.iter().map(|word| (&*word.word, &*word.key, &*word.form)).collect();
    assert_eq!(words, [("Two", "", ""), ("swords", "sword", "other"), ("and", "", ""), ("MEN", "man", "other")]);
    assert_eq!(answer.unknown, 2);

    let detect = |text: &str| service.detect(DetectRequest { text: text.to_owned(), ..DetectRequest::default() });
    let found = detect("mellon megil").await.unwrap();
    assert_eq!((&*found.language_id, found.candidates.len()), ("elvish", 2));
    assert_eq!(detect("42").await.unwrap_err().message(), "text has no letters");
    let long = detect(&"a".repeat(1_025)).await.unwrap_err();
    assert_eq!(long.message(), "text has 1025 bytes, at most 1024 are allowed");
}

#[tokio::test]
async fn names_are_those_of_the_seed_and_of_the_fallback_if_need_be() {
    let server = server().await;
    let service = with_languages(&server).await;
    let request =
        |seed| GenerateNamesRequest { language_id: "elvish".to_owned(), count: 3, seed, ..Default::default() };
    let names = async |key: &str, seed| as_request(Some(key), service.generate_names(request(seed))).await.unwrap();
    let first = names("k1", None).await;
    assert_eq!((&*first.language_id, first.is_fallback, first.names.len()), ("en", true, 3));
    assert_eq!(names("k2", Some(first.seed)).await, first);
    assert_ne!(names("k3", Some(first.seed + 1)).await.names, first.names);

    let mute = Language { id: "mute".to_owned(), fallback: String::new(), ..elvish() };
    service.has_put(None, mute).await.unwrap();
    let request = GenerateNamesRequest { language_id: "mute".to_owned(), ..Default::default() };
    let error = service.generate_names(request).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::FailedPrecondition, "language `mute` and its fallbacks have no syllables")
    );
}

#[tokio::test]
async fn languages_are_put_read_listed_and_deleted() {
    let server = server().await;
    let service = with_languages(&server).await;
    let listed = service.list_languages(ListLanguagesRequest::default()).await.unwrap().languages;
    let listed: Vec<_> = listed.iter().map(|language| (&*language.id, language.words, language.has_names)).collect();
    assert_eq!(listed, [("elvish", 2, false), ("en", 4, true)]);
    let get = GetLanguageRequest { language_id: "elvish".to_owned(), ..GetLanguageRequest::default() };
    let read = service.get_language(get).await.unwrap().language.unwrap();
    assert_eq!(Language { revision: 0, ..read }, elvish());

    let used = service.deleted("en").await.unwrap_err();
    assert_eq!((used.code(), used.message()), (Code::FailedPrecondition, "language `elvish` falls back to `en`"));
    let circle = service.has_put(None, Language { fallback: "elvish".to_owned(), ..english() }).await.unwrap_err();
    assert_eq!((circle.code(), circle.message()), (Code::FailedPrecondition, "fallback `elvish` falls back to `en`"));
    let wrong = service.has_put(None, Language { name: String::new(), ..elvish() }).await.unwrap_err();
    assert_eq!((wrong.code(), wrong.message()), (Code::InvalidArgument, "name is empty"));
    assert_eq!(service.deleted("elvish").await.unwrap().unwrap().id, "elvish");
    assert_eq!(service.deleted("elvish").await.unwrap(), None);
}

#[tokio::test]
async fn a_repeated_request_puts_a_language_once_and_every_task_knows_it() {
    let server = server().await;
    let services = [with_languages(&server).await, service(&server).await];
    let puts =
        (0..4).map(|number| services[number % 2].has_put(Some("k"), Language { fallback: String::new(), ..elvish() }));
    let summaries: Vec<_> = join_all(puts).await.into_iter().map(Result::unwrap).collect();
    assert!(summaries.iter().all(|summary| *summary == summaries[0]));
    let error = services[1].has_put(Some("k"), elvish()).await.unwrap_err();
    assert_eq!(error.detail("reason"), Some("idempotency_key_reused"));

    services[0].has_put(None, Language { id: "late".to_owned(), ..elvish() }).await.unwrap();
    let gloss = GlossRequest { language_id: "late".to_owned(), text: "megil".to_owned(), ..GlossRequest::default() };
    let known = async {
        while services[1].gloss(gloss.clone()).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), known).await.expect("the other task knows it, too");
}
