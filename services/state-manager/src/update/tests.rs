use std::time::Duration;

use futures::FutureExt as _;
use proptest::prelude::*;
use proto::state::manager::v1::{FieldPatch, FieldPatches, Key, Kind};
use proto::well_known::{Struct, Timestamp};
use sdk::{Context, ExternalRequest, Operations};
use serde_json::json;

use super::*;
use crate::patch::MAX_SIZE;
use crate::testing::{object, value};

const SECONDS: u64 = 1_800_000_000;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(SECONDS)
}

/// The update, asked for with this idempotency key.
fn requested(key: &str, request: UpdateRequest) -> Result<Update, Error> {
    let timeout = Duration::from_secs(5);
    let request_with_key = ExternalRequest { traceparent: None, request_id: None, idempotency_key: Some(key), timeout };
    Context::external(request_with_key).scope(async { Update::new(request) }).now_or_never().unwrap()
}

fn request(expected_revision: Option<u64>, merge: serde_json::Value) -> UpdateRequest {
    UpdateRequest {
        key: Some(Key { kind: Kind::Entity.into(), id: "orc".to_owned() }),
        expected_revision,
        change: Some(update_request::Change::Merge(object(merge))),
        ..UpdateRequest::default()
    }
}

fn update(operation: &str, expected: Option<u64>, merge: serde_json::Value) -> Update {
    requested(operation, request(expected, merge)).unwrap()
}

/// Revision 5, stored at revision 7 of the bucket, written long ago by another operation.
fn old() -> Revision {
    Revision {
        key: update("x", None, json!({})).key,
        data: object(json!({"hp": 10})),
        updated_at: Timestamp { seconds: 1_799_996_400, nanos: 0 },
        operations: Operations::default(),
        replaced: 4,
        stored_at: 7,
    }
}

#[test]
fn invalid_requests_are_refused() {
    let check = |change, reason: &str| {
        let request = UpdateRequest { change, ..request(None, json!({})) };
        let error = requested("op", request).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains(reason), "{error}");
    };
    let fields =
        |count| Some(update_request::Change::Fields(FieldPatches { patches: vec![FieldPatch::default(); count] }));
    check(None, "change is missing");
    check(fields(0), "0 field patches");
    check(fields(MAX_PATCHES + 1), "1001 field patches");

    let without_key = UpdateRequest { key: None, ..request(None, json!({})) };
    assert!(requested("op", without_key).is_err());
}

#[test]
fn a_request_larger_than_two_records_is_refused_before_it_is_applied() {
    let merge = request(None, json!({ "t": "x".repeat(MAX_REQUEST_SIZE) }));
    let patch = FieldPatch { path: "t".to_owned(), value: Some(value(json!("x".repeat(MAX_REQUEST_SIZE / 10)))) };
    let patches = FieldPatches { patches: vec![patch; 10] };
    let fields = UpdateRequest { change: Some(update_request::Change::Fields(patches)), ..request(None, json!({})) };
    let removals: serde_json::Map<_, _> =
        (0..60_000).map(|number| (format!("f{number}"), serde_json::Value::Null)).collect();
    for request in [merge, fields, request(None, removals.into())] {
        let error = requested("op", request).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("more than 524288"), "{error}");
    }
}

#[test]
fn a_write_replaces_the_revision_that_was_read() {
    let check = |expected, current: Option<Revision>, data: serde_json::Value, (replaced, after)| {
        let update = update("op", expected, json!({"mp": 1}));
        let Decision::Write { next, previous } = update.decide(current, now()).unwrap() else {
            panic!("expected {expected:?}: no write");
        };
        assert_eq!(next.data, object(data));
        assert_eq!((next.replaced, next.number(), next.updated_at), (replaced, replaced + 1, now().into()));
        assert_eq!(previous, after);
        assert!(update.wrote(&next));
    };
    check(None, None, json!({"mp": 1}), (0, 0));
    check(Some(0), None, json!({"mp": 1}), (0, 0));
    check(None, Some(old()), json!({"hp": 10, "mp": 1}), (7, 5));
    check(Some(5), Some(old()), json!({"hp": 10, "mp": 1}), (7, 5));
}

#[test]
fn an_unexpected_revision_is_a_conflict() {
    let check = |expected, current: Option<Revision>, decision| {
        let update = update("op", Some(expected), json!({}));
        assert_eq!(update.decide(current, now()), Ok(decision), "expected {expected}");
    };
    check(0, Some(old()), Decision::Conflict { current: 5 });
    check(4, Some(old()), Decision::Conflict { current: 5 });
    check(6, Some(old()), Decision::Conflict { current: 5 });
    check(6, None, Decision::Conflict { current: 0 });
}

