//! Documents and searches: what is accepted.

use std::time::SystemTime;

use proto::knowledge::v1::{Document, SearchRequest};
use sdk::{Error, Id, check_count, check_range, check_range_or, check_text, required};

const MAX_TITLE: usize = 256;
const MAX_BODY: usize = 64 << 10;
const MAX_TAGS: usize = 32;
const MAX_TAG: usize = 64;
const MAX_ATTRIBUTES: usize = 16;
const MAX_ATTRIBUTE_NAME: usize = 32;
const MAX_ATTRIBUTE: usize = 128;
const MAX_QUERY: usize = 512;
const MAX_FILTERS: usize = 16;
const MAX_HITS: u32 = 50;
const DEFAULT_HITS: u32 = 10;
const MAX_OFFSET: u32 = 1_000;

/// The key of a document.
pub(crate) fn key(id: &str) -> Result<Id, Error> {
    Id::new("document", id, 64)
}

/// The document of a request, if it is valid, in the form in which it is stored.
pub(crate) fn checked(document: Option<Document>, now: SystemTime) -> Result<Document, Error> {
    let mut document = required("document", document)?;
    key(&document.id)?;
    check_text("title", &document.title, MAX_TITLE)?;
    check_text("body", &document.body, MAX_BODY)?;
    check_count("tags", document.tags.len(), MAX_TAGS)?;
    check_count("attributes", document.attributes.len(), MAX_ATTRIBUTES)?;
    check_filters(&document.tags, &document.attributes)?;
    document.tags.sort();
    document.tags.dedup();
    document.updated_at = Some(now.into());
    document.revision = 0;
    Ok(document)
}

/// Whether a document says the same as the one that is stored.
pub(crate) fn is_same(stored: &Document, document: &Document) -> bool {
    *stored == Document { revision: stored.revision, updated_at: stored.updated_at, ..document.clone() }
}

/// Bytes of its text.
pub(crate) fn size(document: &Document) -> usize {
    document.title.len() + document.body.len()
}

/// A search that is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Search {
    pub(crate) query: String,
    /// All of which a document must have.
    pub(crate) filters: Vec<String>,
    pub(crate) limit: usize,
    pub(crate) offset: usize,
}

impl Search {
    pub(crate) fn new(request: SearchRequest) -> Result<Self, Error> {
        check_text("query", &request.query, MAX_QUERY)?;
        check_count("tags", request.tags.len(), MAX_FILTERS)?;
        check_count("attributes", request.attributes.len(), MAX_FILTERS)?;
        check_filters(&request.tags, &request.attributes)?;
        Ok(Self {
            filters: filters(&request.tags, &request.attributes).collect(),
            limit: check_range_or("limit", request.limit, 1..=MAX_HITS, DEFAULT_HITS)? as usize,
            offset: check_range("offset", request.offset, 0..=MAX_OFFSET)? as usize,
            query: request.query,
        })
    }
}

type Attributes = std::collections::BTreeMap<String, String>;

/// What a document is found by besides its words: texts that stand for its tags and attributes. No tag and no name contains the
/// character that separates their parts.
pub(crate) fn filters(tags: &[String], attributes: &Attributes) -> impl Iterator<Item = String> {
    let tags = tags.iter().map(|tag| format!("tag\u{1f}{tag}"));
    tags.chain(attributes.iter().map(|(name, value)| format!("attribute\u{1f}{name}\u{1f}{value}")))
}

fn check_filters(tags: &[String], attributes: &Attributes) -> Result<(), Error> {
    tags.iter().try_for_each(|tag| check_text("tag", tag, MAX_TAG))?;
    attributes.iter().try_for_each(|(name, value)| {
        check_text("name of an attribute", name, MAX_ATTRIBUTE_NAME)?;
        check_text(&format!("attribute `{}`", name.escape_debug()), value, MAX_ATTRIBUTE)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn document(id: &str, title: &str, body: &str) -> Document {
        Document { id: id.to_owned(), title: title.to_owned(), body: body.to_owned(), ..Document::default() }
    }

    pub(crate) fn search(query: &str) -> SearchRequest {
        SearchRequest { query: query.to_owned(), ..SearchRequest::default() }
    }

    #[test]
    fn a_document_is_stored_in_one_form() {
        let tags = ["b", "a", "b"].map(str::to_owned).to_vec();
        let given = Document { tags, revision: 7, ..document("d", "t", "b") };
        let stored = checked(Some(given.clone()), SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!((stored.tags.join(" "), stored.revision), ("a b".to_owned(), 0));
        let later = checked(Some(given), SystemTime::now()).unwrap();
        assert!(is_same(&Document { revision: 3, ..stored.clone() }, &later));
        assert!(!is_same(&stored, &Document { title: "other".to_owned(), ..later }));
    }

    #[test]
    fn what_is_not_valid_is_refused_with_what_is() {
        #[track_caller]
        fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>, because: &str) {
            let error = outcome.unwrap_err();
            assert!(error.message().contains(because), "{error}");
        }
        let checked = |document: Document| checked(Some(document), SystemTime::UNIX_EPOCH);
        refused(checked(document("a b", "t", "b")), "document id must be");
        refused(checked(document("a", "", "b")), "title is empty");
        refused(checked(document("a", "t", &"x".repeat(MAX_BODY + 1))), "body has 65537 bytes");
        let tags = vec![String::new()];
        refused(checked(Document { tags, ..document("a", "t", "b") }), "tag is empty");
        let attributes: Attributes = [("a\u{1f}b".to_owned(), "c".to_owned())].into();
        refused(checked(Document { attributes: attributes.clone(), ..document("a", "t", "b") }), "contains \\u{1f}");
        refused(Search::new(search("")), "query is empty");
        refused(Search::new(SearchRequest { attributes, ..search("a") }), "contains \\u{1f}");
        refused(Search::new(SearchRequest { limit: 51, ..search("a") }), "limit is 51, it must be 1 to 50");
        refused(Search::new(SearchRequest { offset: 1_001, ..search("a") }), "offset is 1001, it must be 0 to 1000");
    }
}
