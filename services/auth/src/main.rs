//! Users, their passwords, and the tokens of their sessions.

mod attempts;
mod password;
mod session;
mod token;
mod user;

use std::mem::take;
use std::time::SystemTime;

use proto::audit::auth::v1::{
    LoggedIn, LoginRefused, RefreshRefused, Refreshed, Registered, RolesChanged, SessionRevoked,
};
use proto::auth::v1::{
    Auth, AuthServer, LoginRequest, LoginResponse, RefreshRequest, RefreshResponse, RegisterRequest, RegisterResponse,
    RevokeAllRequest, RevokeAllResponse, RevokeRequest, RevokeResponse, SetRolesRequest, SetRolesResponse,
    StoredAttempts, StoredKey, StoredSession, StoredUser, Tokens, User, ValidateRequest, ValidateResponse,
};
use sdk::{Code, Error, Fleet, Id, Next, Operation, Records, Stored, check_range, reason};

use crate::attempts::Source;
use crate::password::Passwords;
use crate::session::{Exchange, denied};
use crate::token::{Signer, timestamp};
use crate::user::{SessionKey, Username};

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(AuthServer).run()
}

struct Service {
    fleet: Fleet,
    passwords: Passwords,
    signer: Signer,
    users: Records<StoredUser>,
    sessions: Records<StoredSession>,
    attempts: Records<StoredAttempts>,
}

impl Auth for Service {
    async fn register(&self, mut request: RegisterRequest) -> Result<RegisterResponse, Error> {
        // A record remembers a digest of the request, which must not tell anything about the password.
        let password = take(&mut request.password);
        let operation = Operation::of(&request);
        let name = Username::new(&request.username)?;
        password::check(&password)?;
        let password_hash = self.passwords.hash(password).await?;
        let registered_at = Some(timestamp(self.now()));
        let user = User { username: request.username.clone(), roles: Vec::new(), registered_at };
        let register = |current: Option<&Stored<StoredUser>>| match current {
            Some(_) => Err(Error::new(Code::AlreadyExists, format!("{name} exists"))),
            None => {
                let stored = StoredUser { user: Some(user.clone()), password_hash: password_hash.clone() };
                Ok(Next::write(stored).and_publish(Registered { meta: None, username: request.username.clone() }))
            }
        };
        Ok(user_of(self.users.change(&name, &operation, register).await?).into())
    }

    async fn login(&self, mut request: LoginRequest) -> Result<LoginResponse, Error> {
        let password = take(&mut request.password);
        let operation = Operation::of(&request);
        let name = Username::new(&request.username)?;
        check_range("the number of bytes of the password", password.len(), 1..=128)?;
        let now = self.now();
        let mut sources = vec![Source::User(request.username.clone())];
        sources.extend(Source::address(&request.client_address)?);
        let LoginRequest { username, client_address, .. } = request;
        let refused = |because: &str| LoginRefused {
            meta: None,
            username: username.clone(),
            client_address: client_address.clone(),
            reason: because.to_owned(),
        };
        if let Err(error) = self.reserve(&sources, &operation, now).await {
            if error.code() == Code::ResourceExhausted {
                self.fleet.publish(refused("too_many_attempts")).await?;
            }
            return Err(error);
        }
        let user = self.users.find(&name).await?;
        let hash = user.as_ref().map(|user| user.value.password_hash.clone());
        let is_right = self.passwords.verify(password, hash).await?;
        let Some(user) = user.filter(|_| is_right) else {
            self.fleet.publish(refused("invalid_credentials")).await?;
            return Err(denied("invalid_credentials", "user name or password is wrong"));
        };
        self.forgive(&sources, now).await?;
        let key = SessionKey { username: username.clone(), id: operation.digits() };
        let login = |current: Option<&Stored<StoredSession>>| match current {
            // A repeated login of long ago.
            Some(current) => session::valid(Some(&current.value), now).map(|_| Next::keep()),
            None => {
                let (username, session_id) = (username.clone(), key.id.clone());
                let event = LoggedIn { meta: None, username, session_id, client_address: client_address.clone() };
                Ok(Next::write(session::begun(&key.id, name.as_str(), now)).and_publish(event))
            }
        };
        let begun = self.sessions.change(&key, &operation, login).await?;
        Ok(self.signer.issue(&begun.value, &user_of(user).roles)?.into())
    }

    async fn refresh(&self, request: RefreshRequest) -> Result<RefreshResponse, Error> {
        let operation = Operation::of(&request);
        let (key, generation) = match self.signer.refresh(&request.refresh_token) {
            Ok((token, generation)) => (SessionKey { username: token.sub, id: token.sid }, generation),
            Err(error) => return Err(self.refresh_refused("", "", error).await),
        };
        match self.exchange(&key, generation, &operation).await {
            Ok(tokens) => Ok(tokens.into()),
            Err(error) => Err(self.refresh_refused(&key.username, &key.id, error).await),
        }
    }

    async fn validate(&self, request: ValidateRequest) -> Result<ValidateResponse, Error> {
        let now = self.now();
        let claims = self.signer.access(&request.access_token, now)?;
        let key = SessionKey { username: claims.username.clone(), id: claims.session_id.clone() };
        let session = self.sessions.find(&key).await?;
        session::valid(session.as_ref().map(|session| &session.value), now)?;
        Ok(claims.into())
    }

    async fn revoke(&self, request: RevokeRequest) -> Result<RevokeResponse, Error> {
        let operation = Operation::of(&request);
        let (token, _) = self.signer.refresh(&request.refresh_token)?;
        self.revoke_session(&SessionKey { username: token.sub, id: token.sid }, &operation).await?;
        Ok(RevokeResponse::default())
    }

