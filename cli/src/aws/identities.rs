//! Identities on NATS, stored in Secrets Manager: the authority that makes them, one for each service, and natsctl's own. Terraform makes
//! the secrets, without a value; only natsctl writes one. The authority leaves its secret only for a private folder, in memory where the
//! system has such folders, and only as long as it is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::PathBuf;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::SignedDuration;
use sha2::{Digest as _, Sha256};

use super::ledger::{Ensured, Ledger, State};
use super::secrets::Secrets;
use super::{AT_ONCE, Aws, lock, secrets};
use crate::error::Hinted;
use crate::model::desired::{Identity, Role};
use crate::nats::accounts::{Accounts, SYSTEM};
use crate::nats::connect::Access;
use crate::nats::identity::{Identities, SYSTEM_USER};
use crate::nats::node::secret::NodeSecret;
use crate::nats::permissions::{self, NATSCTL, Permissions};
use crate::nats::pki::{Pki, ServerName};
use crate::nats::private;
use crate::nats::secret::ClientSecret;
use crate::nats::server::Trust;
use crate::pipeline::lock::IfHeld;
use crate::screen::note;

/// In the place of a service's name: the secret of the authority.
const AUTHORITY: &str = "authority";
/// Files of the authority, as [`Pki`] and [`Identities`] lay them.
const FILES: [&str; 10] = [
    "pki/ca.crt",
    "pki/ca.key",
    "pki/routes/ca.crt",
    "pki/routes/ca.key",
    "pki/clients/sys.crt",
    "pki/clients/sys.key",
    "identities/keys/operator.nk",
    "identities/operator.jwt",
    "identities/account-SYS.jwt",
    "identities/users/sys.creds",
];

/// The folder with the key of each account. JWTs of accounts are made again where they are needed: they would not fit in a secret.
const KEYS: &str = "identities/keys";
/// Certificates are renewed much earlier before they expire than this.
const CHECK_EVERY: SignedDuration = SignedDuration::from_hours(24 * 14);

/// Makes the identities that are missing, and renews those whose permissions have changed or whose certificates expire soon. Gives the
/// names of the secrets that were written.
///
/// # Errors
/// Secrets that Terraform has not made; an authority of which a part is lost.
async fn ensure(aws: &Aws) -> anyhow::Result<Vec<String>> {
    prepare(aws, &[]).await?.write(aws).await
}

/// The identities as they should be, and what servers are configured with; nothing is written. `servers` are those whose certificates
/// are wanted, too.
///
/// # Errors
/// Those of [`ensure`].
pub(super) async fn prepare(aws: &Aws, servers: &[ServerName]) -> anyhow::Result<Made> {
    let client = aws.clients.secrets();
    let authority = aws.handover.nats_secret(AUTHORITY);
    let users = users(aws);
    let of_node = |server: &ServerName| (server.name.clone(), aws.handover.nats_secret(&server.name));
    let nodes: BTreeMap<String, String> = servers.iter().map(of_node).collect();
    let names = users.values().map(|user| user.secret.clone()).chain(nodes.values().cloned());
    let names: Vec<String> = names.chain([authority.clone()]).collect();
    let values = secrets::values(client, &names).await?;
    let stored = Stored {
        authority: values.get(&authority).map(|text| parse_authority(text, &authority)).transpose()?,
        users: users
            .iter()
            .filter_map(|(name, user)| Some((name.clone(), identity(values.get(&user.secret)?)?)))
            .collect(),
        nodes: nodes
            .iter()
            .filter_map(|(name, secret)| Some((name.clone(), NodeSecret::parse(values.get(secret)?)?)))
            .collect(),
    };
    let url = nats_url(aws);
    let accounts = permissions::accounts_on_aws(&aws.manifests);
    let servers = servers.to_vec();
    let made = tokio::task::spawn_blocking(move || Made::ensure(&stored, &accounts, &url, &servers)).await?;
    made.with_context(|| format!("the authority in the secret `{authority}` cannot be used"))
}

