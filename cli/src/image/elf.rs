//! Is a program what an image can run: for its processors, and without a shared library?

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::Context as _;

use crate::error::Hinted;
use crate::input;
use crate::model::desired::Architecture;

const MAGIC: [u8; 6] = [0x7f, b'E', b'L', b'F', /* 64 bits */ 2, /* little-endian */ 1];
const HEADER: usize = 64;
/// A program header that names the loader of shared libraries.
const PT_INTERP: u32 = 3;

/// What the beginning of a program says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Program {
    machine: u16,
    is_static: bool,
}

/// Refuses what would not start in an image that has nothing but this program.
///
/// # Errors
/// What it is instead.
pub(super) fn check(path: &Path, wanted: Architecture) -> anyhow::Result<()> {
    let file = input::open(path)?;
    let program = read(file).with_context(|| format!("failed to read `{}`", path.display()))?;
    let Some(program) = program else {
        let message = format!("`{}` is no program for Linux", path.display());
        return Err(Hinted::new(message, "`natsctl build` without `--binaries` builds what an image needs").into());
    };
    if program.machine != machine(wanted) {
        let wanted_name = wanted.target_arch();
        let message = format!("`{}` is not for {wanted_name}, which the manifest asks for", path.display());
        let hint = format!("build it for `{}`, or set `architecture` in the manifest", super::cargo::triple(wanted));
        return Err(Hinted::new(message, hint).into());
    }
    if !program.is_static {
        let message = format!("`{}` needs shared libraries, and an image has none", path.display());
        let hint = "`natsctl build` without `--binaries` links statically; else build with \
                    `-C target-feature=+crt-static` and an explicit `--target`";
        return Err(Hinted::new(message, hint).into());
    }
    Ok(())
}

/// `None` if it is no 64-bit ELF program.
fn read(mut file: impl Read + Seek) -> io::Result<Option<Program>> {
    let mut header = Vec::new();
    file.by_ref().take(HEADER as u64).read_to_end(&mut header)?;
    if header.len() < HEADER || !header.starts_with(&MAGIC) {
        return Ok(None);
    }
    let (size, count) = (usize::from(u16_at(&header, 54)), usize::from(u16_at(&header, 56)));
    let offset: [u8; 8] = header[32..40].try_into().unwrap_or_default();
    file.seek(SeekFrom::Start(u64::from_le_bytes(offset)))?;
    let mut table = Vec::new();
    file.take((size * count) as u64).read_to_end(&mut table)?;
    if size < 4 || table.len() < size * count {
        return Ok(None);
    }
    let is_static = table.chunks_exact(size).all(|entry| u32_at(entry) != PT_INTERP);
    Ok(Some(Program { machine: u16_at(&header, 18), is_static }))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn machine(architecture: Architecture) -> u16 {
    match architecture {
        Architecture::X86_64 => 62,
        Architecture::Arm64 => 183,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs::File;
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// A program with one program header, and no code.
    pub(in crate::image) fn program(architecture: Architecture, kind: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..6].copy_from_slice(&MAGIC);
        bytes[18..20].copy_from_slice(&machine(architecture).to_le_bytes());
        bytes[32..40].copy_from_slice(&(HEADER as u64).to_le_bytes());
        bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend([0; 52]);
        bytes.extend(payload);
        bytes
    }

    fn checked(bytes: &[u8], wanted: Architecture) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app");
        std::fs::write(&path, bytes).unwrap();
        check(&path, wanted).map_err(|error| error.to_string().replace(path.to_str().unwrap(), "app"))
    }

    #[test]
    fn a_static_program_of_the_right_architecture_passes() {
        assert_eq!(checked(&program(Architecture::X86_64, 1, b""), Architecture::X86_64), Ok(()));
        assert_eq!(checked(&program(Architecture::Arm64, 1, b""), Architecture::Arm64), Ok(()));
    }

    #[test]
    fn what_would_not_start_is_refused_and_says_why() {
        let refused = |bytes: &[u8], why: &str| {
            let error = checked(bytes, Architecture::Arm64).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        refused(b"#!/bin/sh\n", "is no program for Linux");
        refused(&program(Architecture::X86_64, 1, b""), "is not for aarch64");
        refused(&program(Architecture::Arm64, PT_INTERP, b""), "needs shared libraries");
        refused(&program(Architecture::Arm64, 1, b"")[..100], "is no program for Linux");
    }

    #[test]
    fn the_test_itself_is_a_program_with_shared_libraries() {
        let program = read(File::open(std::env::current_exe().unwrap()).unwrap()).unwrap();
        assert_eq!(program.map(|program| program.is_static), Some(cfg!(target_feature = "crt-static")));
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(Cursor::new(&bytes));
            let length = bytes.len().min(MAGIC.len());
            bytes[..length].copy_from_slice(&MAGIC[..length]);
            let _ = read(Cursor::new(&bytes));
        }
    }
}
