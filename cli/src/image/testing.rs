//! Images for tests, of files that resemble programs but are none.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::elf::tests::program;
use super::sbom::tests::bom;
use super::{BuiltImage, Compression, Layer, LayerSource, Packed, Store, config};
use crate::model::desired::Architecture;

pub(super) struct Workshop {
    dir: TempDir,
    pub(super) store: Store,
}

impl Workshop {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Self { dir, store }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A program that cannot be started, in a file of its own.
    pub(super) fn binary(&self, service: &str, contents: &[u8]) -> PathBuf {
        let path = self.dir.path().join("binaries").join(service);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, program(Architecture::X86_64, 1, contents)).unwrap();
        path
    }

    /// An image with a list of what it is made of.
    pub(super) fn image(&self, service: &str, contents: &[u8]) -> BuiltImage {
        let layer = |source: LayerSource| Layer::Source { diff_id: self.store.diff_id(&source).unwrap(), source };
        let layers = [layer(LayerSource::Base), layer(LayerSource::Binary(self.binary(service, contents)))];
        let config = config(service, None, Architecture::X86_64, [&layers[0], &layers[1]]);
        BuiltImage {
            service: service.to_owned(),
            config,
            layers: layers.to_vec(),
            compression: Compression::Zstd,
            bom: Some(Arc::new(bom())),
        }
    }

    pub(super) fn packed(&self, service: &str, contents: &[u8]) -> Packed {
        self.image(service, contents).pack_now(&self.store).unwrap()
    }
}

/// Bytes that no compression makes smaller.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..length).map(|_| random.u8(..)).collect()
}