/// Makes and renews identities under the lock of the environment. Gives the names of the secrets that were written.
///
/// # Errors
/// Secrets that Terraform has not made; an authority of which a part is lost; another change, if `if_held` is not to wait.
pub(crate) async fn ensure_locked(aws: &Aws, if_held: IfHeld) -> anyhow::Result<Vec<String>> {
    let change = async {
        let ledger = Ledger::of(aws);
        let written = ensure(aws).await?;
        let mut state = ledger.state().await?;
        record(aws, &mut state);
        ledger.put_state(&state).await?;
        Ok(written)
    };
    lock::locked(aws, if_held, change).await
}

/// Makes and renews identities only if that may be necessary, by what the ledger says was ensured before: a daily deployment need not
/// read the authority.
pub(super) async fn ensure_if_stale(aws: &Aws, state: &mut State) -> anyhow::Result<()> {
    let now = ensured(aws);
    let is_fresh = |before: &Ensured| before.digest == now.digest && now.at.duration_since(before.at) < CHECK_EVERY;
    if state.identities.as_ref().is_some_and(is_fresh) || wanted(aws).is_empty() {
        return Ok(());
    }
    for secret in ensure_recorded(aws, state).await? {
        note(&format!("identity written: {secret}"));
    }
    Ok(())
}

/// Makes and renews identities, and puts into `state` what they are now. Gives the names of the secrets that were written.
///
/// # Errors
/// Those of [`ensure_locked`].
pub(super) async fn ensure_recorded(aws: &Aws, state: &mut State) -> anyhow::Result<Vec<String>> {
    let written = ensure(aws).await.context("failed to make the identities on NATS")?;
    record(aws, state);
    Ok(written)
}

/// The ledger says from now on that the identities are as they should be.
pub(super) fn record(aws: &Aws, state: &mut State) {
    state.identities = Some(ensured(aws));
    state.identity_specs = wanted(aws);
}

/// The identities as they should be, by user; none where no service takes part in NATS.
pub(super) fn wanted(aws: &Aws) -> BTreeMap<String, Identity> {
    if aws.manifests.services.values().all(|service| service.role == Role::Standalone) {
        return BTreeMap::new();
    }
    let url = nats_url(aws);
    let identity = |(name, user): (String, User)| {
        (name, Identity { secret: user.secret, url: url.clone(), permissions: user.permissions.digest() })
    };
    users(aws).into_iter().map(identity).collect()
}

/// The identities that there are, by user: those whose secret has a value, as the ledger remembers them. One that it does not remember
/// counts as it should be; it is compared when identities are written the next time.
///
/// # Errors
/// A secret does not exist that would have to be written.
pub(super) fn observed(
    aws: &Aws,
    wanted: &BTreeMap<String, Identity>,
    secrets: &Secrets,
    state: &State,
) -> anyhow::Result<BTreeMap<String, Identity>> {
    let is_there = |(_, identity): &(&String, &Identity)| secrets.filled.contains(&identity.secret);
    let known = |name: &String, wanted: &Identity| state.identity_specs.get(name).unwrap_or(wanted).clone();
    let there: BTreeMap<String, Identity> =
        wanted.iter().filter(is_there).map(|(name, wanted)| (name.clone(), known(name, wanted))).collect();
    if there != *wanted {
        let all = wanted.values().map(|identity| identity.secret.clone());
        refuse_missing(secrets, all.chain([aws.handover.nats_secret(AUTHORITY)]))?;
    }
    Ok(there)
}

/// Refuses to write identities into secrets that Terraform has not made.
fn refuse_missing(secrets: &Secrets, wanted: impl Iterator<Item = String>) -> Result<(), Hinted> {
    let missing = wanted.filter(|name| !secrets.arns.contains_key(name)).map(|name| format!("`{name}`"));
    let missing: Vec<String> = missing.collect();
    if missing.is_empty() {
        return Ok(());
    }
    let hint = "Terraform makes them: `terraform apply` in the environment's folder; nothing was changed";
    Err(Hinted::new(format!("identities on NATS cannot be written: there is no secret {}", missing.join(", ")), hint))
}

