//! Who may connect: an operator, accounts, and their users, as NKeys and JWTs under one directory.
//!
//! ```text
//! keys/operator.nk, keys/account-<account>.nk    seeds: the operator's signs accounts, an account's signs users
//! operator.jwt, account-<account>.jwt            what servers are configured with
//! users/<user>.creds                             what a client connects with
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use data_encoding::HEXLOWER;
use nkeys::{KeyPair, KeyPairType};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::accounts::{Account, Accounts, STORE, SYSTEM};
use super::jwt::{self, Claims};
use super::permissions::{DEFAULT_INBOX, Permissions};
use super::private;
use crate::error::Hinted;

/// The user of the system account, which asks servers about themselves.
pub const SYSTEM_USER: &str = "sys";

/// Has the meta leader step down; only the system account may ask for it.
pub(crate) const META_STEP_DOWN: &str = "$JS.API.META.LEADER.STEPDOWN";

/// The identities of a fleet, as they are on disk.
#[derive(Clone, Debug)]
pub struct Identities {
    /// JWT of the operator.
    pub operator: String,
    /// The account in which servers answer questions about themselves.
    pub system: AccountToken,
    /// The other accounts by name.
    pub accounts: BTreeMap<String, AccountToken>,
    directory: PathBuf,
}

/// An account, as servers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountToken {
    /// Public key.
    pub id: String,
    /// JWT, signed by the operator.
    pub jwt: String,
}

impl Identities {
    /// Makes what is missing in the directory, changes the accounts and users that differ, and removes those that are gone.
    pub fn ensure(directory: &Path, accounts: &Accounts) -> anyhow::Result<Self> {
        for part in ["", "keys", "users"] {
            private::directory(&directory.join(part))?;
        }
        let keys = Keys::ensure(directory, accounts)?;
        // As old as the operator: where JWTs of accounts are not kept, they are signed again, and must come out the same.
        let before = private::read(&directory.join("operator.jwt"))?;
        let issued = before.and_then(|operator| jwt::issued(operator.trim())).unwrap_or_else(jwt::now);
        let signer = Signer { directory, keys: &keys, issued };
        let system = signer.account(SYSTEM, &Account::default())?;
        let mut signed = BTreeMap::new();
        for (name, account) in accounts {
            signed.insert(name.clone(), signer.account(name, account)?);
        }
        // Last, because it marks the seeds as complete.
        let operator = signer.sign("operator", "natsctl", &keys.operator, operator_claims(&system.id))?;

        let identities = Self { operator, system, accounts: signed, directory: directory.to_owned() };
        identities.ensure_user(SYSTEM_USER, keys.of(SYSTEM)?, &system_permissions())?;
        for (name, account) in accounts {
            for (user, permissions) in &account.users {
                identities.ensure_user(user, keys.of(name)?, permissions)?;
            }
        }
        identities.remove_others(accounts)?;
        Ok(identities)
    }

    /// The file with which the user connects.
    pub fn credentials(&self, user: &str) -> PathBuf {
        self.directory.join("users").join(format!("{user}.creds"))
    }

    /// A secret of the fleet for one purpose, always the same: 128 bits in hexadecimal. Who can read the keys can make it.
    pub fn secret(&self, purpose: &str) -> anyhow::Result<String> {
        let path = self.directory.join("keys").join(key_file(SYSTEM));
        let seed = private::read(&path)?.with_context(|| format!("`{}` is missing", path.display()))?;
        let digest = Sha256::digest(format!("{purpose}\n{}", seed.trim()));
        Ok(HEXLOWER.encode(&digest[..16]))
    }

    /// Signs the user's JWT if it is not what it should be. The user keeps its key.
    fn ensure_user(&self, name: &str, account: &KeyPair, permissions: &Permissions) -> anyhow::Result<()> {
        let path = self.credentials(name);
        let existing = private::read(&path)?.map(|text| CredsFile::parse(&path, &text)).transpose()?;
        let (jwt, key) = match existing {
            Some(CredsFile { jwt, key }) => (Some(jwt), key),
            None => (None, KeyPair::new_user()),
        };
        let claims = Claims::new(name, &key, account, user_claims(permissions));
        if jwt.is_some_and(|jwt| claims.are_those_of(&jwt)) {
            return Ok(());
        }
        let credentials = CredsFile { jwt: claims.sign(account)?, key };
        private::write(&path, &credentials.render()?)
    }

