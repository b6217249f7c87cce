//! The two layers of an image: what all services have in common, and the service's binary. Sorted, without times, owned
//! by root: the same contents are the same bytes, on any machine at any time.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Write};
use std::path::PathBuf;

use clap::ValueEnum;
use data_encoding::BASE64;
use flate2::write::GzEncoder;
use flate2::{Compression as Level, GzBuilder};
use tar::{Builder, EntryType, Header};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use super::digest::{CHUNK, Digest, Hashing};
use super::oci::{LAYER_GZIP, LAYER_ZSTD};
use crate::error::at;
use crate::model::task::USER;

/// Where the certificates of certificate authorities are.
pub(super) const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
/// Where the binary is.
pub(super) const BINARY: &str = "app";

/// Chosen for gzip: smaller gains a percent and costs twice the time.
const GZIP_LEVEL: u32 = 6;
/// Chosen for zstd: a tenth of gzip's time, and smaller.
const ZSTD_LEVEL: i32 = 3;

/// What a layer is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LayerSource {
    /// Certificates, users, `/tmp`.
    Base,
    /// A program.
    Binary(PathBuf),
}

impl LayerSource {
    /// Writes the layer, not compressed.
    pub(super) fn write<W: Write>(&self, out: W) -> io::Result<W> {
        let mut archive = Builder::new(out);
        match self {
            Self::Base => base(&mut archive)?,
            Self::Binary(path) => {
                let file = File::open(path).map_err(at("open", path))?;
                let size = file.metadata()?.len();
                let contents = BufReader::with_capacity(CHUNK, file.take(size));
                append(&mut archive, BINARY, EntryType::Regular, 0o755, size, contents)?;
            }
        }
        archive.into_inner()
    }

    /// The digest of the layer before it is compressed.
    pub(super) fn diff_id(&self) -> io::Result<Digest> {
        let (_, digest, _) = self.write(Hashing::new(io::sink()))?.finish();
        Ok(digest)
    }
}

fn base<W: Write>(archive: &mut Builder<W>) -> io::Result<()> {
    let certificates = certificates();
    let group = format!("root:x:0:\nnonroot:x:{USER}:\n");
    let passwd = format!("root:x:0:0:root:/:/nologin\nnonroot:x:{USER}:{USER}:nonroot:/:/nologin\n");
    let mut folder = |name: &str, mode| append(archive, name, EntryType::Directory, mode, 0, io::empty());
    folder("etc/", 0o755)?;
    let mut file =
        |name: &str, text: &str| append(archive, name, EntryType::Regular, 0o644, text.len() as u64, text.as_bytes());
    file("etc/group", &group)?;
    file("etc/passwd", &passwd)?;
    let mut folder = |name: &str, mode| append(archive, name, EntryType::Directory, mode, 0, io::empty());
    folder("etc/ssl/", 0o755)?;
    folder("etc/ssl/certs/", 0o755)?;
    append(archive, CERTIFICATES, EntryType::Regular, 0o644, certificates.len() as u64, certificates.as_bytes())?;
    append(archive, "tmp/", EntryType::Directory, 0o1777, 0, io::empty())
}

fn append<W: Write>(
    archive: &mut Builder<W>,
    name: &str,
    kind: EntryType,
    mode: u32,
    size: u64,
    contents: impl io::Read,
) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    archive.append_data(&mut header, name, contents)
}

/// Mozilla's list, as text.
fn certificates() -> String {
    let mut text = String::new();
    for certificate in TLS_SERVER_ROOT_CERTS {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = BASE64.encode(certificate);
        for (index, letter) in encoded.chars().enumerate() {
            if index > 0 && index % 64 == 0 {
                text.push('\n');
            }
            text.push(letter);
        }
        text.push_str("\n-----END CERTIFICATE-----\n");
    }
    text
}

/// How layers are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// Read by everything.
    #[default]
    Gzip,
    /// Faster and smaller; Fargate and current engines read it.
    Zstd,
}