/// The record of what [`ensure`] ensures now.
fn ensured(aws: &Aws) -> Ensured {
    let mut hash = Sha256::new();
    hash.update(nats_url(aws));
    for (name, user) in users(aws) {
        hash.update(format!("{name} {} {}\n", user.secret, user.permissions.digest()));
    }
    Ensured { digest: data_encoding::HEXLOWER.encode(&hash.finalize()), at: jiff::Timestamp::now() }
}

fn nats_url(aws: &Aws) -> String {
    format!("tls://{}:{}", aws.handover.nats.host, aws.handover.nats.port)
}

/// A user, and the secret that holds its identity.
struct User {
    secret: String,
    permissions: Permissions,
}

fn users(aws: &Aws) -> BTreeMap<String, User> {
    let handover = &aws.handover;
    let accounts = permissions::accounts_on_aws(&aws.manifests);
    let user = |(name, permissions): (String, Permissions)| {
        let secret = if name == NATSCTL { handover.nats.operator_secret.clone() } else { handover.nats_secret(&name) };
        (name, User { secret, permissions })
    };
    accounts.into_values().flat_map(|account| account.users).map(user).collect()
}

/// What the secrets hold.
struct Stored {
    /// Contents by file.
    authority: Option<BTreeMap<String, String>>,
    users: BTreeMap<String, ClientSecret>,
    nodes: BTreeMap<String, NodeSecret>,
}

/// What the secrets are to hold, as far as that differs from what they do, and what servers are configured with.
pub(super) struct Made {
    authority: Option<String>,
    users: BTreeMap<String, ClientSecret>,
    nodes: BTreeMap<String, NodeSecret>,
    /// Whose JWTs servers trust.
    pub(super) trust: Trust,
    /// Names of accounts by their keys.
    pub(super) accounts: BTreeMap<String, String>,
    /// What names the certificates of each server.
    pub(super) certificates: BTreeMap<String, String>,
}

impl Made {
    /// The names of the secrets that are to be written.
    pub(super) fn unwritten(&self, aws: &Aws) -> Vec<String> {
        let users = users(aws);
        let of_users = self.users.keys().map(|name| users[name].secret.clone());
        let others = self.authority.iter().map(|_| AUTHORITY.to_owned()).chain(self.nodes.keys().cloned());
        others.map(|name| aws.handover.nats_secret(&name)).chain(of_users).collect()
    }

    /// Writes the secrets that differ, and gives their names.
    ///
    /// # Errors
    /// Secrets that Terraform has not made.
    pub(super) async fn write(&self, aws: &Aws) -> anyhow::Result<Vec<String>> {
        let client = aws.clients.secrets();
        // First, so that there is never an identity without its authority.
        if let Some(text) = &self.authority {
            secrets::put(client, &aws.handover.nats_secret(AUTHORITY), text.clone()).await?;
        }
        let users = users(aws);
        let of_user = |(name, secret): (&String, &ClientSecret)| {
            anyhow::Ok((users[name].secret.clone(), serde_json::to_string(secret)?))
        };
        let of_node =
            |(name, secret): (&String, &NodeSecret)| anyhow::Ok((aws.handover.nats_secret(name), secret.text()));
        let texts = self.nodes.iter().map(of_node).chain(self.users.iter().map(of_user));
        let texts: Vec<(String, String)> = texts.collect::<Result<_, _>>()?;
        let put = texts.into_iter().map(|(name, text)| async move { secrets::put(client, &name, text).await });
        futures::stream::iter(put).buffered(AT_ONCE).try_collect::<Vec<()>>().await?;
        Ok(self.unwritten(aws))
    }

