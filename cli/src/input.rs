//! Files that people write or name. They are read whole, so only regular files are, and none that is larger than such files get: reading a
//! pipe may never begin, and reading a device may never end.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::error::Hinted;

/// The largest file that is read, in bytes.
pub(crate) const MAX_SIZE: u64 = 16 << 20;

/// Reads a file.
///
/// # Errors
/// It is not there or cannot be read, it is no regular file, or it is larger than [`MAX_SIZE`]. The message names it.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Hinted> {
    read_within(path, MAX_SIZE)
}

/// Opens a regular file of any size, for example a program.
///
/// # Errors
/// It is not there or cannot be read, or it is no regular file. The message names it.
pub(crate) fn open(path: &Path) -> Result<File, Hinted> {
    let failed = |error: io::Error| Hinted::with(format!("cannot read `{}`", path.display()), None).because(error);
    // A device may do something when it is opened, so it is looked at before.
    refuse_others(path, fs::metadata(path).map_err(failed)?.file_type())?;
    // Another file may have taken its place since. A pipe would wait for its writer.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    refuse_others(path, file.metadata().map_err(failed)?.file_type())?;
    Ok(file)
}

fn read_within(path: &Path, most: u64) -> Result<Vec<u8>, Hinted> {
    let file = open(path)?;
    let mut content = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut content)
        .map_err(|error| Hinted::with(format!("cannot read `{}`", path.display()), None).because(error))?;
    if content.len() as u64 <= most {
        return Ok(content);
    }
    let size = fs::metadata(path).map_or_else(|_| "more".to_owned(), |metadata| format!("{} bytes", metadata.len()));
    let message = format!("`{}` has {size}; natsctl reads at most {most} bytes of a file", path.display());
    Err(Hinted::new(message, "this is not the file that is meant, or it holds what does not belong in it"))
}

fn refuse_others(path: &Path, kind: FileType) -> Result<(), Hinted> {
    let kind = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    let message = format!("`{}` is {kind}, not a file", path.display());
    Err(Hinted::new(message, "remove it, or put a regular file in its place"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// What reading `x` in a directory says that was prepared like this.
    fn refusal(prepare: impl FnOnce(&Path)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        prepare(&path);
        let error = anyhow::Error::from(read_within(&path, 100).unwrap_err());
        format!("{error:#}").replace(path.to_str().unwrap(), "x")
    }

    fn pipe(path: &Path) {
        rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).unwrap();
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        assert_eq!(refusal(pipe), "`x` is a named pipe, not a file");
        assert_eq!(
            refusal(|path| {
                let target = path.with_file_name("pipe");
                pipe(&target);
                symlink(target, path).unwrap();
            }),
            "`x` is a named pipe, not a file"
        );
    }

    #[test]
    fn a_device_is_not_read_to_its_end() {
        for device in ["/dev/zero", "/dev/urandom", "/dev/null"] {
            assert_eq!(refusal(|path| symlink(device, path).unwrap()), "`x` is a device, not a file");
        }
    }

    #[test]
    fn a_folder_and_a_socket_are_no_files() {
        assert_eq!(refusal(|path| fs::create_dir(path).unwrap()), "`x` is a folder, not a file");
        assert_eq!(refusal(|path| drop(UnixListener::bind(path).unwrap())), "`x` is a socket, not a file");
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read_whole() {
        let huge = |path: &Path| File::create(path).unwrap().set_len(10 << 30).unwrap();
        assert_eq!(refusal(huge), "`x` has 10737418240 bytes; natsctl reads at most 100 bytes of a file");
        let by_one = |path: &Path| fs::write(path, [b'a'; 101]).unwrap();
        assert_eq!(refusal(by_one), "`x` has 101 bytes; natsctl reads at most 100 bytes of a file");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        assert_eq!(refusal(|_| {}), "cannot read `x`: No such file or directory (os error 2)");
        assert!(refusal(|path| symlink("nowhere", path).unwrap()).starts_with("cannot read `x`: "));
    }

    #[test]
    fn a_regular_file_is_read_also_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x"), [b'a'; 100]).unwrap();
        symlink("x", dir.path().join("link")).unwrap();
        assert_eq!(read_within(&dir.path().join("link"), 100).unwrap().len(), 100);
    }
}
