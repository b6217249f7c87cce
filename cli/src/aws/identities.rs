//! Identities on NATS, kept in Secrets Manager: the authority that makes them, one for each service, and natsctl's own. Terraform makes
//! the secrets, without a value; nobody but natsctl writes one. The authority leaves its secret for a private folder alone, in memory
//! where the system has such folders, and only as long as it is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::PathBuf;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::SignedDuration;
use sha2::{Digest as _, Sha256};

use super::error::{code, failed};
use super::ledger::{Ensured, State};
use super::{AT_ONCE, Aws};
use crate::error::Hinted;
use crate::pipeline::lock::IfHeld;
use crate::nats::connect::Access;
use crate::nats::identity::{Identities, SYSTEM_USER};
use crate::nats::permissions::{self, NATSCTL, OPERATOR, Permissions, REMOTE_TASK};
use crate::nats::pki::Pki;
use crate::nats::private;
use crate::nats::secret::ClientSecret;
use crate::screen::note;

/// In the place of a service's name: the secret of the authority.
const AUTHORITY: &str = "authority";
/// Files of the authority, as [`Pki`] and [`Identities`] lay them.
const FILES: [&str; 13] = [
    "pki/ca.crt",
    "pki/ca.key",
    "pki/routes/ca.crt",
    "pki/routes/ca.key",
    "pki/clients/sys.crt",
    "pki/clients/sys.key",
    "identities/keys/operator.nk",
    "identities/keys/account-SYS.nk",
    "identities/keys/account-FLEET.nk",
    "identities/operator.jwt",
    "identities/account-SYS.jwt",
    "identities/account-FLEET.jwt",
    "identities/users/sys.creds",
];
/// Well below the time before its end at which a certificate is renewed.
const LOOKED_AT_EVERY: SignedDuration = SignedDuration::from_hours(24 * 14);
/// There is no such secret, or it has no value.
const NOT_FOUND: &str = "ResourceNotFoundException";
/// What BatchGetSecretValue takes at once.
const SECRETS_PER_CALL: usize = 20;

impl Aws {
    /// Makes the identities that are missing, and those anew whose permissions are others or whose certificates expire soon. Returns the
    /// names of the secrets that were written.
    ///
    /// # Errors
    /// Secrets that Terraform has not made; an authority of which a part is lost.
    pub(crate) async fn ensure_identities(&self) -> anyhow::Result<Vec<String>> {
        let authority = self.handover.nats_secret(AUTHORITY);
        let users = users(self);
        let names: Vec<String> = users.values().map(|user| user.secret.clone()).chain([authority.clone()]).collect();
        let values = self.secret_values(&names).await?;
        let known = Known {
            authority: values.get(&authority).map(|text| parse_authority(text, &authority)).transpose()?,
            users: users
                .iter()
                .filter_map(|(name, user)| Some((name.clone(), known(values.get(&user.secret)?)?)))
                .collect(),
        };
        let url = self.nats_url();
        let permissions = users.iter().map(|(name, user)| (name.clone(), user.permissions.clone())).collect();
        let made = tokio::task::spawn_blocking(move || Made::ensure(&known, &permissions, &url)).await?;
        let made = made.with_context(|| format!("the authority in the secret `{authority}` cannot be used"))?;

        let mut written = Vec::new();
        // First, so that there is no identity whose authority is forgotten.
        if let Some(text) = made.authority {
            self.put_secret(&authority, text).await?;
            written.push(authority);
        }
        let put = made.users.into_iter().map(|(name, secret)| {
            let secret_name = users[&name].secret.clone();
            async move {
                self.put_secret(&secret_name, serde_json::to_string(&secret)?).await?;
                anyhow::Ok(secret_name)
            }
        });
        let of_users: Vec<String> = futures::stream::iter(put).buffered(AT_ONCE).try_collect().await?;
        written.extend(of_users);
        Ok(written)
    }

