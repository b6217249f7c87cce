//! Keeps documents, and searches in them by BM25. The documents are records; each worker keeps an index of all of them, which it makes
//! when it starts, before it is ready.

mod document;
mod engine;
mod index;

use proto::knowledge::v1::{
    DeleteRequest, DeleteResponse, Document, GetRequest, GetResponse, KnowledgeBase, KnowledgeBaseServer,
    SearchRequest, SearchResponse, UpsertRequest, UpsertResponse,
};
use sdk::{Error, Fleet, Followed, Next, Operation, Records, Stored, check_revision};

use crate::document::Search;
use crate::engine::Engine;
use crate::index::Index;

const MAX_DOCUMENTS: usize = 5_000;
/// Bytes of all titles and bodies; the index takes about three times as much.
const MAX_TEXT: usize = 64 << 20;

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(KnowledgeBaseServer).run()
}

struct Service {
    fleet: Fleet,
    documents: Records<Document>,
    index: Followed<Index>,
    engine: Engine,
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let documents = fleet.records("documents").await?;
        let (index, engine) = Index::open()?;
        let index = documents.follow(index).await?;
        let service = Self { fleet, documents, index, engine };
        service.caught_up().await?;
        Ok(service)
    }

    /// Waits until the index has what this worker has read and written.
    async fn caught_up(&self) -> Result<(), Error> {
        let caught_up = self.index.read().caught_up();
        caught_up.await
    }

    /// Rejects a document for which there is no room.
    fn check_room(&self, document: &Document) -> Result<(), Error> {
        let (documents, bytes) = self.index.read().load_without(&document.id);
        if documents >= MAX_DOCUMENTS {
            return Err(Error::failed_precondition(format_args!("there are {documents} documents, delete some")));
        }
        if bytes + document::size(document) > MAX_TEXT {
            let message = format_args!("the documents have {bytes} bytes of text, at most {MAX_TEXT} are allowed");
            return Err(Error::failed_precondition(message));
        }
        Ok(())
    }
}

impl KnowledgeBase for Service {
    async fn upsert(&self, request: UpsertRequest) -> Result<UpsertResponse, Error> {
        let operation = Operation::of(&request);
        let document = document::checked(request.document, self.fleet.clock().now())?;
        let key = document::key(&document.id)?;
        let put = |current: Option<&Stored<Document>>| {
            check_revision(&key, current.map_or(0, |current| current.revision), request.expected_revision)?;
            self.check_room(&document)?;
            Ok(match current {
                Some(current) if document::is_same(&current.value, &document) => Next::write(current.value.clone()),
                _ => Next::write(document.clone()),
            })
        };
        let put = self.documents.change(&key, &operation, put).await?;
        self.index.wrote(put.clone().into());
        self.caught_up().await?;
        Ok(put.value.into())
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        Ok(self.documents.get(&document::key(&request.document_id)?).await?.value.into())
    }

    async fn delete(&self, request: DeleteRequest) -> Result<DeleteResponse, Error> {
        let key = document::key(&request.document_id)?;
        let operation = Operation::of(&request);
        if let Some(deleted) = self.documents.change_existing(&key, &operation, |_| Ok(Next::delete())).await? {
            self.index.deleted(&deleted);
            self.caught_up().await?;
        }
        Ok(DeleteResponse::default())
    }

    async fn search(&self, request: SearchRequest) -> Result<SearchResponse, Error> {
        let (search, engine) = (Search::new(request)?, self.engine.clone());
        self.index.read().check()?;
        let revision = self.index.revision();
        // Scoring, and looking for the best part of each text, takes longer than a worker may be kept from its other requests.
        let searched = tokio::task::spawn_blocking(move || engine.search(&search)).await;
        let found = searched.map_err(|error| Error::internal(format_args!("the search failed: {error}")))??;
        Ok(SearchResponse { error: None, hits: found.hits, total: found.total, revision })
    }
}

#[cfg(test)]
mod tests;