#[test]
fn conflicts_name_the_current_revision() {
    let check = |expected, current: u64, message: &str| {
        let error = update("op", expected, json!({})).conflict(current);
        assert_eq!(error.code(), Code::Aborted);
        assert_eq!(error.message(), message);
        assert_eq!(error.detail("current_revision"), Some(current.to_string().as_str()));
    };
    check(Some(0), 5, "entity `orc` exists already, at revision 5");
    check(Some(4), 5, "entity `orc` is at revision 5, not 4");
    check(Some(4), 0, "entity `orc` does not exist, so it is not at revision 4");
    check(None, 5, "entity `orc` is being changed by too many other writers");
}

#[test]
fn a_key_with_another_body_is_refused() {
    let first = request(None, json!({"hp": 1}));
    let Ok(Decision::Write { next, .. }) = requested("k", first.clone()).unwrap().decide(Some(old()), now()) else {
        panic!("no write");
    };
    let next = Revision { stored_at: 9, ..next };
    let check =
        |request: UpdateRequest, at: SystemTime| requested("k", request).unwrap().decide(Some(next.clone()), at);
    assert_eq!(check(first.clone(), now()), Ok(Decision::AlreadyApplied(next.clone())));
    let fields = update_request::Change::Fields(FieldPatches { patches: vec![FieldPatch::default()] });
    let others = [
        request(None, json!({"hp": 2})),
        request(Some(8), json!({"hp": 1})),
        UpdateRequest { change: Some(fields), ..first },
    ];
    for other in others {
        let error = check(other, now()).unwrap_err();
        assert_eq!((error.code(), error.detail("reason")), (Code::FailedPrecondition, Some("idempotency_key_reused")));
    }
    // Forgotten.
    let later = now() + sdk::REMEMBERED_FOR + Duration::from_secs(1);
    assert!(matches!(check(request(None, json!({"hp": 2})), later), Ok(Decision::Write { .. })));
}

#[test]
fn a_record_that_would_grow_too_large_is_not_written() {
    let current = Revision { data: object(json!({ "t": "x".repeat(MAX_SIZE - 100) })), ..old() };
    let error = update("op", None, json!({ "u": "x".repeat(200) })).decide(Some(current), now()).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

/// A bucket with the revisions of one record.
#[derive(Default)]
struct FakeBucket(Vec<Revision>);

impl FakeBucket {
    fn replace(&mut self, next: &Revision) -> bool {
        let accepted = self.0.last().map_or(0, |last| last.stored_at) == next.replaced;
        if accepted {
            let stored_at = 10 + 3 * self.0.len() as u64;
            self.0.push(Revision { stored_at, ..next.clone() });
        }
        accepted
    }

    fn run(&mut self, update: &Update, read: Option<Revision>) -> bool {
        match update.decide(read, now()).unwrap() {
            Decision::AlreadyApplied(_) => self.0.iter().any(|earlier| update.wrote(earlier)),
            Decision::Write { next, .. } => self.replace(&next),
            Decision::Conflict { .. } => false,
        }
    }
}

proptest! {
    /// Writers that read and write at different times, and that retry, each change the record once.
    #[test]
    fn no_accepted_update_is_lost_or_applied_twice(
        steps in prop::collection::vec((0_usize..4, any::<bool>()), 1..60)
    ) {
        let updates: Vec<_> = (0..4)
            .map(|writer| update(&format!("op{writer}"), None, json!({ format!("w{writer}"): true })))
            .collect();
        let mut bucket = FakeBucket::default();
        let mut reads: [Option<Option<Revision>>; 4] = [None, None, None, None];
        let mut accepted = [false; 4];
        for (writer, reading) in steps {
            if reading {
                reads[writer] = Some(bucket.0.last().cloned());
            } else if let Some(read) = reads[writer].take() {
                accepted[writer] |= bucket.run(&updates[writer], read);
            }
        }
        prop_assert!(bucket.0.is_sorted_by(|one, next| one.number() < next.number()));
        for writer in 0..4 {
            let times = bucket.0.iter().filter(|revision| updates[writer].wrote(revision)).count();
            prop_assert_eq!(times, usize::from(accepted[writer]));
        }
        let stored = bucket.0.last().map(|last| last.data.clone()).unwrap_or_default();
        let all = (0..4).filter(|writer| accepted[*writer]).map(|writer| (format!("w{writer}"), value(json!(true))));
        prop_assert_eq!(stored, Struct { fields: all.collect() });
    }
}
