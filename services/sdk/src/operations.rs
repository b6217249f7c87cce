//! Operations that records remember: a repeated request is carried out once, and an idempotency key means one request.
//!
//! An operation is named by its idempotency key, and remembered in the record that it changes together with a digest of
//! its request. Without a key, request id and request name it together: one request from outside may cause several calls.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message;
use prost::encoding::decode_varint;
use proto::common::v1 as common;
use proto::rpc::{Code, Error, Request};
use sha2::{Digest as _, Sha256};

use crate::context::context;
use crate::reason;

/// How long a record remembers an operation. After that, the same idempotency key is a new operation.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// How many operations a record remembers: 3.4 per second throughout [`REMEMBERED_FOR`]. They take 80 KiB.
pub const MAX_REMEMBERED: usize = 2_048;
/// Bytes of a digest that are stored.
const DIGEST_BYTES: usize = 12;
/// Tag and wire type of field 1, which is the metadata of every request.
const META_FIELD: u8 = 0x0a;

/// The operation that the request being handled asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    id: Bytes,
    request: Bytes,
    has_key: bool,
}

impl Operation {
    /// The operation of the current [`context`], which handles this request.
    pub fn of<R: Request>(request: &R) -> Self {
        let (context, method) = (context(), R::METHOD.name);
        match context.idempotency_key() {
            Some(key) => Self::with_key(key, method, request),
            None => Self::without_key(context.request_id(), method, request),
        }
    }

    fn with_key(key: &str, method: &str, request: &impl Message) -> Self {
        Self { id: digest(&[b"key", key.as_bytes()]), request: request_digest(method, request), has_key: true }
    }

    fn without_key(request_id: &str, method: &str, request: &impl Message) -> Self {
        let request = request_digest(method, request);
        Self { id: digest(&[b"request", request_id.as_bytes(), &request]), request, has_key: false }
    }

    /// Whether its caller named it with an idempotency key.
    pub fn has_key(&self) -> bool {
        self.has_key
    }

