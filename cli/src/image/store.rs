//! What was worked out before: the digest of a binary that has not changed, and layers that are compressed already.
//! Everything in it can be made again: deleting the folder costs time, nothing else.

use std::fs::{self, File, FileTimes};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::digest::{CHUNK, Digest, Hashing};
use super::layer::{Compression, LayerSource};
use super::oci::{Blob, Contents, Descriptor};
use crate::error::at;

/// What has not been asked for during this time is deleted.
const MAX_UNUSED: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// A folder of compressed layers.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir).map_err(at("make", dir))?;
        let store = Self { dir: dir.to_owned() };
        store.forget_the_old(SystemTime::now());
        Ok(store)
    }

    /// A folder in it for what another program writes.
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The digest of the layer before it is compressed. A binary is read once, as long as its file stays as it is.
    pub(super) fn diff_id(&self, source: &LayerSource) -> io::Result<Digest> {
        let LayerSource::Binary(path) = source else { return source.diff_id() };
        let state = state(path)?;
        let note = self.dir.join(format!("{}.diff", Digest::of(state.as_bytes()).hex()));
        if let Some(known) = self.read_note(&note) {
            return Ok(known);
        }
        let digest = source.diff_id()?;
        if self::state(path)? == state {
            self.write_note(&note, &digest)?;
        }
        Ok(digest)
    }

    /// The compressed layer.
    pub(super) fn packed(&self, source: &LayerSource, diff_id: &Digest, compression: Compression) -> io::Result<Blob> {
        let file = self.dir.join(format!("{}.{}", diff_id.hex(), compression.ending()));
        let note = self.dir.join(format!("{}.{}.digest", diff_id.hex(), compression.ending()));
        let (digest, size) = match self.whole(&file, &note) {
            Some(known) => known,
            None => self.pack(source, diff_id, compression, &file, &note)?,
        };
        let descriptor = Descriptor::new(compression.media_type(), digest, size);
        Ok(Blob { descriptor, contents: Contents::File(file) })
    }

    /// Digest and size of a layer that is there and undamaged.
    fn whole(&self, file: &Path, note: &Path) -> Option<(Digest, u64)> {
        let expected = self.read_note(note)?;
        let found = Digest::of_reader(File::open(file).ok()?).ok()?;
        touch(file);
        (found.0 == expected).then_some(found)
    }

    fn pack(
        &self,
        source: &LayerSource,
        diff_id: &Digest,
        compression: Compression,
        file: &Path,
        note: &Path,
    ) -> io::Result<(Digest, u64)> {
        let draft = self.draft();
        let out = Hashing::new(BufWriter::with_capacity(
            CHUNK,
            File::create(draft.path()).map_err(at("write", draft.path()))?,
        ));
        let (encoder, found, _) = source.write(Hashing::new(compression.encoder(out)?))?.finish();
        let (mut out, digest, size) = encoder.finish()?.finish();
        out.flush()?;
        if found != *diff_id {
            return Err(io::Error::other("the binary changed while it was packed"));
        }
        // A layer without its note is packed again; a note without its layer would not be.
        fs::rename(draft.path(), file).map_err(at("write", file))?;
        self.write_note(note, &digest)?;
        Ok((digest, size))
    }

    fn read_note(&self, note: &Path) -> Option<Digest> {
        let known = Digest::parse(&fs::read_to_string(note).ok()?)?;
        touch(note);
        Some(known)
    }

    fn write_note(&self, note: &Path, digest: &Digest) -> io::Result<()> {
        let draft = self.draft();
        fs::write(draft.path(), digest.as_str())
            .and_then(|()| fs::rename(draft.path(), note))
            .map_err(at("write", note))
    }

    /// A file that no other process writes, deleted if it is not renamed.
    fn draft(&self) -> Draft {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Draft(self.dir.join(format!(".{}.{number}.draft", std::process::id())))
    }

    /// What cannot be deleted stays; it does no harm.
    fn forget_the_old(&self, now: SystemTime) {
        let is_old = |entry: &fs::DirEntry| {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            modified.is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age > MAX_UNUSED))
        };
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten().filter(is_old) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

struct Draft(PathBuf);

