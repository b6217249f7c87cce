//! Images as files: an OCI image layout, which skopeo, podman and buildah read, and beside it what `docker load` reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::Packed;
use super::digest::Digest;
use super::oci::{Blob, Contents, Descriptor, Index, REF_NAME, json as written};
use crate::error::Hinted;

const LAYOUT: &str = "oci-layout";
const BLOBS: &str = "blobs/sha256";

/// Makes the folder hold these images and no others. Each is found in it under its service's name.
///
/// # Errors
/// A folder that holds something else, or cannot be written.
pub(crate) fn write(folder: &Path, images: &[Packed]) -> anyhow::Result<()> {
    refuse_foreign(folder)?;
    fill(folder, images).with_context(|| format!("failed to write images into `{}`", folder.display()))
}

fn refuse_foreign(folder: &Path) -> anyhow::Result<()> {
    let is_empty = fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    if is_empty || folder.join(LAYOUT).is_file() {
        return Ok(());
    }
    let message = format!("`{}` holds something else than images", folder.display());
    Err(Hinted::new(message, "name a folder that is empty or not there").into())
}

fn fill(folder: &Path, images: &[Packed]) -> io::Result<()> {
    let blobs = folder.join(BLOBS);
    fs::create_dir_all(&blobs)?;
    // First what says that this is a layout: whatever happens next, the folder can be written again.
    fs::write(folder.join(LAYOUT), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let mut written_blobs = BTreeSet::new();
    for blob in images.iter().flat_map(all_blobs) {
        if written_blobs.insert(blob.digest().hex()) {
            put(&blobs, blob)?;
        }
    }
    fs::write(folder.join("index.json"), written(&index(images)))?;
    fs::write(folder.join("manifest.json"), docker(images))?;
    for entry in fs::read_dir(&blobs)?.flatten() {
        if !written_blobs.contains(&*entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn all_blobs(image: &Packed) -> impl Iterator<Item = &Blob> {
    let attached = image.bom.iter().flat_map(|bom| bom.blobs.iter().chain([&bom.manifest]));
    image.blobs.iter().chain([&image.manifest]).chain(attached)
}

fn put(blobs: &Path, blob: &Blob) -> io::Result<()> {
    let file = blobs.join(blob.digest().hex());
    let is_there = fs::File::open(&file).and_then(Digest::of_reader).is_ok_and(|(digest, _)| digest == *blob.digest());
    match &blob.contents {
        _ if is_there => Ok(()),
        Contents::Bytes(bytes) => fs::write(file, bytes),
        Contents::File(source) => fs::copy(source, file).map(drop),
    }
}

fn index(images: &[Packed]) -> Index {
    let mut manifests = Vec::new();
    for image in images {
        let annotations = [
            (REF_NAME.to_owned(), image.service.clone()),
            // What containerd calls it.
            ("io.containerd.image.name".to_owned(), format!("docker.io/library/{}:{}", image.service, image.tag)),
        ];
        let annotations = BTreeMap::from(annotations);
        manifests.push(Descriptor { annotations, ..image.manifest.descriptor.clone() });
        manifests.extend(image.bom.as_ref().map(super::Referrer::descriptor));
    }
    Index::new(manifests)
}

/// What `docker load` reads in the folder's archive.
fn docker(images: &[Packed]) -> Vec<u8> {
    let path = |blob: &Blob| format!("{BLOBS}/{}", blob.digest().hex());
    let entries = images.iter().map(|image| {
        json!({
            "Config": path(&image.blobs[0]),
            "RepoTags": [format!("{}:{}", image.service, image.tag)],
            "Layers": image.blobs[1..].iter().map(path).collect::<Vec<_>>(),
        })
    });
    json!(entries.collect::<Vec<_>>()).to_string().into_bytes()
}