    fn ensure(stored: &Stored, accounts: &Accounts, url: &str, servers: &[ServerName]) -> anyhow::Result<Self> {
        if let (None, Some(user)) = (&stored.authority, stored.users.keys().chain(stored.nodes.keys()).next()) {
            let hint = "restore its last version: another authority would lock every running task out";
            return Err(Hinted::new(format!("it has no value, and `{user}` has an identity already"), hint).into());
        }
        let home = Home::new()?;
        for (file, text) in stored.authority.iter().flatten() {
            home.write(file, text)?;
        }
        for (name, secret) in &stored.users {
            home.write(&format!("pki/clients/{name}.crt"), &secret.cert)?;
            home.write(&format!("pki/clients/{name}.key"), &secret.key)?;
            home.write(&format!("identities/users/{name}.creds"), &secret.creds)?;
        }
        for (server, secret) in &stored.nodes {
            for (file, text) in secret.as_files(server) {
                home.write(&format!("pki/{file}"), text)?;
            }
        }
        let users = || accounts.values().flat_map(|account| account.users.keys());
        let clients: Vec<String> = users().cloned().chain([SYSTEM_USER.to_owned()]).collect();
        let pki = Pki::ensure(&home.0.join("pki"), servers, &clients)?;
        let identities = Identities::ensure(&home.0.join("identities"), accounts)?;

        let authority: BTreeMap<String, String> = FILES
            .into_iter()
            .map(str::to_owned)
            .chain(home.keys()?)
            .map(|file| Ok((file.clone(), home.read(&file)?)))
            .collect::<anyhow::Result<_>>()?;
        let changed = stored.authority.as_ref() != Some(&authority);
        let authority = changed.then(|| serde_json::to_string(&authority)).transpose()?;
        let system = SYSTEM.to_owned();
        let known = identities.accounts.iter().chain([(&system, &identities.system)]);
        let mut made = Self {
            authority,
            users: BTreeMap::new(),
            nodes: BTreeMap::new(),
            trust: (&identities).into(),
            accounts: known.map(|(name, account)| (account.id.clone(), name.clone())).collect(),
            certificates: BTreeMap::new(),
        };
        for ServerName { name, .. } in servers {
            let secret = NodeSecret::of(&pki, name)?;
            made.certificates.insert(name.clone(), secret.fingerprint());
            if stored.nodes.get(name) != Some(&secret) {
                made.nodes.insert(name.clone(), secret);
            }
        }
        for name in users() {
            let secret = ClientSecret::try_from(&Access::of(name, vec![url.to_owned()], &pki, &identities))?;
            if stored.users.get(name) != Some(&secret) {
                made.users.insert(name.clone(), secret);
            }
        }
        Ok(made)
    }
}

/// The identity that a secret holds; any other value counts as none.
fn identity(text: &str) -> Option<ClientSecret> {
    let secret = ClientSecret::parse(text, "").ok()?;
    secret.creds.contains("BEGIN NATS USER JWT").then_some(secret)
}