    async fn revoke_all(&self, request: RevokeAllRequest) -> Result<RevokeAllResponse, Error> {
        let operation = Operation::of(&request);
        let name = Username::new(&request.username)?;
        self.users.get(&name).await?;
        let mut sessions = 0;
        for stored in self.sessions.list(&format!("{}.*", name.as_str())).await? {
            if stored.value.is_revoked {
                continue;
            }
            let StoredSession { username, id, .. } = stored.value;
            self.revoke_session(&SessionKey { username, id }, &operation).await?;
            sessions += 1;
        }
        Ok(RevokeAllResponse { error: None, sessions })
    }

    async fn set_roles(&self, request: SetRolesRequest) -> Result<SetRolesResponse, Error> {
        let operation = Operation::of(&request);
        let name = Username::new(&request.username)?;
        let roles = user::roles(request.roles)?;
        let change = |current: Option<&Stored<StoredUser>>| {
            let mut stored = current.ok_or_else(|| Error::not_found(&name))?.value.clone();
            stored.user.get_or_insert_default().roles.clone_from(&roles);
            let event = RolesChanged { meta: None, username: name.as_str().to_owned(), roles: roles.clone() };
            Ok(Next::write(stored).and_publish(event))
        };
        Ok(user_of(self.users.change(&name, &operation, change).await?).into())
    }
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let passwords = Passwords::new(|name| std::env::var(name)).await?;
        Self::with(fleet, passwords).await
    }

    async fn with(fleet: Fleet, passwords: Passwords) -> Result<Self, Error> {
        let keys = fleet.records::<StoredKey>("signing").await?;
        let id = Id::new("signing key", "current", 64)?;
        // The first task makes the key, and the others find it.
        if keys.find(&id).await?.is_none() {
            keys.create(&id, &token::new_key()?).await?;
        }
        Ok(Self {
            passwords,
            signer: Signer::new(&keys.get(&id).await?.value),
            users: fleet.records("users").await?,
            sessions: fleet.records("sessions").await?,
            attempts: fleet.records("attempts").await?,
            fleet,
        })
    }

    /// In seconds since 1970.
    fn now(&self) -> i64 {
        let since = self.fleet.clock().now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }

    /// Counts an attempt before the password is looked at: attempts at once count, too.
    async fn reserve(&self, sources: &[Source], operation: &Operation, now: i64) -> Result<(), Error> {
        let keys: Vec<&Source> = sources.iter().collect();
        let reserve = |current: &[Option<Stored<StoredAttempts>>]| {
            let attempts = sources.iter().zip(current).map(|(source, current)| {
                source.reserve(current.as_ref().map(|current| &current.value), now).map(Next::write)
            });
            attempts.collect()
        };
        self.attempts.change_all(&keys, operation, reserve).await.map(drop)
    }

    async fn forgive(&self, sources: &[Source], at: i64) -> Result<(), Error> {
        for source in sources {
            let forgive = |stored: &Stored<StoredAttempts>| Ok(Next::write(source.succeeded(&stored.value, at)));
            self.attempts.update(source, forgive).await?;
        }
        Ok(())
    }

    async fn exchange(&self, key: &SessionKey, generation: u64, operation: &Operation) -> Result<Tokens, Error> {
        let now = self.now();
        let exchange = |current: Option<&Stored<StoredSession>>| {
            let (username, session_id) = (key.username.clone(), key.id.clone());
            Ok(match session::exchange(current.map(|current| &current.value), generation, now)? {
                Exchange::Rotated(session) => {
                    Next::write(session).and_publish(Refreshed { meta: None, username, session_id })
                }
                Exchange::Reused(session) => Next::write(session).and_publish(revoked(key, "reused")),
            })
        };
        let session = self.sessions.change(key, operation, exchange).await?.value;
        if session.is_revoked {
            return Err(denied("reused", "the refresh token was used before: its session is revoked, log in again"));
        }
        let user = self.users.get(&Username::new(&key.username)?).await?;
        self.signer.issue(&session, &user_of(user).roles)
    }

    /// Publishes that a refresh token was refused, and returns why. That it was used before is known already.
    async fn refresh_refused(&self, username: &str, session_id: &str, error: Error) -> Error {
        let because = error.detail(reason::KEY).unwrap_or_default().to_owned();
        if error.code() != Code::PermissionDenied || because == "reused" {
            return error;
        }
        let (username, session_id) = (username.to_owned(), session_id.to_owned());
        let event = RefreshRefused { meta: None, username, session_id, reason: because };
        self.fleet.publish(event).await.err().unwrap_or(error)
    }

    async fn revoke_session(&self, key: &SessionKey, operation: &Operation) -> Result<(), Error> {
        let revoke = |current: Option<&Stored<StoredSession>>| {
            let session = &current.ok_or_else(|| Error::not_found(key))?.value;
            if session.is_revoked {
                return Ok(Next::keep());
            }
            let session = StoredSession { is_revoked: true, ..session.clone() };
            Ok(Next::write(session).and_publish(revoked(key, "requested")))
        };
        self.sessions.change(key, operation, revoke).await.map(drop)
    }
}

fn user_of(stored: Stored<StoredUser>) -> User {
    stored.value.user.unwrap_or_default()
}

fn revoked(key: &SessionKey, because: &str) -> SessionRevoked {
    let SessionKey { username, id } = key.clone();
    SessionRevoked { meta: None, username, session_id: id, reason: because.to_owned() }
}

#[cfg(test)]
mod tests;