    fn remove_others(&self, accounts: &Accounts) -> anyhow::Result<()> {
        let users = accounts.values().flat_map(|account| account.users.keys().cloned()).chain([SYSTEM_USER.to_owned()]);
        let users = users.map(|user| format!("{user}.creds")).collect();
        let names = accounts.keys().map(String::as_str).chain([SYSTEM]);
        let jwts = names.map(|name| format!("account-{name}.jwt")).chain(["operator.jwt".to_owned()]).collect();
        remove_others(&self.directory.join("users"), "creds", &users)?;
        // Keys stay: an account that comes back is the same one.
        remove_others(&self.directory, "jwt", &jwts)
    }
}

/// Removes the files with this extension that are not to be kept.
fn remove_others(folder: &Path, extension: &str, kept: &BTreeSet<String>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("failed to read `{}`", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|found| found == extension) && !kept.contains(name) {
            fs::remove_file(&path).with_context(|| format!("failed to remove `{}`", path.display()))?;
        }
    }
    Ok(())
}

/// The keys that sign: of the operator and of each account.
struct Keys {
    operator: KeyPair,
    accounts: BTreeMap<String, KeyPair>,
}

impl Keys {
    /// The seeds in the directory. Those of operator, system account and [`STORE`] are made only if nothing is there that
    /// came after them: a new one beside old JWTs would lock every running client out, and data belongs to the key of its
    /// account. The same holds for the key and the JWT of every other account.
    fn ensure(directory: &Path, accounts: &Accounts) -> anyhow::Result<Self> {
        let path = |name: &str| directory.join("keys").join(name);
        let (operator, system, store) = (path("operator.nk"), path(&key_file(SYSTEM)), path(&key_file(STORE)));
        // Once there was one account for all, with the data.
        let before = path(&key_file("FLEET"));
        if before.exists() && !store.exists() {
            fs::rename(&before, &store).with_context(|| format!("failed to rename `{}`", before.display()))?;
        }
        let complete = directory.join("operator.jwt");
        let operator = key(&operator, KeyPairType::Operator, &[&system, &store, &complete])?;
        let mut keys = BTreeMap::new();
        keys.insert(SYSTEM.to_owned(), key(&system, KeyPairType::Account, &[&store, &complete])?);
        keys.insert(STORE.to_owned(), key(&store, KeyPairType::Account, &[&complete])?);
        for name in accounts.keys().filter(|name| *name != STORE) {
            let made = directory.join(format!("account-{name}.jwt"));
            keys.insert(name.clone(), key(&path(&key_file(name)), KeyPairType::Account, &[&made])?);
        }
        Ok(Self { operator, accounts: keys })
    }

    fn of(&self, account: &str) -> anyhow::Result<&KeyPair> {
        self.accounts.get(account).with_context(|| format!("there is no account `{account}` on NATS"))
    }
}

/// Signs as the operator does.
struct Signer<'a> {
    directory: &'a Path,
    keys: &'a Keys,
    /// The time that JWTs bear, in seconds since 1970.
    issued: u64,
}