    /// The same while nobody else changes the environment.
    pub(crate) async fn make_identities(&self, if_held: IfHeld) -> anyhow::Result<Vec<String>> {
        let change = async {
            let ledger = self.ledger();
            let written = self.ensure_identities().await?;
            let state = State { identities: Some(self.ensured_identities()), ..ledger.state().await? };
            ledger.put_state(&state).await?;
            Ok(written)
        };
        self.alone(if_held, change).await
    }

    /// What [`Aws::ensure_identities`] has ensured when it is done now.
    pub(crate) fn ensured_identities(&self) -> Ensured {
        let mut hash = Sha256::new();
        hash.update(self.nats_url());
        for (name, user) in users(self) {
            hash.update(format!("{name} {} {}\n", user.secret, user.permissions.digest()));
        }
        Ensured { digest: data_encoding::HEXLOWER.encode(&hash.finalize()), at: jiff::Timestamp::now() }
    }

    /// The same only if it may be necessary, by what was ensured before: who deploys every day has no need of the authority.
    pub(crate) async fn ensure_identities_since(&self, before: Option<&Ensured>) -> anyhow::Result<Ensured> {
        let now = self.ensured_identities();
        if let Some(before) = before
            && before.digest == now.digest
            && now.at.duration_since(before.at) < LOOKED_AT_EVERY
        {
            return Ok(before.clone());
        }
        let written = self.ensure_identities().await.context("failed to see to the identities on NATS")?;
        for secret in written {
            note(&format!("identity written: {secret}"));
        }
        Ok(now)
    }

    fn nats_url(&self) -> String {
        format!("tls://{}:{}", self.handover.nats.host, self.handover.nats.port)
    }

    /// The values of these secrets by name; those that have none are left out.
    pub(super) async fn secret_values(&self, names: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
        let calls = names.chunks(SECRETS_PER_CALL).map(|names| async {
            let call = self.clients.secrets().batch_get_secret_value().set_secret_id_list(Some(names.to_vec()));
            let answer = match call.send().await {
                Ok(answer) => answer,
                // One of them has no value.
                Err(error) if code(&error) == Some(NOT_FOUND) => return self.each_value(names).await,
                Err(error) => return Err(failed("read the identities on NATS", error)),
            };
            let refused = answer.errors().iter().find(|one| one.error_code() != Some(NOT_FOUND));
            if let Some(refused) = refused {
                let (name, why) = (refused.secret_id().unwrap_or_default(), refused.message().unwrap_or_default());
                let code = refused.error_code().unwrap_or("an error without a code");
                let hint = "the caller lacks the right to read it, or to use its key; docs/iam.md has the policies";
                return Err(Hinted::new(format!("failed to read the secret `{name}`: {code}: {why}"), hint).into());
            }
            let values = answer.secret_values.unwrap_or_default();
            Ok(values.into_iter().filter_map(|value| Some((value.name?, value.secret_string?))).collect())
        });
        let pages: Vec<Vec<(String, String)>> = futures::stream::iter(calls).buffered(AT_ONCE).try_collect().await?;
        Ok(pages.into_iter().flatten().collect())
    }

    async fn each_value(&self, names: &[String]) -> anyhow::Result<Vec<(String, String)>> {
        let calls = names.iter().map(|name| async move {
            match self.clients.secrets().get_secret_value().secret_id(name).send().await {
                Ok(answer) => Ok(answer.secret_string.map(|text| (name.clone(), text))),
                Err(error) if code(&error) == Some(NOT_FOUND) => Ok(None),
                Err(error) => Err(failed(&format!("read the secret `{name}`"), error)),
            }
        });
        let values: Vec<Option<(String, String)>> =
            futures::stream::iter(calls).buffered(AT_ONCE).try_collect().await?;
        Ok(values.into_iter().flatten().collect())
    }

    async fn put_secret(&self, name: &str, text: String) -> anyhow::Result<()> {
        let put = self.clients.secrets().put_secret_value().secret_id(name).secret_string(text).send().await;
        put.map(drop).map_err(|error| {
            let is_missing = code(&error) == Some(NOT_FOUND);
            let error = failed(&format!("write the secret `{name}`"), error);
            let hint = "Terraform makes it: `terraform apply` in the environment's folder";
            if is_missing { Hinted::new(format!("there is no secret `{name}`"), hint).into() } else { error }
        })
    }
}

