//! Credentials that `docker login` or a credential helper of Docker has stored.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use data_encoding::BASE64;
use serde::Deserialize;
use std::collections::HashMap;

use super::{Credentials, Login};
use crate::input;

/// `~/.docker/config.json`, as far as it is of use.
#[derive(Debug, Default, Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, AuthEntry>,
    #[serde(default, rename = "credHelpers")]
    helpers: HashMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct AuthEntry {
    #[serde(default)]
    auth: String,
}

/// What a credential helper prints.
#[derive(Deserialize)]
struct HelperOutput {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// The credentials for a registry that this machine has.
///
/// # Errors
/// A file that cannot be read, or a helper that fails.
pub(crate) fn saved(host: &str) -> anyhow::Result<Credentials> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(std::env::home_dir()?.join(".docker")));
    folder.map_or(Ok(Credentials::Anonymous), |folder| saved_in(&folder.join("config.json"), host))
}

fn saved_in(file: &Path, host: &str) -> anyhow::Result<Credentials> {
    if let Err(error) = std::fs::symlink_metadata(file)
        && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
    {
        return Ok(Credentials::Anonymous);
    }
    let text = input::read(file)?;
    let config: DockerConfig =
        serde_json::from_slice(&text).with_context(|| format!("`{}` is not Docker's", file.display()))?;
    // Docker Hub has an address of its own in this file.
    let name = if host == "docker.io" { "https://index.docker.io/v1/" } else { host };
    if let Some(helper) = config.helpers.get(name) {
        return Ok(ask(helper, name)?.map_or(Credentials::Anonymous, Credentials::Basic));
    }
    let spelled = [name.to_owned(), format!("https://{name}"), format!("https://{name}/v2/")];
    let entry = spelled.iter().find_map(|name| config.auths.get(name));
    if let Some(AuthEntry { auth }) = entry
        && !auth.is_empty()
    {
        return Ok(Credentials::Basic(
            decoded(auth).with_context(|| format!("`{}` has an `auth` for `{host}` that is none", file.display()))?,
        ));
    }
    let login = config.store.map(|helper| ask(&helper, name)).transpose()?.flatten();
    Ok(login.map_or(Credentials::Anonymous, Credentials::Basic))
}

fn decoded(auth: &str) -> Option<Login> {
    let text = String::from_utf8(BASE64.decode(auth.as_bytes()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Login::new(user, password))
}

/// `None` if the helper knows nothing of this registry.
fn ask(helper: &str, name: &str) -> anyhow::Result<Option<Login>> {
    let program = format!("docker-credential-{helper}");
    let failed = || format!("failed to ask `{program}` for the password of `{name}`");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(name.as_bytes()).with_context(failed)?;
    }
    let output = child.wait_with_output().with_context(failed)?;
    if !output.status.success() {
        return Ok(None);
    }
    let answer: HelperOutput = serde_json::from_slice(&output.stdout).with_context(failed)?;
    if answer.user == "<token>" {
        bail!("`{program}` keeps a token for `{name}`, and natsctl needs a name and a password");
    }
    Ok(Some(Login::new(answer.user, answer.secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &str, host: &str) -> Result<Option<Login>, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, config).unwrap();
        match saved_in(&file, host).map_err(|error| format!("{error:#}"))? {
            Credentials::Basic(login) => Ok(Some(login)),
            _ => Ok(None),
        }
    }

    #[test]
    fn what_docker_login_keeps_is_found() {
        let login = Some(Login::new("me", "pass:word"));
        let config = r#"{"auths":{"r.example.com:5000":{"auth":"bWU6cGFzczp3b3Jk"},
            "https://index.docker.io/v1/":{"auth":"bWU6cGFzczp3b3Jk"},"empty.example.com":{}}}"#;
        assert_eq!(found(config, "r.example.com:5000"), Ok(login.clone()));
        assert_eq!(found(config, "docker.io"), Ok(login));
        assert_eq!(found(config, "r.example.com"), Ok(None));
        assert_eq!(found(config, "empty.example.com"), Ok(None));
    }

    #[test]
    fn nothing_is_known_without_a_file_and_a_broken_one_is_named() {
        assert!(matches!(saved_in(Path::new("/nowhere/config.json"), "r"), Ok(Credentials::Anonymous)));
        assert!(found("{", "r").unwrap_err().contains("is not Docker's"));
        assert!(found(r#"{"auths":{"r":{"auth":"!"}}}"#, "r").unwrap_err().contains("`auth` for `r`"));
        let missing = found(r#"{"credHelpers":{"r":"no-such-helper-anywhere"}}"#, "r").unwrap_err();
        assert!(missing.contains("docker-credential-no-such-helper-anywhere"), "{missing}");
    }
}