impl Signer<'_> {
    fn account(&self, name: &str, account: &Account) -> anyhow::Result<AccountToken> {
        for import in &account.imports {
            self.keys.of(&import.account).with_context(|| format!("`{name}` imports `{}`", import.subject))?;
        }
        let key = self.keys.of(name)?;
        let id = |name: &str| self.keys.accounts.get(name).map(KeyPair::public_key).unwrap_or_default();
        let jwt = self.sign(&format!("account-{name}"), name, key, account.claims(id))?;
        Ok(AccountToken { id: key.public_key(), jwt })
    }

    /// The JWT of the operator or of an account: the one on disk if it says what it should, a new one otherwise.
    fn sign(&self, file: &str, name: &str, subject: &KeyPair, nats: Value) -> anyhow::Result<String> {
        let path = self.directory.join(format!("{file}.jwt"));
        let claims = Claims::issued_at(self.issued, name, subject, &self.keys.operator, nats);
        if let Some(jwt) = private::read(&path)?.filter(|jwt| claims.are_those_of(jwt.trim())) {
            return Ok(jwt.trim().to_owned());
        }
        let jwt = claims.sign(&self.keys.operator)?;
        private::write(&path, &format!("{jwt}\n"))?;
        Ok(jwt)
    }
}

fn key_file(account: &str) -> String {
    format!("account-{account}.nk")
}

fn key(path: &Path, kind: KeyPairType, later: &[&Path]) -> anyhow::Result<KeyPair> {
    if let Some(seed) = private::read(path)? {
        return KeyPair::from_seed(seed.trim())
            .ok()
            .filter(|key| key.key_pair_type() == kind)
            .ok_or_else(|| Hinted::new(format!("`{}` is damaged", path.display()), START_OVER).into());
    }
    if later.iter().any(|path| path.exists()) {
        return Err(Hinted::new(format!("`{}` is missing", path.display()), START_OVER).into());
    }
    let key = KeyPair::new(kind);
    private::write(path, &format!("{}\n", key.seed()?))?;
    Ok(key)
}

pub(super) const START_OVER: &str =
    "restore it from a backup, or remove the environment with its data (`natsctl down --data`) and deploy again";

fn operator_claims(system_account: &str) -> Value {
    json!({ "system_account": system_account, "type": "operator", "version": 2 })
}

fn user_claims(permissions: &Permissions) -> Value {
    json!({
        "pub": allow(&permissions.publish),
        "sub": allow(&permissions.subscribe),
        "subs": -1, "data": -1, "payload": -1,
        "allowed_connection_types": ["STANDARD"],
        "type": "user",
        "version": 2,
    })
}

/// An empty list of allowed subjects means "everything" to a server, so nothing is said as a denial.
fn allow(subjects: &BTreeSet<String>) -> Value {
    if subjects.is_empty() { json!({ "deny": [">"] }) } else { json!({ "allow": subjects }) }
}

fn system_permissions() -> Permissions {
    Permissions {
        publish: BTreeSet::from(["$SYS.REQ.>".to_owned(), META_STEP_DOWN.to_owned()]),
        subscribe: BTreeSet::from(["$SYS.>".to_owned(), DEFAULT_INBOX.to_owned()]),
    }
}

/// A user's JWT and the seed with which it proves that the JWT is its own.
struct CredsFile {
    jwt: String,
    key: KeyPair,
}

impl CredsFile {
    fn parse(path: &Path, text: &str) -> anyhow::Result<Self> {
        let between = |begin: &str| {
            let mut lines = text.lines().skip_while(|line| !line.contains(begin)).skip(1);
            lines.next().map(str::trim)
        };
        let key = between("BEGIN USER NKEY SEED").and_then(|seed| KeyPair::from_seed(seed).ok());
        match (between("BEGIN NATS USER JWT"), key) {
            (Some(jwt), Some(key)) if key.key_pair_type() == KeyPairType::User => Ok(Self { jwt: jwt.to_owned(), key }),
            _ => Err(Hinted::new(
                format!("`{}` is damaged", path.display()),
                "remove it and deploy again: the user gets a new key",
            )
            .into()),
        }
    }

