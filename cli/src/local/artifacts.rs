//! Stored binaries, addressed by the digest of their content. Tasks run the stored copy, which a build never changes and a rollback finds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::dir::{Dir, create_private, hex, write_atomically};
use crate::error::{Hinted, at};
use crate::model::task;

const SCHEME: &str = "sha256:";

/// A stored binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The digest of its content, `sha256:…`.
    pub digest: String,
    /// The version of its package and the first digits of the digest: `0.1.0+1f2e3d4c5b6a`.
    pub version: String,
    /// The stored copy.
    pub path: PathBuf,
}

/// The stored binaries of one environment.
#[derive(Debug)]
pub struct Artifacts {
    dir: PathBuf,
    index: BTreeMap<PathBuf, IndexEntry>,
}

/// The digest of a file, valid as long as the file's metadata is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct IndexEntry {
    size: u64,
    modified_seconds: i64,
    modified_nanos: i64,
    inode: u64,
    digest: String,
}

impl Artifacts {
    /// Opens the artifacts of a state directory, and creates it if it is missing.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let dir = Dir::new(state_dir)?.artifacts();
        create_private(&dir).map_err(|error| {
            let message = format!("failed to make the folder `{}`", dir.display());
            let hint = "if it is no folder, remove it: binaries are copied again";
            io::Error::new(error.kind(), Hinted::new(message, hint).because(error))
        })?;
        Ok(Self::in_dir(dir))
    }

    /// The same to look only: nothing is made.
    pub fn preview(state_dir: &Path) -> io::Result<Self> {
        Ok(Self::in_dir(Dir::new(state_dir)?.artifacts()))
    }

    fn in_dir(dir: PathBuf) -> Self {
        // The index is a cache: without it the digests are computed again.
        let index = fs::read(dir.join("index.json")).ok().and_then(|index| serde_json::from_slice(&index).ok());
        Self { dir, index: index.unwrap_or_default() }
    }

    /// What [`Artifacts::intern`] would store; `None` if there is no such file.
    pub fn look(&self, binary: &Path, package_version: &str) -> io::Result<Option<Artifact>> {
        let metadata = match fs::metadata(binary) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata.map_err(at("read", binary))?,
        };
        let known = self.index.get(&std::path::absolute(binary)?).filter(|entry| entry.describes(&metadata));
        let digest = match known {
            Some(entry) => entry.digest.clone(),
            None => digest_of(binary).map_err(at("read", binary))?,
        };
        Ok(Some(Artifact {
            version: task::version(package_version, &digest),
            path: self.path(&digest, binary)?,
            digest: format!("{SCHEME}{digest}"),
        }))
    }

    /// Stores a copy of a binary, unless its content is stored already.
    pub fn intern(&mut self, binary: &Path, package_version: &str) -> io::Result<Artifact> {
        let name = binary.file_name().ok_or_else(|| io::Error::other("a binary needs a name"))?;
        let metadata = fs::metadata(binary).map_err(at("read", binary))?;
        let key = std::path::absolute(binary)?;
        let cached = self.index.get(&key).filter(|entry| entry.describes(&metadata)).map(|entry| entry.digest.clone());
        let stored = |digest: &str| self.dir.join(digest).join(name);
        let complete = |path: &Path| fs::metadata(path).is_ok_and(|copy| copy.len() == metadata.len());
        let digest = match cached.filter(|digest| complete(&stored(digest))) {
            Some(digest) => digest,
            None => {
                let digest = self.copy(binary)?;
                self.index.insert(key, IndexEntry::new(&metadata, digest.clone()));
                write_atomically(&self.dir.join("index.json"), &serde_json::to_vec_pretty(&self.index)?)?;
                digest
            }
        };
        Ok(Artifact {
            version: task::version(package_version, &digest),
            path: self.path(&digest, binary)?,
            digest: format!("{SCHEME}{digest}"),
        })
    }

    /// The stored copy with this digest, see [`Artifact::path`].
    pub fn find(&self, digest: &str) -> Option<PathBuf> {
        let dir = self.dir.join(digest.strip_prefix(SCHEME)?);
        fs::read_dir(dir).ok()?.find_map(|entry| Some(entry.ok()?.path()))
    }

    /// Removes all artifacts but those with these digests.
    pub fn prune(&mut self, keep: &BTreeSet<String>) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir).map_err(at("read", &self.dir))? {
            let entry = entry.map_err(at("read", &self.dir))?;
            let digest = format!("{SCHEME}{}", entry.file_name().display());
            let path = entry.path();
            if entry.file_type().map_err(at("read", &path))?.is_dir() && !keep.contains(&digest) {
                fs::remove_dir_all(&path).map_err(at("remove", &path))?;
            }
        }
        self.index.retain(|_, entry| keep.contains(&format!("{SCHEME}{}", entry.digest)));
        write_atomically(&self.dir.join("index.json"), &serde_json::to_vec_pretty(&self.index)?)
    }

    fn path(&self, digest: &str, binary: &Path) -> io::Result<PathBuf> {
        let name = binary.file_name().ok_or_else(|| io::Error::other("a binary needs a name"))?;
        Ok(self.dir.join(digest).join(name))
    }

    /// Returns the digest of the copy, because the original may change meanwhile.
    fn copy(&self, binary: &Path) -> io::Result<String> {
        let draft = tempfile_in(&self.dir);
        let copied = fs::copy(binary, &draft).and_then(|_| digest_of(&draft));
        let digest = copied.map_err(at("copy it to", &draft)).inspect_err(|_| {
            let _ = fs::remove_file(&draft);
        })?;
        fs::set_permissions(&draft, Permissions::from_mode(0o755)).map_err(at("change", &draft))?;
        let path = self.path(&digest, binary)?;
        create_private(&self.dir.join(&digest))?;
        fs::rename(&draft, &path).map_err(at("write", &path))?;
        Ok(digest)
    }
}

