//! What a worker derives from all documents: their index, which a thread of its own keeps current, and how large they are.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use proto::knowledge::v1::Document;
use sdk::{Error, Follow, Update};
use tantivy::TantivyError;
use tokio::sync::watch;

use crate::document::size;
use crate::engine::{self, Engine, Writer};

/// Changes that become searchable together at most.
const BATCH: usize = 1_000;

/// The index of all documents. What it takes in becomes searchable a few milliseconds later.
pub(crate) struct Index {
    changes: Sender<Change>,
    /// How many changes were taken in.
    taken: u64,
    indexed: watch::Receiver<u64>,
    /// Bytes of each document.
    sizes: BTreeMap<String, usize>,
    total: usize,
}

enum Change {
    Put(Document),
    Remove(String),
}

impl Index {
    /// An empty index, and what searches in it.
    pub(crate) fn open() -> Result<(Self, Engine), Error> {
        let failed = |error: &dyn std::fmt::Display| Error::internal(format_args!("the index cannot be made: {error}"));
        let (writer, engine) = engine::open().map_err(|error| failed(&error))?;
        let ((changes, receiver), (progress, indexed)) = (channel(), watch::channel(0));
        // Committing takes milliseconds, during which the worker goes on serving.
        let indexing = move || {
            if let Err(error) = index(writer, &receiver, &progress) {
                tracing::error!(%error, "the index is broken, and this task cannot search any more: restart it");
            }
        };
        thread::Builder::new().name("index".to_owned()).spawn(indexing).map_err(|error| failed(&error))?;
        Ok((Self { changes, taken: 0, indexed, sizes: BTreeMap::new(), total: 0 }, engine))
    }

    /// How many documents there are, and bytes of their text, without one of them.
    pub(crate) fn load_without(&self, id: &str) -> (usize, usize) {
        match self.sizes.get(id) {
            Some(size) => (self.sizes.len() - 1, self.total - size),
            None => (self.sizes.len(), self.total),
        }
    }

    /// Fails when the index cannot follow the documents any more.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.indexed.has_changed().map(drop).map_err(|_| broken())
    }

    /// Ends when what was taken in until now is searchable.
    pub(crate) fn caught_up(&self) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (taken, mut indexed) = (self.taken, self.indexed.clone());
        async move {
            let reached = indexed.wait_for(|indexed| *indexed >= taken).await;
            reached.map(drop).map_err(|_| broken())
        }
    }
}

impl Follow<Document> for Index {
    fn apply(&mut self, update: Update<Document>) {
        self.total -= self.sizes.remove(&update.key).unwrap_or_default();
        let change = match update.record {
            Some(stored) => {
                let size = size(&stored.value);
                self.total += size;
                self.sizes.insert(update.key, size);
                Change::Put(stored.value)
            }
            None => Change::Remove(update.key),
        };
        self.taken += 1;
        // Without its thread, which has said why it ended, `caught_up` fails.
        let _ = self.changes.send(change);
    }
}

fn broken() -> Error {
    Error::internal("the index of this task is broken")
}

/// Takes changes in until there is no sender any more, as many at once as have come meanwhile.
fn index(mut writer: Writer, changes: &Receiver<Change>, progress: &watch::Sender<u64>) -> Result<(), TantivyError> {
    while let Ok(first) = changes.recv() {
        let batch = std::iter::once(first).chain(changes.try_iter()).take(BATCH);
        let mut count = 0;
        for change in batch {
            match change {
                Change::Put(document) => writer.put(&document)?,
                Change::Remove(id) => writer.remove(&id),
            }
            count += 1;
        }
        writer.commit()?;
        progress.send_modify(|indexed| *indexed += count);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sdk::testing::written;

    use super::*;
    use crate::document::Search;
    use crate::document::tests::{document, search};

    #[tokio::test]
    async fn an_index_whose_thread_has_ended_is_broken() {
        let (mut index, _engine) = Index::open().unwrap();
        index.check().unwrap();
        // The thread ends when there is no sender any more.
        index.changes = channel().0;
        while index.check().is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(index.caught_up().await.is_ok(), "nothing was taken in");
        index.apply(written("a", 1, document("a", "t", "word")));
        assert_eq!(index.caught_up().await.unwrap_err().message(), "the index of this task is broken");
    }

    #[tokio::test]
    async fn what_was_taken_in_is_searchable_when_it_has_caught_up() {
        let (mut index, engine) = Index::open().unwrap();
        index.caught_up().await.unwrap();
        let search = Search::new(search("word")).unwrap();
        for revision in 1..=300 {
            let id = (revision % 100).to_string();
            index.apply(written(&id, revision, document(&id, "t", "word")));
        }
        index.apply(Update { key: "7".to_owned(), revision: 301, record: None });
        index.caught_up().await.unwrap();
        assert_eq!(engine.search(&search).unwrap().total, 99);
        assert_eq!((index.load_without("none"), index.load_without("8")), ((99, 495), (98, 490)));
    }
}
