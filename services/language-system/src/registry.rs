//! The languages as each worker keeps them: ready to translate.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::language::v1::{Entry, Language};
use sdk::{Error, Follow, Update};

use crate::detect::Bigrams;
use crate::pattern::Pattern;
use crate::words::Forms;

/// Languages that are asked one after another.
const MAX_CHAIN: usize = 8;

/// A language with what is derived from it.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) language: Language,
    pub(crate) texts: BTreeMap<String, Pattern>,
    pub(crate) forms: Forms,
    pub(crate) bigrams: Bigrams,
    /// Places in the lexicon.
    entries: BTreeMap<String, usize>,
}

impl Compiled {
    pub(crate) fn new(language: Language) -> Self {
        let mut texts = BTreeMap::new();
        for (key, text) in &language.texts {
            match Pattern::parse(key, text) {
                Ok(pattern) => drop(texts.insert(key.clone(), pattern)),
                Err(error) => tracing::error!(language = language.id, %error, "a stored text is left out"),
            }
        }
        let entries = language.lexicon.iter().enumerate().map(|(index, entry)| (entry.key.clone(), index)).collect();
        let (forms, bigrams) = (Forms::new(&language), Bigrams::of_language(&language));
        Self { language, texts, forms, bigrams, entries }
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key).map(|index| &self.language.lexicon[*index])
    }
}

/// All languages by id.
#[derive(Debug, Default)]
pub(crate) struct Registry(BTreeMap<String, Arc<Compiled>>);

impl Registry {
    /// All languages, ordered by id.
    pub(crate) fn all(&self) -> Vec<Arc<Compiled>> {
        self.0.values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A language, and those that it falls back to, one after another.
    pub(crate) fn chain(&self, id: &str) -> Result<Vec<Arc<Compiled>>, Error> {
        let key = crate::language::language_key(id)?;
        let mut chain: Vec<Arc<Compiled>> = Vec::new();
        let mut next = Some(self.0.get(id).ok_or_else(|| Error::not_found(&key))?);
        while let Some(language) = next.filter(|_| chain.len() < MAX_CHAIN) {
            chain.push(Arc::clone(language));
            // Two languages that were changed at the same moment may fall back to each other.
            let is_new = |other: &&Arc<Compiled>| !chain.iter().any(|known| Arc::ptr_eq(known, other));
            next = self.0.get(&language.language.fallback).filter(is_new);
        }
        Ok(chain)
    }

    /// Rejects a language that cannot fall back to what it says.
    pub(crate) fn check_fallback(&self, language: &Language) -> Result<(), Error> {
        if language.fallback.is_empty() {
            return Ok(());
        }
        let (id, fallback) = (&language.id, &language.fallback);
        let Some(_) = self.0.get(fallback).filter(|_| fallback != id) else {
            return Err(Error::failed_precondition(format_args!(
                "fallback `{fallback}` does not exist, or is the language itself"
            )));
        };
        let chain = self.chain(fallback)?;
        if chain.iter().any(|other| other.language.id == *id) {
            return Err(Error::failed_precondition(format_args!("fallback `{fallback}` falls back to `{id}`")));
        }
        match chain.len() < MAX_CHAIN {
            true => Ok(()),
            false => {
                Err(Error::failed_precondition(format_args!("more than {MAX_CHAIN} languages would follow each other")))
            }
        }
    }

    /// Rejects the deletion of a language that others fall back to.
    pub(crate) fn check_unused(&self, id: &str) -> Result<(), Error> {
        match self.0.values().find(|other| other.language.fallback == id) {
            Some(other) => {
                Err(Error::failed_precondition(format_args!("language `{}` falls back to `{id}`", other.language.id)))
            }
            None => Ok(()),
        }
    }

    fn put(&mut self, language: Language) {
        self.0.insert(language.id.clone(), Arc::new(Compiled::new(language)));
    }
}

impl Follow<Language> for Registry {
    fn apply(&mut self, update: Update<Language>) {
        match update.record {
            Some(language) => self.put(language.value),
            None => drop(self.0.remove(&update.key)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn registry(languages: impl IntoIterator<Item = Language>) -> Registry {
        let mut registry = Registry::default();
        languages.into_iter().for_each(|language| registry.put(language));
        registry
    }

    fn language(id: &str, fallback: &str) -> Language {
        Language { id: id.to_owned(), fallback: fallback.to_owned(), ..Language::default() }
    }

    #[track_caller]
    fn check(registry: &Registry, id: &str, expected: Result<&[&str], &str>) {
        let chain = registry.chain(id);
        let ids = chain.as_ref().map(|chain| chain.iter().map(|it| &*it.language.id).collect::<Vec<_>>());
        assert_eq!(ids.map_err(Error::message), expected.map(<[&str]>::to_vec));
    }

    #[test]
    fn languages_fall_back_in_a_chain_that_ends() {
        let one = registry([language("a", "b"), language("b", "c"), language("c", ""), language("d", "gone")]);
        check(&one, "a", Ok(&["a", "b", "c"]));
        check(&one, "d", Ok(&["d"]));
        check(&one, "x", Err("language `x` does not exist"));
        let circle = registry([language("a", "b"), language("b", "a")]);
        check(&circle, "a", Ok(&["a", "b"]));
        let long = registry((0..10).map(|number| language(&number.to_string(), &(number + 1).to_string())));
        assert_eq!(long.chain("0").unwrap().len(), 8);
        let error = long.check_fallback(&language("new", "0")).unwrap_err();
        assert_eq!(error.message(), "more than 8 languages would follow each other");
    }

    #[test]
    fn a_language_does_not_fall_back_to_itself_or_to_nothing() {
        let registry = registry([language("a", "b"), language("b", "")]);
        let check = |language: Language, message: &str| {
            assert_eq!(registry.check_fallback(&language).unwrap_err().message(), message);
        };
        check(language("b", "a"), "fallback `a` falls back to `b`");
        check(language("b", "b"), "fallback `b` does not exist, or is the language itself");
        check(language("b", "c"), "fallback `c` does not exist, or is the language itself");
        assert_eq!(registry.check_fallback(&language("c", "a")), Ok(()));
        assert_eq!(registry.check_unused("a"), Ok(()));
        assert_eq!(registry.check_unused("b").unwrap_err().message(), "language `a` falls back to `b`");
    }
}