impl IndexEntry {
    fn new(metadata: &fs::Metadata, digest: String) -> Self {
        Self {
            size: metadata.len(),
            modified_seconds: metadata.mtime(),
            modified_nanos: metadata.mtime_nsec(),
            inode: metadata.ino(),
            digest,
        }
    }

    fn describes(&self, metadata: &fs::Metadata) -> bool {
        *self == Self::new(metadata, self.digest.clone())
    }
}

fn tempfile_in(dir: &Path) -> PathBuf {
    dir.join(format!(".draft-{}-{:08x}", std::process::id(), fastrand::u32(..)))
}

fn digest_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(artifacts: &[&Artifact]) -> BTreeSet<String> {
        artifacts.iter().map(|artifact| artifact.digest.clone()).collect()
    }

    #[test]
    fn a_copy_keeps_its_content_when_the_original_changes() {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("quest");
        fs::write(&binary, "one").unwrap();
        let mut artifacts = Artifacts::open(&dir.path().join("state")).unwrap();
        let one = artifacts.intern(&binary, "0.1.0").unwrap();
        assert_eq!(one.digest, "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed");
        assert_eq!(one.version, "0.1.0+7692c3ad3540");
        assert_eq!(fs::metadata(&one.path).unwrap().permissions().mode() & 0o777, 0o755);

        fs::write(&binary, "other").unwrap();
        let other = artifacts.intern(&binary, "0.1.0").unwrap();
        assert_ne!(one.digest, other.digest);
        assert_eq!(fs::read_to_string(&one.path).unwrap(), "one");
        assert_eq!(artifacts.find(&one.digest), Some(one.path));
    }

    #[test]
    fn an_unchanged_binary_is_not_copied_again() {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("quest");
        fs::write(&binary, "one").unwrap();
        let first = Artifacts::open(dir.path()).unwrap().intern(&binary, "0.1.0").unwrap();
        let copied = fs::metadata(&first.path).unwrap().ino();
        let again = Artifacts::open(dir.path()).unwrap().intern(&binary, "0.1.0").unwrap();
        assert_eq!(first, again);
        assert_eq!(fs::metadata(&first.path).unwrap().ino(), copied);
    }

    #[test]
    fn a_missing_copy_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("quest");
        fs::write(&binary, "one").unwrap();
        let mut artifacts = Artifacts::open(dir.path()).unwrap();
        let first = artifacts.intern(&binary, "0.1.0").unwrap();
        fs::remove_file(&first.path).unwrap();
        let again = artifacts.intern(&binary, "0.1.0").unwrap();
        assert_eq!(fs::read_to_string(&again.path).unwrap(), "one");
    }

    #[test]
    fn pruning_leaves_the_given_digests() {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("quest");
        let mut artifacts = Artifacts::open(dir.path()).unwrap();
        fs::write(&binary, "one").unwrap();
        let one = artifacts.intern(&binary, "0.1.0").unwrap();
        fs::write(&binary, "other").unwrap();
        let other = artifacts.intern(&binary, "0.1.0").unwrap();
        artifacts.prune(&keep(&[&other])).unwrap();
        assert!(!one.path.exists());
        assert!(other.path.exists());
    }
}