/// A user, and the secret that it is kept in.
struct User {
    secret: String,
    permissions: Permissions,
}

fn users(aws: &Aws) -> BTreeMap<String, User> {
    let handover = &aws.handover;
    let mut permissions = permissions::users(&aws.manifests);
    // People connect to an environment on AWS through natsctl.
    permissions.remove(OPERATOR);
    permissions.insert(REMOTE_TASK.to_owned(), permissions::of_remote_task());
    let user = |(name, permissions): (String, Permissions)| {
        let secret = if name == NATSCTL { handover.nats.operator_secret.clone() } else { handover.nats_secret(&name) };
        (name, User { secret, permissions })
    };
    permissions.into_iter().map(user).collect()
}

/// What there is already.
struct Known {
    /// Contents by file.
    authority: Option<BTreeMap<String, String>>,
    users: BTreeMap<String, ClientSecret>,
}

/// What is to be written.
struct Made {
    authority: Option<String>,
    users: BTreeMap<String, ClientSecret>,
}

impl Made {
    fn ensure(known: &Known, users: &BTreeMap<String, Permissions>, url: &str) -> anyhow::Result<Self> {
        if let (None, Some(user)) = (&known.authority, known.users.keys().next()) {
            let hint = "bring its last version back: another authority would lock every running task out";
            return Err(Hinted::new(format!("it has no value, and `{user}` has an identity already"), hint).into());
        }
        let home = Home::new()?;
        for (file, text) in known.authority.iter().flatten() {
            home.write(file, text)?;
        }
        for (name, secret) in &known.users {
            home.write(&format!("pki/clients/{name}.crt"), &secret.cert)?;
            home.write(&format!("pki/clients/{name}.key"), &secret.key)?;
            home.write(&format!("identities/users/{name}.creds"), &secret.creds)?;
        }
        let clients: Vec<String> = users.keys().cloned().chain([SYSTEM_USER.to_owned()]).collect();
        let pki = Pki::ensure(&home.0.join("pki"), &[], &clients)?;
        let identities = Identities::ensure(&home.0.join("identities"), users)?;

        let authority: BTreeMap<String, String> =
            FILES.into_iter().map(|file| Ok((file.to_owned(), home.read(file)?))).collect::<anyhow::Result<_>>()?;
        let changed = known.authority.as_ref() != Some(&authority);
        let authority = changed.then(|| serde_json::to_string(&authority)).transpose()?;
        let mut made = Self { authority, users: BTreeMap::new() };
        for name in users.keys() {
            let secret = ClientSecret::try_from(&Access::of(name, vec![url.to_owned()], &pki, &identities))?;
            if known.users.get(name) != Some(&secret) {
                made.users.insert(name.clone(), secret);
            }
        }
        Ok(made)
    }
}

/// What a secret holds if it is an identity; anything else is as good as none.
fn known(text: &str) -> Option<ClientSecret> {
    let secret = ClientSecret::parse(text, "").ok()?;
    secret.creds.contains("BEGIN NATS USER JWT").then_some(secret)
}

fn parse_authority(text: &str, name: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let hint = "bring an earlier version of it back: another authority would lock every running task out";
    let files: Option<BTreeMap<String, String>> = serde_json::from_str(text).ok();
    let files = files.ok_or_else(|| Hinted::new(format!("the secret `{name}` does not hold an authority"), hint))?;
    let there: BTreeSet<&str> = files.keys().map(String::as_str).collect();
    let missing: Vec<&str> = FILES.into_iter().filter(|file| !there.contains(file)).collect();
    if !missing.is_empty() {
        let missing = missing.join("`, `");
        return Err(Hinted::new(format!("the authority in the secret `{name}` lacks `{missing}`"), hint).into());
    }
    Ok(files.into_iter().filter(|(file, _)| FILES.contains(&file.as_str())).collect())
}