impl Draft {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Usually it has been renamed.
        let _ = fs::remove_file(&self.0);
    }
}

/// What changes when a file is written.
fn state(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path).map_err(at("read", path))?;
    let path = std::path::absolute(path)?;
    let (seconds, nanos) = (metadata.mtime(), metadata.mtime_nsec());
    Ok(format!("{}|{}|{}|{seconds}.{nanos:09}", path.display(), metadata.size(), metadata.ino()))
}

/// It was of use today. If that cannot be noted, it is made again one day.
fn touch(file: &Path) {
    if let Ok(file) = File::options().append(true).open(file) {
        let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stage {
        dir: tempfile::TempDir,
        store: Store,
        source: LayerSource,
    }

    impl Stage {
        fn new(binary: &[u8]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("quest-system");
            fs::write(&path, binary).unwrap();
            let store = Store::open(&dir.path().join("store")).unwrap();
            Self { dir, store, source: LayerSource::Binary(path) }
        }

        fn packed(&self) -> Blob {
            let diff_id = self.store.diff_id(&self.source).unwrap();
            self.store.packed(&self.source, &diff_id, Compression::Gzip).unwrap()
        }

        fn files(&self) -> Vec<PathBuf> {
            let mut files: Vec<_> =
                fs::read_dir(self.dir.path().join("store")).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.sort();
            files
        }
    }

    fn contents(blob: &Blob) -> Vec<u8> {
        let Contents::File(file) = &blob.contents else { panic!("a layer is a file") };
        fs::read(file).unwrap()
    }

    #[test]
    fn the_same_binary_in_another_place_is_the_same_layer() {
        let (one, other) = (Stage::new(&[3; 100_000]), Stage::new(&[3; 100_000]));
        assert_eq!(one.packed().descriptor, other.packed().descriptor);
        assert_eq!(Digest::of(&contents(&one.packed())), *one.packed().digest());
    }

    #[test]
    fn what_is_packed_is_not_packed_again() {
        let stage = Stage::new(&[3; 100_000]);
        let first = stage.packed();
        let LayerSource::Binary(path) = &stage.source else { unreachable!() };
        let times = fs::metadata(path).unwrap().modified().unwrap();
        // Another binary that looks like the one before: only who does not read it can miss that.
        fs::write(path, [4; 100_000]).unwrap();
        File::options().append(true).open(path).unwrap().set_modified(times).unwrap();
        assert_eq!(stage.packed(), first);
    }

    #[test]
    fn another_binary_is_another_layer() {
        let stage = Stage::new(&[3; 1000]);
        let first = stage.packed();
        let LayerSource::Binary(path) = &stage.source else { unreachable!() };
        fs::write(path, [4; 1001]).unwrap();
        assert_ne!(stage.packed().digest(), first.digest());
    }

    #[test]
    fn a_damaged_layer_is_packed_again() {
        let stage = Stage::new(&[3; 1000]);
        let first = stage.packed();
        let whole = contents(&first);
        let Contents::File(file) = &first.contents else { unreachable!() };
        for damage in [&whole[..whole.len() / 2], b"", b"something else"] {
            fs::write(file, damage).unwrap();
            assert_eq!(stage.packed(), first);
            assert_eq!(contents(&first), whole);
        }
    }

    #[test]
    fn a_binary_that_changes_meanwhile_is_no_layer_and_leaves_nothing() {
        let stage = Stage::new(&[3; 1000]);
        let wrong = Digest::of(b"what it was before");
        let error = stage.store.packed(&stage.source, &wrong, Compression::Zstd).unwrap_err();
        assert_eq!(error.to_string(), "the binary changed while it was packed");
        assert_eq!(stage.files(), Vec::<PathBuf>::new());
    }

    #[test]
    fn what_is_no_longer_used_is_deleted() {
        let stage = Stage::new(&[3; 1000]);
        stage.packed();
        assert_eq!(stage.files().len(), 3);
        stage.store.forget_the_old(SystemTime::now() + MAX_UNUSED - Duration::from_secs(60));
        assert_eq!(stage.files().len(), 3);
        stage.store.forget_the_old(SystemTime::now() + MAX_UNUSED + Duration::from_secs(60));
        assert_eq!(stage.files().len(), 0);
    }
}
