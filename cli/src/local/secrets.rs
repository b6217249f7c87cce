//! The values of secrets on this machine: a file for each, which the user writes. They take the place of Secrets Manager: a task gets the
//! value when it starts, as an environment variable, and nothing else has it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::dir::Dir;
use crate::error::Hinted;
use crate::input;
use crate::manifest::ServiceManifest;

/// The most bytes that Secrets Manager allows for a value.
const MAX_SIZE: usize = 65_536;

/// The file with the value of a secret.
pub(super) fn file(dir: &Dir, name: &str) -> PathBuf {
    dir.secrets().join(name)
}

/// The value of a secret: the content of its file without the end of its last line.
///
/// # Errors
/// The file cannot be read, others can read it, or it holds nothing that an environment variable could.
pub(super) fn read(file: &Path) -> Result<String, Hinted> {
    let content = input::read(file)?;
    let refused = |what: &str, hint: String| Err(Hinted::new(format!("`{}` {what}", file.display()), hint));
    let mode = fs::metadata(file).map_or(0, |metadata| metadata.mode() & 0o777);
    if mode & 0o077 != 0 {
        let hint = format!("`chmod 600 {}`", file.display());
        return refused(&format!("can be read or changed by others: its mode is {mode:03o}"), hint);
    }
    let hint = || "write the value of the secret into it, as text".to_owned();
    let Ok(mut value) = String::from_utf8(content) else { return refused("is not UTF-8", hint()) };
    for end in ["\n", "\r"] {
        value.truncate(value.strip_suffix(end).unwrap_or(&value).len());
    }
    match value {
        value if value.is_empty() => refused("is empty", hint()),
        value if value.contains('\0') => refused("has a NUL character", hint()),
        value if value.len() > MAX_SIZE => {
            refused(&format!("has {} bytes, and a secret has at most {MAX_SIZE}", value.len()), hint())
        }
        value => Ok(value),
    }
}

/// A secret that has no value here.
pub(super) struct Missing {
    /// Which one, for which variable of which service.
    pub(super) what: String,
    /// What is wrong with its file.
    pub(super) reason: String,
    /// How to fix it.
    pub(super) hint: String,
}

/// The secrets of these services that have no value here.
pub(super) fn missing<'a>(dir: &Dir, services: impl Iterator<Item = &'a ServiceManifest>) -> Vec<Missing> {
    let mut missing = Vec::new();
    for service in services {
        for (variable, secret) in &service.secrets {
            let name = secret.file();
            let file = file(dir, &name);
            let Err(error) = read(&file) else { continue };
            let hint = error.hint().filter(|_| file.exists()).map_or_else(|| how_to_write(&file), str::to_owned);
            missing.push(Missing {
                what: format!("secret `{name}` (variable `{variable}` of `{}`)", service.name),
                reason: format!("{:#}", anyhow::Error::from(error)),
                hint,
            });
        }
    }
    missing
}

/// Refuses services whose secrets have no value here.
///
/// # Errors
/// All of the secrets, each with its variable and its file.
pub(super) fn refuse_missing<'a>(dir: &Dir, services: impl Iterator<Item = &'a ServiceManifest>) -> Result<(), Hinted> {
    let missing = missing(dir, services);
    let Some(first) = missing.first() else { return Ok(()) };
    let lines: Vec<String> = missing.iter().map(|one| format!("{}: {}", one.what, one.reason)).collect();
    Err(Hinted::new(lines.join("\n"), &*first.hint))
}

/// How a value gets into a file that only the user can read.
fn how_to_write(file: &Path) -> String {
    format!(
        "write the value into the file: `install -D -m 600 /dev/stdin {}`, then type or paste it, and end with Ctrl-D",
        file.display()
    )
}

/// The files with the values of secrets, by variable.
pub(super) fn files(dir: &Dir, secrets: &BTreeMap<String, String>) -> BTreeMap<String, PathBuf> {
    secrets.iter().map(|(variable, name)| (variable.clone(), file(dir, name))).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// What a file with this content and mode is read as; its name is `file` in errors.
    fn read_as(content: &[u8], mode: u32) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        read(&path).map_err(|error| error.to_string().replace(path.to_str().unwrap(), "file"))
    }

    #[test]
    fn a_value_is_the_content_without_the_end_of_its_last_line() {
        for (content, value) in [("x", "x"), ("x\n", "x"), ("x\r\n", "x"), ("a\nb\n\n", "a\nb\n"), (" x ", " x ")] {
            assert_eq!(read_as(content.as_bytes(), 0o600).as_deref(), Ok(value));
        }
        assert_eq!(read_as(b"x", 0o400).as_deref(), Ok("x"));
    }

    #[test]
    fn what_is_no_secret_or_no_value_is_refused() {
        for (content, mode, said) in [
            (&b"x"[..], 0o644, "`file` can be read or changed by others: its mode is 644"),
            (b"x", 0o620, "`file` can be read or changed by others: its mode is 620"),
            (b"", 0o600, "`file` is empty"),
            (b"\n", 0o600, "`file` is empty"),
            (b"a\0b", 0o600, "`file` has a NUL character"),
            (b"\xff", 0o600, "`file` is not UTF-8"),
            (&[b'x'; 65_537], 0o600, "`file` has 65537 bytes, and a secret has at most 65536"),
        ] {
            assert_eq!(read_as(content, mode), Err(said.to_owned()));
        }
    }
}
