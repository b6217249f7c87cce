//! Keeps the languages of the game: translates, analyses and detects them, and makes up names. Languages are records; each worker
//! keeps all of them ready.

mod detect;
mod language;
mod names;
mod pattern;
mod registry;
mod translate;
mod words;

use proto::language::v1::{
    DeleteLanguageRequest, DeleteLanguageResponse, DetectRequest, DetectResponse, GenerateNamesRequest,
    GenerateNamesResponse, GetLanguageRequest, GetLanguageResponse, GlossRequest, GlossResponse, GlossedWord, Language,
    LanguageSystem, LanguageSystemServer, ListLanguagesRequest, ListLanguagesResponse, PutLanguageRequest,
    PutLanguageResponse, TranslateRequest, TranslateResponse,
};
use sdk::random::stable_hash;
use sdk::{Error, Fleet, Followed, Next, Operation, Records, Stored, check_text};

use crate::detect::Sample;
use crate::language::{language_key, summary};
use crate::names::NameSpec;
use crate::registry::{Compiled, Registry};

const MAX_LANGUAGES: usize = 50;
/// Bytes of a text that is analysed.
const MAX_GLOSSED: usize = 4_096;
const MAX_DETECTED: usize = 1_024;
const MAX_CANDIDATES: usize = 10;

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(LanguageSystemServer).run()
}

struct Service {
    languages: Records<Language>,
    registry: Followed<Registry>,
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let languages = fleet.records("languages").await?;
        let registry = languages.follow(Registry::default()).await?;
        Ok(Self { languages, registry })
    }
}

impl LanguageSystem for Service {
    async fn put_language(&self, request: PutLanguageRequest) -> Result<PutLanguageResponse, Error> {
        let operation = Operation::of(&request);
        let language = language::checked(request.language)?;
        let key = language_key(&language.id)?;
        let put = |current: Option<&Stored<Language>>| {
            let registry = self.registry.read();
            registry.check_fallback(&language)?;
            match current {
                None if registry.len() >= MAX_LANGUAGES => {
                    Err(Error::failed_precondition(format_args!("there are {MAX_LANGUAGES} languages already")))
                }
                _ => Ok(Next::write(language.clone())),
            }
        };
        let stored = self.languages.change(&key, &operation, put).await?;
        let answer = summary(&stored.value);
        self.registry.wrote(stored.into());
        Ok(answer.into())
    }

    async fn get_language(&self, request: GetLanguageRequest) -> Result<GetLanguageResponse, Error> {
        Ok(self.languages.get(&language_key(&request.language_id)?).await?.value.into())
    }

    async fn list_languages(&self, _: ListLanguagesRequest) -> Result<ListLanguagesResponse, Error> {
        let all = self.registry.read().all();
        Ok(all.iter().map(|compiled| summary(&compiled.language)).collect::<Vec<_>>().into())
    }

    async fn delete_language(&self, request: DeleteLanguageRequest) -> Result<DeleteLanguageResponse, Error> {
        let key = language_key(&request.language_id)?;
        let delete = |_: &Stored<Language>| {
            self.registry.read().check_unused(key.as_str())?;
            Ok(Next::delete())
        };
        let deleted = self.languages.change_existing(&key, &Operation::of(&request), delete).await?;
        Ok(DeleteLanguageResponse { error: None, language: deleted.map(|language| summary(&language.value)) })
    }

    async fn translate(&self, request: TranslateRequest) -> Result<TranslateResponse, Error> {
        let chain = self.registry.read().chain(&request.language_id)?;
        translate::translated(&chain, &request)
    }

    async fn gloss(&self, request: GlossRequest) -> Result<GlossResponse, Error> {
        check_text("text", &request.text, MAX_GLOSSED)?;
        let chain = self.registry.read().chain(&request.language_id)?;
        let words: Vec<GlossedWord> = words::split(&request.text).map(|word| glossed(&chain[0], word)).collect();
        let unknown = words.iter().filter(|word| word.key.is_empty()).count();
        Ok(GlossResponse { error: None, words, unknown: u32::try_from(unknown).unwrap_or(u32::MAX) })
    }

    async fn generate_names(&self, request: GenerateNamesRequest) -> Result<GenerateNamesResponse, Error> {
        let spec = NameSpec::new(request.count, request.min_syllables, request.max_syllables)?;
        let chain = self.registry.read().chain(&request.language_id)?;
        let found = chain.iter().enumerate().find_map(|(place, it)| Some((place, it, it.language.phonology.as_ref()?)));
        let (place, compiled, phonology) = found.ok_or_else(|| {
            Error::failed_precondition(format_args!(
                "language `{}` and its fallbacks have no syllables",
                request.language_id
            ))
        })?;
        let derived = || stable_hash(&[sdk::context().operation_id().as_bytes()]);
        let seed = request.seed.unwrap_or_else(derived);
        Ok(GenerateNamesResponse {
            error: None,
            names: names::names(phonology, spec, seed)?,
            seed,
            language_id: compiled.language.id.clone(),
            is_fallback: place > 0,
        })
    }

    async fn detect(&self, request: DetectRequest) -> Result<DetectResponse, Error> {
        check_text("text", &request.text, MAX_DETECTED)?;
        let sample = Sample::new(&request.text).ok_or_else(|| Error::invalid("text has no letters"))?;
        let all = self.registry.read().all();
        let mut candidates = Vec::with_capacity(all.len());
        for compiled in all {
            candidates.push(sample.candidate(&compiled));
            // A text that is compared with many languages does not hold up other requests.
            tokio::task::yield_now().await;
        }
        let language_id = detect::ranked(&mut candidates);
        candidates.truncate(MAX_CANDIDATES);
        Ok(DetectResponse { error: None, language_id, candidates })
    }
}

fn glossed(compiled: &Compiled, word: &str) -> GlossedWord {
    let found = compiled.forms.find(&compiled.language, word);
    let (entry, form) = found.map(|(entry, form)| (entry.clone(), form)).unwrap_or_default();
    GlossedWord {
        word: word.to_owned(),
        key: entry.key,
        lemma: entry.lemma,
        part_of_speech: entry.part_of_speech,
        form,
    }
}

#[cfg(test)]
mod tests;