fn parse_authority(text: &str, name: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let hint = "restore an earlier version of it: another authority would lock every running task out";
    let files: Option<BTreeMap<String, String>> = serde_json::from_str(text).ok();
    let files = files.ok_or_else(|| Hinted::new(format!("the secret `{name}` does not hold an authority"), hint))?;
    let there: BTreeSet<&str> = files.keys().map(String::as_str).collect();
    let missing: Vec<&str> = FILES.into_iter().filter(|file| !there.contains(file)).collect();
    if !missing.is_empty() {
        let missing = missing.join("`, `");
        return Err(Hinted::new(format!("the authority in the secret `{name}` lacks `{missing}`"), hint).into());
    }
    let is_key = |file: &str| file.strip_prefix(KEYS).is_some_and(|file| file.starts_with('/') && !file.contains(".."));
    Ok(files.into_iter().filter(|(file, _)| FILES.contains(&file.as_str()) || is_key(file)).collect())
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

    /// The files of the keys of accounts.
    fn keys(&self) -> anyhow::Result<Vec<String>> {
        let name = |entry: std::io::Result<std::fs::DirEntry>| Some(entry.ok()?.file_name().to_str()?.to_owned());
        let folder = self.0.join(KEYS);
        let entries = std::fs::read_dir(&folder).with_context(|| format!("failed to read `{}`", folder.display()))?;
        let names = entries.filter_map(name).filter(|name| name.starts_with("account-"));
        Ok(names.map(|name| format!("{KEYS}/{name}")).collect())
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
    use crate::nats::testing::{one_account, permissions};

    const URL: &str = "tls://nats.internal:4222";

    fn users(publish: &str) -> Accounts {
        let of = |publish: &str| permissions(&[publish], &["_INBOX.>"]);
        one_account([("quest".to_owned(), of(publish)), ("weather".to_owned(), of("svc.weather.>"))])
    }

    fn stored(made: Made, before: Stored) -> Stored {
        let authority = made.authority.map(|text| parse_authority(&text, "authority").unwrap()).or(before.authority);
        let nodes = before.nodes.into_iter().chain(made.nodes).collect();
        Stored { authority, users: before.users.into_iter().chain(made.users).collect(), nodes }
    }

    fn servers(address: [u8; 4]) -> [ServerName; 1] {
        [ServerName { name: "nats-1".to_owned(), addresses: vec![address.into()], dns: Vec::new() }]
    }

    fn first() -> Stored {
        let nothing = || Stored { authority: None, users: BTreeMap::new(), nodes: BTreeMap::new() };
        stored(Made::ensure(&nothing(), &users("svc.quest.>"), URL, &servers([10, 0, 0, 1])).unwrap(), nothing())
    }

    #[track_caller]
    fn check(stored: &Stored, users: &Accounts, url: &str, authority: bool, written: &[&str]) {
        let made = Made::ensure(stored, users, url, &servers([10, 0, 0, 1])).unwrap();
        assert_eq!(made.authority.is_some(), authority);
        assert_eq!(made.users.keys().collect::<Vec<_>>(), written);
        assert!(made.nodes.is_empty(), "certificates of servers are kept");
    }

    #[test]
    fn a_node_with_another_address_gets_other_certificates_from_the_same_authority() {
        let stored = first();
        let accounts = users("svc.quest.>");
        let ensure = |address| Made::ensure(&stored, &accounts, URL, &servers(address)).unwrap();
        let (same, other) = (ensure([10, 0, 0, 1]), ensure([10, 0, 0, 2]));
        assert!(same.nodes.is_empty() && other.nodes.contains_key("nats-1") && other.authority.is_none());
        assert_ne!(same.certificates, other.certificates);
        // What is signed again comes out the same, so that servers do not seem to need it.
        let jwts = |made: &Made| made.trust.accounts.iter().map(|account| account.jwt.clone()).collect::<Vec<_>>();
        assert_eq!(jwts(&same), jwts(&other));
        assert_eq!(same.accounts.values().filter(|name| *name == SYSTEM).count(), 1);
    }

    #[test]
    fn what_is_as_it_should_be_is_not_written_again() {
        let stored = first();
        assert_eq!(stored.users.keys().collect::<Vec<_>>(), ["quest", "weather"]);
        check(&stored, &users("svc.quest.>"), URL, false, &[]);
        check(&stored, &users("svc.other.>"), URL, false, &["quest"]);
        check(&stored, &users("svc.quest.>"), "tls://elsewhere:4222", false, &["quest", "weather"]);
    }

    #[test]
    fn a_lost_identity_is_made_anew_by_the_same_authority() {
        let mut stored = first();
        stored.users.remove("quest");
        check(&stored, &users("svc.quest.>"), URL, false, &["quest"]);
    }

    #[test]
    fn an_authority_is_never_made_twice() {
        let stored = Stored { authority: None, ..first() };
        let error = Made::ensure(&stored, &users("svc.quest.>"), URL, &[]).err().unwrap();
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
        assert!(identity(dummy).is_none() && identity("nothing").is_none());
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