/// A private folder that is removed again.
struct Home(PathBuf);

impl Home {
    fn new() -> anyhow::Result<Self> {
        let of_user = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let in_memory = of_user.into_iter().chain([PathBuf::from("/dev/shm")]).find(|folder| folder.is_dir());
        let name = format!("natsctl-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let home = Self(in_memory.unwrap_or_else(env::temp_dir).join(name));
        private::directory(&home.0)?;
        Ok(home)
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.0.join(file);
        private::directory(path.parent().unwrap_or(&self.0))?;
        private::write(&path, text)
    }

    fn read(&self, file: &str) -> anyhow::Result<String> {
        private::read(&self.0.join(file))?.with_context(|| format!("`{file}` was not made"))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "a folder with secrets was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::testing::permissions;

    const URL: &str = "tls://nats.internal:4222";

    fn users(publish: &str) -> BTreeMap<String, Permissions> {
        let of = |publish: &str| permissions(&[publish], &["_INBOX.>"]);
        BTreeMap::from([("quest".to_owned(), of(publish)), ("weather".to_owned(), of("svc.weather.>"))])
    }

    fn kept(made: Made, before: Known) -> Known {
        let authority = made.authority.map(|text| parse_authority(&text, "authority").unwrap()).or(before.authority);
        Known { authority, users: before.users.into_iter().chain(made.users).collect() }
    }

    fn first() -> Known {
        let nothing = || Known { authority: None, users: BTreeMap::new() };
        kept(Made::ensure(&nothing(), &users("svc.quest.>"), URL).unwrap(), nothing())
    }

    #[track_caller]
    fn check(known: &Known, users: &BTreeMap<String, Permissions>, url: &str, authority: bool, written: &[&str]) {
        let made = Made::ensure(known, users, url).unwrap();
        assert_eq!(made.authority.is_some(), authority);
        assert_eq!(made.users.keys().collect::<Vec<_>>(), written);
    }

    #[test]
    fn what_is_as_it_should_be_is_not_written_again() {
        let known = first();
        assert_eq!(known.users.keys().collect::<Vec<_>>(), ["quest", "weather"]);
        check(&known, &users("svc.quest.>"), URL, false, &[]);
        check(&known, &users("svc.other.>"), URL, false, &["quest"]);
        check(&known, &users("svc.quest.>"), "tls://elsewhere:4222", false, &["quest", "weather"]);
    }

    #[test]
    fn who_has_lost_an_identity_gets_another_of_the_same_authority() {
        let mut known = first();
        known.users.remove("quest");
        check(&known, &users("svc.quest.>"), URL, false, &["quest"]);
    }

    #[test]
    fn an_authority_is_never_made_twice() {
        let known = Known { authority: None, ..first() };
        let error = Made::ensure(&known, &users("svc.quest.>"), URL).err().unwrap();
        assert_eq!(error.to_string(), "it has no value, and `quest` has an identity already");

        let text = serde_json::to_string(&BTreeMap::from([("pki/ca.crt", "pem")])).unwrap();
        let error = parse_authority(&text, "nats/authority").unwrap_err();
        assert!(error.to_string().starts_with("the authority in the secret `nats/authority` lacks `pki/ca.key`"));
        let error = parse_authority("hidden", "nats/authority").unwrap_err();
        assert_eq!(format!("{error:#}"), "the secret `nats/authority` does not hold an authority");
    }

    #[test]
    fn a_value_that_is_no_identity_is_none() {
        let dummy = r#"{"urls":"tls://a","ca":"ca","cert":"cert","key":"key","creds":"creds"}"#;
        assert!(known(dummy).is_none() && known("nothing").is_none());
    }

    #[test]
    fn nothing_is_left_on_disk() {
        let home = Home::new().unwrap();
        let folder = home.0.clone();
        home.write("pki/ca.key", "secret").unwrap();
        drop(home);
        assert!(!folder.exists());
    }
}