    fn render(&self) -> anyhow::Result<String> {
        let (jwt, seed) = (&self.jwt, self.key.seed()?);
        Ok(format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\n\
             NKEY Seed printed below can be used to sign and prove identity.\n\
             NKEYs are sensitive and should be treated as secrets.\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n\n\
             *************************************************************\n"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::testing::one_account;

    fn users(publish: &[&str]) -> Accounts {
        let publish = publish.iter().map(ToString::to_string).collect();
        let permissions = Permissions { publish, subscribe: BTreeSet::from(["_INBOX_quest.>".to_owned()]) };
        one_account([("quest".to_owned(), permissions)])
    }

    fn read(identities: &Identities, user: &str) -> CredsFile {
        let path = identities.credentials(user);
        CredsFile::parse(&path, &fs::read_to_string(&path).unwrap()).unwrap()
    }

    /// Every file below the directory with its contents.
    fn files(directory: &Path) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                found.insert(path.clone(), fs::read_to_string(&path).unwrap());
            }
        }
        found
    }

    #[test]
    fn a_second_run_changes_nothing() {
        let home = tempfile::tempdir().unwrap();
        Identities::ensure(home.path(), &users(&["svc.a"])).unwrap();
        let before = files(home.path());
        Identities::ensure(home.path(), &users(&["svc.a"])).unwrap();
        assert_eq!(files(home.path()), before);
        assert_eq!(before.len(), 8);
    }

    #[test]
    fn only_the_owner_may_read() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        Identities::ensure(home.path(), &users(&[])).unwrap();
        for path in files(home.path()).keys() {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
            let parent = path.parent().unwrap();
            assert_eq!(fs::metadata(parent).unwrap().permissions().mode() & 0o777, 0o700, "{}", parent.display());
        }
    }

    #[test]
    fn changed_permissions_change_the_jwt_and_keep_the_key() {
        let home = tempfile::tempdir().unwrap();
        let before = read(&Identities::ensure(home.path(), &users(&["svc.a"])).unwrap(), "quest");
        let after = read(&Identities::ensure(home.path(), &users(&["svc.b"])).unwrap(), "quest");
        assert_eq!(before.key.public_key(), after.key.public_key());
        assert_ne!(before.jwt, after.jwt);
    }

    #[test]
    fn users_that_are_gone_lose_their_credentials() {
        let home = tempfile::tempdir().unwrap();
        let identities = Identities::ensure(home.path(), &users(&[])).unwrap();
        assert!(identities.credentials("quest").exists());
        let identities = Identities::ensure(home.path(), &one_account([])).unwrap();
        assert!(!identities.credentials("quest").exists());
        assert!(identities.credentials(SYSTEM_USER).exists());
    }

    #[test]
    fn no_permission_is_said_as_a_denial() {
        assert_eq!(allow(&BTreeSet::new()), json!({ "deny": [">"] }));
    }

    fn check_refused(spoil: impl Fn(&Path), file: &str, message: &str, hint: &str) {
        let home = tempfile::tempdir().unwrap();
        Identities::ensure(home.path(), &users(&[])).unwrap();
        spoil(&home.path().join(file));
        let error = Identities::ensure(home.path(), &users(&[])).unwrap_err();
        assert_eq!(error.to_string(), format!("`{}` {message}", home.path().join(file).display()));
        assert!(crate::error::hint(&error).unwrap().contains(hint), "{error:?}");
    }

    #[test]
    fn a_lost_or_damaged_file_is_named_and_never_made_again() {
        let remove = |path: &Path| fs::remove_file(path).unwrap();
        let damage = |path: &Path| fs::write(path, "SOAAAA").unwrap();
        for seed in ["keys/operator.nk", "keys/account-SYS.nk", "keys/account-STORE.nk"] {
            check_refused(remove, seed, "is missing", "backup");
            check_refused(damage, seed, "is damaged", "backup");
        }
        check_refused(damage, "users/quest.creds", "is damaged", "new key");
    }

    #[test]
    fn an_interrupted_first_run_is_finished() {
        let home = tempfile::tempdir().unwrap();
        Identities::ensure(home.path(), &users(&[])).unwrap();
        let operator = fs::read_to_string(home.path().join("keys/operator.nk")).unwrap();
        for path in files(home.path()).into_keys().filter(|path| !path.ends_with("operator.nk")) {
            fs::remove_file(path).unwrap();
        }
        Identities::ensure(home.path(), &users(&[])).unwrap();
        assert_eq!(fs::read_to_string(home.path().join("keys/operator.nk")).unwrap(), operator);
    }
}