    /// Names what the operation makes, in 24 hexadecimal digits: the same whenever it is repeated.
    pub fn digits(&self) -> String {
        self.id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// This operation as it is remembered when it was carried out at `now`.
    pub fn remembered(&self, now: SystemTime) -> common::Operation {
        common::Operation { id: self.id.clone(), request: self.request.clone(), at_seconds: seconds(now) }
    }

    /// Whether a remembered operation is this one.
    ///
    /// # Errors
    /// FAILED_PRECONDITION with reason `idempotency_key_reused` if it has the same key and another request.
    pub fn is(&self, remembered: &common::Operation) -> Result<bool, Error> {
        if remembered.id != self.id {
            return Ok(false);
        }
        if remembered.request == self.request {
            return Ok(true);
        }
        Err(Error::failed_precondition("the idempotency key was used for another request")
            .with_detail(reason::KEY, reason::IDEMPOTENCY_KEY_REUSED))
    }
}

/// The operations that a record remembers, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Operations(Vec<common::Operation>);

impl From<Vec<common::Operation>> for Operations {
    fn from(stored: Vec<common::Operation>) -> Self {
        Self(stored)
    }
}

impl From<Operations> for Vec<common::Operation> {
    fn from(operations: Operations) -> Self {
        operations.0
    }
}

impl Operations {
    /// Whether the operation was carried out within [`REMEMBERED_FOR`] before `now`.
    ///
    /// # Errors
    /// FAILED_PRECONDITION with reason `idempotency_key_reused` if its key was used for another request.
    pub fn contain(&self, operation: &Operation, now: SystemTime) -> Result<bool, Error> {
        for remembered in self.0.iter().rev().filter(|remembered| is_kept(remembered.at_seconds, now)) {
            if operation.is(remembered)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the operation is the latest one.
    pub fn end_with(&self, operation: &Operation) -> bool {
        self.0.last().is_some_and(|last| last.id == operation.id && last.request == operation.request)
    }

    /// These operations and another one, carried out at `now`. Those older than [`REMEMBERED_FOR`] are forgotten.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED with `retry_after_ms` if there are [`MAX_REMEMBERED`] already.
    pub fn and(&self, operation: &Operation, now: SystemTime) -> Result<Self, Error> {
        let mut kept: Vec<_> = self.0.iter().filter(|it| is_kept(it.at_seconds, now)).cloned().collect();
        if kept.len() >= MAX_REMEMBERED {
            let oldest = kept.iter().map(|it| it.at_seconds).min().unwrap_or_default();
            let free_at = oldest + REMEMBERED_FOR.as_secs() + 1;
            let message = format!("the record was changed {MAX_REMEMBERED} times within {REMEMBERED_FOR:?}");
            return Err(Error::new(Code::ResourceExhausted, message)
                .with_detail(reason::RETRY_AFTER_MS, free_at.saturating_sub(seconds(now)).max(1) * 1_000));
        }
        kept.push(operation.remembered(now));
        Ok(Self(kept))
    }
}

fn is_kept(at_seconds: u64, now: SystemTime) -> bool {
    seconds(now) <= at_seconds.saturating_add(REMEMBERED_FOR.as_secs())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn request_digest(method: &str, request: &impl Message) -> Bytes {
    digest(&[method.as_bytes(), without_meta(&request.encode_to_vec())])
}

/// The encoded request without field 1, which is encoded first.
fn without_meta(encoded: &[u8]) -> &[u8] {
    let Some(mut rest) = encoded.strip_prefix(&[META_FIELD]) else {
        return encoded;
    };
    let length = decode_varint(&mut rest).ok().and_then(|length| usize::try_from(length).ok());
    length.and_then(|length| rest.get(length..)).unwrap_or(encoded)
}

/// A digest of the parts, which differs if they are divided in another way.
fn digest(parts: &[&[u8]]) -> Bytes {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    Bytes::copy_from_slice(&digest.finalize()[..DIGEST_BYTES])
}

#[cfg(test)]
mod tests {
    use proto::quest::v1::AcceptRequest;

    use super::*;

    fn request(player: &str) -> AcceptRequest {
        let meta = common::Meta { request_id: player.repeat(99), ..common::Meta::default() };
        AcceptRequest { meta: Some(meta), player_id: player.to_owned(), quest_id: "q".to_owned() }
    }

    fn keyed(key: &str, player: &str) -> Operation {
        Operation::with_key(key, "accept", &request(player))
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    #[test]
    fn metadata_is_no_part_of_a_request() {
        let other = AcceptRequest { meta: None, ..request("a") };
        assert_eq!(keyed("k", "a"), Operation::with_key("k", "accept", &other));
        let other = AcceptRequest { meta: Some(common::Meta::default()), ..request("a") };
        assert_eq!(keyed("k", "a"), Operation::with_key("k", "accept", &other));
    }

    #[test]
    fn what_an_operation_makes_has_the_same_name_whenever_it_is_repeated() {
        let digits = keyed("k", "a").digits();
        assert!(digits.len() == 24 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()), "{digits}");
        assert_eq!(digits, keyed("k", "a").digits());
        assert_ne!(digits, keyed("l", "a").digits());
    }

    #[test]
    fn a_key_with_another_request_is_refused() {
        let operations = Operations::default().and(&keyed("k", "a"), at(0)).unwrap();
        assert_eq!(operations.contain(&keyed("k", "a"), at(1)), Ok(true));
        assert_eq!(operations.contain(&keyed("l", "a"), at(1)), Ok(false));
        for other in [keyed("k", "b"), Operation::with_key("k", "abandon", &request("a"))] {
            let error = operations.contain(&other, at(1)).unwrap_err();
            assert_eq!(error.code(), Code::FailedPrecondition);
            assert_eq!(error.detail(reason::KEY), Some(reason::IDEMPOTENCY_KEY_REUSED));
        }
    }

    #[test]
    fn one_request_id_may_stand_for_several_requests() {
        let operation = |id: &str, player: &str| Operation::without_key(id, "accept", &request(player));
        let operations = Operations::default().and(&operation("r", "a"), at(0)).unwrap();
        assert_eq!(operations.contain(&operation("r", "a"), at(1)), Ok(true));
        assert_eq!(operations.contain(&operation("r", "b"), at(1)), Ok(false));
        assert_eq!(operations.contain(&keyed("r", "a"), at(1)), Ok(false));
    }

    #[test]
    fn an_operation_is_forgotten_by_time_and_not_by_count() {
        let mut operations = Operations::default().and(&keyed("k", "a"), at(0)).unwrap();
        for number in 0..100 {
            operations = operations.and(&keyed(&format!("other{number}"), "a"), at(number)).unwrap();
        }
        assert_eq!(operations.contain(&keyed("k", "a"), at(600)), Ok(true));
        assert_eq!(operations.contain(&keyed("k", "a"), at(601)), Ok(false));
        assert_eq!(operations.contain(&keyed("k", "b"), at(601)), Ok(false));
        assert_eq!(operations.and(&keyed("new", "a"), at(650)).unwrap().0.len(), 51);
    }

    #[test]
    fn a_record_full_of_young_operations_refuses_and_says_when_it_has_room() {
        let full = (0..MAX_REMEMBERED as u64).map(|number| keyed(&number.to_string(), "a").remembered(at(number / 4)));
        let full = Operations(full.collect());
        assert!(full.0.iter().map(Message::encoded_len).sum::<usize>() < 80 << 10);
        let error = full.and(&keyed("k", "a"), at(590)).unwrap_err();
        assert_eq!((error.code(), error.detail(reason::RETRY_AFTER_MS)), (Code::ResourceExhausted, Some("11000")));
        assert!(full.and(&keyed("k", "a"), at(601)).is_ok());
        assert_eq!(full.contain(&keyed("0", "a"), at(590)), Ok(true));
    }
}
