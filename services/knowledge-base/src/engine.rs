//! The full-text index: documents are added and removed, and become searchable together.

use proto::knowledge::v1::{Document, Hit, Range};
use sdk::Error;
use tantivy::collector::{Count, TopDocs};
use tantivy::query::{BooleanQuery, ConstScoreQuery, Occur, Query, QueryParser, TermQuery};
use tantivy::schema::{
    Field, INDEXED, IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing, TextOptions, Value as _,
};
use tantivy::snippet::SnippetGenerator;
use tantivy::tokenizer::{AsciiFoldingFilter, LowerCaser, RemoveLongFilter, SimpleTokenizer, TextAnalyzer};
use tantivy::{Index, IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError, Term};

use crate::document::{Search, filters};

/// How the words of a text are found.
const WORDS: &str = "words";
/// Bytes of a word; longer ones are not found.
const MAX_WORD: usize = 64;
/// What the index takes to write, the least that it accepts.
const WRITER_BYTES: usize = 15_000_000;
/// How much more a word in the title counts.
const TITLE_BOOST: f32 = 2.0;
/// Characters of a snippet.
const SNIPPET: usize = 200;

#[derive(Clone, Copy, Debug)]
struct Fields {
    id: Field,
    revision: Field,
    title: Field,
    body: Field,
    filter: Field,
}

/// Writes the index.
pub(crate) struct Writer {
    writer: IndexWriter,
    reader: IndexReader,
    fields: Fields,
}

/// Searches the index. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Engine {
    index: Index,
    reader: IndexReader,
    fields: Fields,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) hits: Vec<Hit>,
    pub(crate) total: u32,
}

/// An empty index.
pub(crate) fn open() -> Result<(Writer, Engine), TantivyError> {
    let mut schema = Schema::builder();
    let indexing = TextFieldIndexing::default().set_tokenizer(WORDS);
    let words = TextOptions::default()
        .set_indexing_options(indexing.set_index_option(IndexRecordOption::WithFreqsAndPositions))
        .set_stored();
    let fields = Fields {
        id: schema.add_text_field("id", STRING | STORED),
        revision: schema.add_u64_field("revision", INDEXED | STORED),
        title: schema.add_text_field("title", words.clone()),
        body: schema.add_text_field("body", words),
        filter: schema.add_text_field("filter", STRING),
    };
    let index = Index::create_in_ram(schema.build());
    let analyzer = TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(MAX_WORD))
        .filter(LowerCaser)
        .filter(AsciiFoldingFilter)
        .build();
    index.tokenizers().register(WORDS, analyzer);
    let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
    let writer = index.writer_with_num_threads(1, WRITER_BYTES)?;
    Ok((Writer { writer, reader: reader.clone(), fields }, Engine { index, reader, fields }))
}

impl Writer {
    /// Puts a document in place of what there was of it.
    pub(crate) fn put(&self, document: &Document) -> Result<(), TantivyError> {
        self.remove(&document.id);
        let Fields { id, revision, title, body, filter } = self.fields;
        let mut added = TantivyDocument::default();
        added.add_text(id, &document.id);
        added.add_u64(revision, document.revision);
        added.add_text(title, &document.title);
        added.add_text(body, &document.body);
        for text in filters(&document.tags, &document.attributes) {
            added.add_text(filter, text);
        }
        self.writer.add_document(added).map(drop)
    }

    /// Removes a document.
    pub(crate) fn remove(&self, id: &str) {
        self.writer.delete_term(Term::from_field_text(self.fields.id, id));
    }

    /// Makes everything searchable that was put and removed.
    pub(crate) fn commit(&mut self) -> Result<(), TantivyError> {
        self.writer.commit()?;
        self.reader.reload()
    }
}