impl Compression {
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => LAYER_GZIP,
            Self::Zstd => LAYER_ZSTD,
        }
    }

    /// Ending of a file that is compressed so.
    pub(super) fn ending(self) -> &'static str {
        match self {
            Self::Gzip => "gz",
            Self::Zstd => "zst",
        }
    }

    pub(super) fn encoder<W: Write>(self, out: W) -> io::Result<Encoder<W>> {
        Ok(match self {
            // Neither a time nor the system on which it was packed.
            Self::Gzip => {
                Encoder::Gzip(GzBuilder::new().mtime(0).operating_system(255).write(out, Level::new(GZIP_LEVEL)))
            }
            Self::Zstd => Encoder::Zstd(zstd::Encoder::new(out, ZSTD_LEVEL)?),
        })
    }
}

/// Compresses what is written into it.
pub(super) enum Encoder<W: Write> {
    Gzip(GzEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tar::Archive;

    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Entry {
        path: String,
        mode: u32,
        owner: (u64, u64),
        mtime: u64,
        size: u64,
    }

    fn entries(source: &LayerSource) -> Vec<Entry> {
        let layer = source.write(Vec::new()).unwrap();
        let mut archive = Archive::new(layer.as_slice());
        let entry = |entry: tar::Entry<'_, &[u8]>| {
            let header = entry.header();
            Entry {
                path: entry.path().unwrap().display().to_string(),
                mode: header.mode().unwrap(),
                owner: (header.uid().unwrap(), header.gid().unwrap()),
                mtime: header.mtime().unwrap(),
                size: header.size().unwrap(),
            }
        };
        archive.entries().unwrap().map(|found| entry(found.unwrap())).collect()
    }

    #[test]
    fn the_base_layer_is_sorted_owned_by_root_and_without_times() {
        let entries = entries(&LayerSource::Base);
        let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
        let expected = ["etc/", "etc/group", "etc/passwd", "etc/ssl/", "etc/ssl/certs/", CERTIFICATES, "tmp/"];
        assert_eq!(paths, expected);
        assert!(entries.iter().all(|entry| entry.owner == (0, 0) && entry.mtime == 0), "{entries:#?}");
        assert_eq!(entries.last().unwrap().mode, 0o1777);
        assert!(entries.iter().filter(|entry| entry.path.ends_with("certs/")).all(|entry| entry.mode == 0o755));
    }

    #[test]
    fn the_binary_is_app_and_may_be_run_by_everybody_whatever_its_file_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("quest-system");
        std::fs::write(&path, [1; 1000]).unwrap();
        let found = entries(&LayerSource::Binary(path));
        let expected = Entry { path: "app".to_owned(), mode: 0o755, owner: (0, 0), mtime: 0, size: 1000 };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn the_certificates_are_readable_by_what_reads_pem() {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject as _;

        let text = certificates();
        let read: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().unwrap();
        assert!(read.len() > 100, "{}", read.len());
        assert_eq!(read, TLS_SERVER_ROOT_CERTS);
        assert!(text.lines().all(|line| line.len() <= 64), "lines are as long as PEM allows");
    }

    #[test]
    fn what_is_compressed_is_what_comes_out() {
        let plain = LayerSource::Base.write(Vec::new()).unwrap();
        let packed = |compression: Compression| {
            let mut encoder = compression.encoder(Vec::new()).unwrap();
            encoder.write_all(&plain).unwrap();
            encoder.finish().unwrap()
        };
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(packed(Compression::Gzip).as_slice()).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, plain);
        assert_eq!(zstd::decode_all(packed(Compression::Zstd).as_slice()).unwrap(), plain);
        for compression in [Compression::Gzip, Compression::Zstd] {
            assert_eq!(packed(compression), packed(compression));
        }
    }

    #[test]
    fn a_missing_binary_is_an_error() {
        assert!(LayerSource::Binary(Path::new("/nowhere/at/all").to_owned()).diff_id().is_err());
    }
}
