use std::time::Duration;

use proto::state::manager::v1::{FieldPatch, FieldPatches, Key, Kind};
use serde_json::json;

use super::*;
use crate::patch::MAX_SIZE;
use crate::testing::{object, value};

const SECONDS: u64 = 1_800_000_000;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(SECONDS)
}

fn request(expected_revision: Option<u64>, merge: serde_json::Value) -> UpdateRequest {
    UpdateRequest {
        key: Some(Key { kind: Kind::Entity.into(), id: "orc".to_owned() }),
        expected_revision,
        change: Some(update_request::Change::Merge(object(merge))),
        ..UpdateRequest::default()
    }
}

fn update(expected: Option<u64>, merge: serde_json::Value) -> Update {
    Update::new(request(expected, merge)).unwrap()
}

/// Revision 5, stored at revision 7 of the bucket.
fn old(data: serde_json::Value) -> Stored<StoredRecord> {
    let record = Record { data: Some(object(data)), ..Record::default() };
    Stored::at("orc", 7, StoredRecord { record: Some(record), replaced_revision: 4 })
}

#[test]
fn invalid_requests_are_refused() {
    let check = |change, reason: &str| {
        let request = UpdateRequest { change, ..request(None, json!({})) };
        let error = Update::new(request).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains(reason), "{error}");
    };
    let fields =
        |count| Some(update_request::Change::Fields(FieldPatches { patches: vec![FieldPatch::default(); count] }));
    check(None, "change: `merge` or `fields` is missing");
    check(fields(0), "the number of field patches is 0");
    check(fields(MAX_PATCHES + 1), "the number of field patches is 1001");

    let without_key = UpdateRequest { key: None, ..request(None, json!({})) };
    assert!(Update::new(without_key).is_err());
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
        let error = Update::new(request).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("more than 524288"), "{error}");
    }
}

#[test]
fn a_write_replaces_the_revision_that_was_read() {
    let check = |expected, current: Option<Stored<StoredRecord>>, data: serde_json::Value, replaced| {
        let next = update(expected, json!({"mp": 1})).apply(current.as_ref(), now()).unwrap();
        assert_eq!((next.replaced_revision, revision(&next)), (replaced, replaced + 1));
        let record = next.record.unwrap();
        assert_eq!((record.data, record.updated_at), (Some(object(data)), Some(now().into())));
    };
    check(None, None, json!({"mp": 1}), 0);
    check(Some(0), None, json!({"mp": 1}), 0);
    check(None, Some(old(json!({"hp": 10}))), json!({"hp": 10, "mp": 1}), 7);
    check(Some(5), Some(old(json!({"hp": 10}))), json!({"hp": 10, "mp": 1}), 7);
}

#[test]
fn an_unexpected_revision_is_a_conflict_that_names_the_current_one() {
    let check = |expected, current: Option<Stored<StoredRecord>>, message: &str, current_revision| {
        let error = update(Some(expected), json!({})).apply(current.as_ref(), now()).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Aborted, message));
        assert_eq!(error.detail("current_revision"), Some(current_revision));
    };
    let old = || Some(old(json!({})));
    check(0, old(), "entity `orc` exists already, at revision 5", "5");
    check(4, old(), "entity `orc` is at revision 5, not 4", "5");
    check(6, old(), "entity `orc` is at revision 5, not 6", "5");
    check(6, None, "entity `orc` does not exist, so it is not at revision 6", "0");
}

#[test]
fn a_record_that_would_grow_too_large_is_not_written() {
    let current = old(json!({ "t": "x".repeat(MAX_SIZE - 100) }));
    let error = update(None, json!({ "u": "x".repeat(200) })).apply(Some(&current), now()).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}