impl Engine {
    /// The documents that fit best. Takes a millisecond or more: not for a thread that serves.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if the query cannot be parsed, with how to write one.
    pub(crate) fn search(&self, search: &Search) -> Result<Found, Error> {
        let Fields { title, body, filter, .. } = self.fields;
        let mut parser = QueryParser::for_index(&self.index, vec![title, body]);
        parser.set_field_boost(title, TITLE_BOOST);
        let words = parser.parse_query(&search.query).map_err(|error| {
            Error::invalid(format_args!("query is not valid: {error}; put texts with special characters in quotes"))
        })?;
        let filtered = search.filters.iter().map(|text| {
            let term = TermQuery::new(Term::from_field_text(filter, text), IndexRecordOption::Basic);
            let query: Box<dyn Query> = Box::new(ConstScoreQuery::new(Box::new(term), 0.0));
            (Occur::Must, query)
        });
        let query = BooleanQuery::new([(Occur::Must, words.box_clone())].into_iter().chain(filtered).collect());
        let searcher = self.reader.searcher();
        let best = TopDocs::with_limit(search.limit).and_offset(search.offset).order_by_score();
        let (best, total) = searcher.search(&query, &(best, Count)).map_err(failed)?;
        let mut snippets = SnippetGenerator::create(&searcher, &*words, body).map_err(failed)?;
        snippets.set_max_num_chars(SNIPPET);
        let hits = best.into_iter().map(|(score, address)| {
            let document = searcher.doc(address).map_err(failed)?;
            Ok(self.hit(&document, score, &snippets))
        });
        Ok(Found { hits: hits.collect::<Result<_, Error>>()?, total: u32::try_from(total).unwrap_or(u32::MAX) })
    }

    fn hit(&self, document: &TantivyDocument, score: f32, snippets: &SnippetGenerator) -> Hit {
        let text = |field| document.get_first(field).and_then(|value| value.as_str()).unwrap_or_default();
        let body = text(self.fields.body);
        let snippet = snippets.snippet(body);
        let position = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        let range = |range: &std::ops::Range<usize>| Range { start: position(range.start), end: position(range.end) };
        let highlights: Vec<Range> = snippet.highlighted().iter().map(range).collect();
        let fragment = match highlights.is_empty() {
            true => body.char_indices().nth(SNIPPET).map_or(body, |(end, _)| &body[..end]),
            false => snippet.fragment(),
        };
        Hit {
            document_id: text(self.fields.id).to_owned(),
            title: text(self.fields.title).to_owned(),
            score,
            snippet: fragment.to_owned(),
            highlights,
            revision: document.get_first(self.fields.revision).and_then(|value| value.as_u64()).unwrap_or_default(),
        }
    }
}

fn failed(error: TantivyError) -> Error {
    Error::internal(format_args!("the index failed: {error}"))
}

#[cfg(test)]
mod tests {
    use proto::knowledge::v1::SearchRequest;

    use super::*;
    use crate::document::tests::{document, search};

    fn engine(documents: &[Document]) -> (Writer, Engine) {
        let (mut writer, engine) = open().unwrap();
        documents.iter().for_each(|document| writer.put(document).unwrap());
        writer.commit().unwrap();
        (writer, engine)
    }

    fn documents() -> Vec<Document> {
        let tagged = |tags: &[&str], document: Document| Document {
            tags: tags.iter().copied().map(str::to_owned).collect(),
            attributes: [("region".to_owned(), "north".to_owned())].into(),
            ..document
        };
        vec![
            tagged(&["beast"], document("dragon", "The dragon", "An old beast that guards gold in the mountain.")),
            tagged(&["place", "beast"], document("mountain", "The mountain", "High, cold, and home of a dragon.")),
            document("cafe", "Café", "Serves dragon tea. Naïve travellers sit here; a dragon would not."),
        ]
    }

    fn found(engine: &Engine, request: SearchRequest) -> (Vec<String>, u32) {
        let found = engine.search(&Search::new(request).unwrap()).unwrap();
        (found.hits.into_iter().map(|hit| hit.document_id).collect(), found.total)
    }

    #[track_caller]
    fn check(request: SearchRequest, expected: &[&str]) {
        let (_writer, engine) = engine(&documents());
        let (mut ids, total) = found(&engine, request.clone());
        assert_eq!(total as usize, expected.len(), "{request:?}: {ids:?}");
        // The first is the best; the order of the others is that of their scores, which says less.
        assert_eq!(ids.first().map(String::as_str), expected.first().copied(), "{request:?}");
        ids.sort();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(ids, expected, "{request:?}");
    }

    #[test]
    fn documents_are_found_by_their_words_the_title_first() {
        check(search("dragon"), &["dragon", "mountain", "cafe"]);
        check(search("MOUNTAIN"), &["mountain", "dragon"]);
        check(search("cafe"), &["cafe"]);
        check(search("naïve"), &["cafe"]);
        check(search("\"dragon tea\""), &["cafe"]);
        check(search("+dragon -tea"), &["dragon", "mountain"]);
        check(search("body:gold"), &["dragon"]);
        check(search("unicorn"), &[]);
    }

    #[test]
    fn filters_narrow_what_is_found() {
        let tags = |tags: &[&str]| tags.iter().copied().map(str::to_owned).collect::<Vec<_>>();
        check(SearchRequest { tags: tags(&["beast"]), ..search("dragon") }, &["dragon", "mountain"]);
        check(SearchRequest { tags: tags(&["beast", "place"]), ..search("dragon") }, &["mountain"]);
        check(SearchRequest { tags: tags(&["beas"]), ..search("dragon") }, &[]);
        let attributes = [("region".to_owned(), "north".to_owned())].into();
        check(SearchRequest { attributes, ..search("dragon tea") }, &["dragon", "mountain"]);
    }

    #[test]
    fn a_snippet_shows_where_the_words_are() {
        let long = format!("{}the dragon sleeps. {}", "Nothing is here. ".repeat(40), "Nothing is there. ".repeat(40));
        let (_writer, engine) = engine(&[document("a", "Title word", &long)]);
        let hit = |query: &str| engine.search(&Search::new(search(query)).unwrap()).unwrap().hits.remove(0);
        let Hit { snippet, highlights, .. } = hit("dragon");
        let [Range { start, end }] = highlights[..] else { panic!("{highlights:?}") };
        assert_eq!(&snippet[start as usize..end as usize], "dragon");
        assert!(snippet.chars().count() <= SNIPPET + MAX_WORD, "{snippet}");
        let Hit { snippet, highlights, .. } = hit("title:word");
        assert!(highlights.is_empty() && snippet.chars().count() == SNIPPET && long.starts_with(&snippet));
    }

    #[test]
    fn what_is_changed_or_removed_is_found_as_it_is_then() {
        let (mut writer, engine) = engine(&documents());
        writer.put(&Document { revision: 9, ..document("dragon", "A fish", "Swims.") }).unwrap();
        writer.remove("cafe");
        assert_eq!(found(&engine, search("dragon")).1, 3, "nothing changes before it is committed");
        writer.commit().unwrap();
        assert_eq!(found(&engine, search("dragon")), (vec!["mountain".to_owned()], 1));
        let fish = engine.search(&Search::new(search("fish")).unwrap()).unwrap();
        assert_eq!((&*fish.hits[0].document_id, fish.hits[0].revision), ("dragon", 9));
    }

    #[test]
    fn a_query_that_cannot_be_parsed_is_refused_with_what_helps() {
        let (_writer, engine) = engine(&documents());
        for query in ["dragon AND", "other:dragon", "(dragon"] {
            let error = engine.search(&Search::new(search(query)).unwrap()).unwrap_err();
            assert!(error.message().starts_with("query is not valid: "), "{query}: {error}");
            assert!(error.message().ends_with("put texts with special characters in quotes"), "{error}");
        }
    }

    #[test]
    fn pages_go_on_where_the_one_before_ended() {
        let documents: Vec<Document> =
            (1..=5).map(|number| document(&number.to_string(), "t", &"word ".repeat(number))).collect();
        let (_writer, engine) = engine(&documents);
        let page = |offset| found(&engine, SearchRequest { limit: 2, offset, ..search("word") });
        let mut ids: Vec<String> = [page(0), page(2), page(4), page(6)].into_iter().flat_map(|page| page.0).collect();
        ids.sort();
        assert_eq!((ids.join(""), page(0).1), ("12345".to_owned(), 5));
    }
}
