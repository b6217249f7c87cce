use proptest::prelude::*;
use proto::rpc::Code;
use proto::state::manager::v1::{
    BatchGetResponse, HistoryResponse, Record, StoredRecord, UpdateRequest, UpdateResponse, update_request,
};
use proto::state::player::v1::Updated;
use proto::well_known::ListValue;
use serde_json::json;

use super::*;
use crate::testing::{object, value};

fn merged(target: serde_json::Value, patch: serde_json::Value) -> Struct {
    Patch::Merge(object(patch)).apply(object(target)).unwrap()
}

/// The examples of RFC 7396, appendix A, one level down, because a record is always an object.
#[test]
fn merge_patches_do_what_the_rfc_says() {
    let check = |target, patch, result: serde_json::Value| {
        let case = format!("{target} + {patch}");
        assert_eq!(merged(json!({ "v": target }), json!({ "v": patch })), object(json!({ "v": result })), "{case}");
    };
    check(json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"}));
    check(json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"}));
    check(json!({"a":"b"}), json!({"a":null}), json!({}));
    check(json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"}));
    check(json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"}));
    check(json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]}));
    check(json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}}));
    check(json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]}));
    check(json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"]));
    check(json!({"a":"b"}), json!(["c"]), json!(["c"]));
    check(json!({"a":"foo"}), json!("bar"), json!("bar"));
    check(json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1}));
    check(json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"}));
    check(json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}}));
    // The case that removes the member itself.
    assert_eq!(merged(json!({"v":{"a":"foo"}}), json!({ "v": null })), object(json!({})));
}

#[test]
fn merge_patches_do_what_the_long_example_of_the_rfc_says() {
    let target = json!({
        "title": "Goodbye!", "author": {"givenName": "John", "familyName": "Doe"},
        "tags": ["example", "sample"], "content": "This will be unchanged"
    });
    let patch = json!({
        "title": "Hello!", "phoneNumber": "+01-123-456-7890", "author": {"familyName": null}, "tags": ["example"]
    });
    let result = json!({
        "title": "Hello!", "author": {"givenName": "John"}, "tags": ["example"],
        "content": "This will be unchanged", "phoneNumber": "+01-123-456-7890"
    });
    assert_eq!(merged(target, patch), object(result));
}

fn fields(patches: &[(&str, Option<serde_json::Value>)]) -> Patch {
    let patch = |(path, new): &(&str, Option<serde_json::Value>)| FieldPatch {
        path: (*path).to_owned(),
        value: new.clone().map(value),
    };
    Patch::Fields(patches.iter().map(patch).collect())
}

#[test]
fn field_patches_set_and_remove() {
    let check = |patches: &[_], result: serde_json::Value| {
        let before = object(json!({"hp": 10, "inventory": {"gold": 5, "keys": ["a"]}}));
        assert_eq!(fields(patches).apply(before).unwrap(), object(result.clone()), "{patches:?}");
    };
    let rest = || json!({"gold": 5, "keys": ["a"]});
    check(&[("hp", Some(json!(11)))], json!({"hp": 11, "inventory": rest()}));
    check(&[("hp", None)], json!({ "inventory": rest() }));
    check(&[("hp", Some(json!(null)))], json!({"hp": null, "inventory": rest()}));
    check(&[("inventory.gold", Some(json!(6)))], json!({"hp": 10, "inventory": {"gold": 6, "keys": ["a"]}}));
    check(&[("inventory.gold", None)], json!({"hp": 10, "inventory": {"keys": ["a"]}}));
    check(&[("a.b.c", Some(json!({"d": [1]})))], json!({"a": {"b": {"c": {"d": [1]}}}, "hp": 10, "inventory": rest()}));
    check(&[("a.b.c", None)], json!({"hp": 10, "inventory": rest()}));
    check(
        &[("a", Some(json!(1))), ("a", None), ("hp", Some(json!(1))), ("hp", Some(json!(2)))],
        json!({"hp": 2, "inventory": rest()}),
    );
}

#[test]
fn invalid_paths_are_refused() {
    let check = |path: &str, new: Option<serde_json::Value>, error: PatchError| {
        let before = object(json!({"hp": 10, "a": {"list": [1], "nothing": null}}));
        assert_eq!(fields(&[(path, new)]).apply(before).unwrap_err(), error, "{path}");
    };
    for path in ["", ".", "a.", ".a", "a..b"] {
        check(path, Some(json!(1)), PatchError::EmptySegment(path.to_owned()));
        check(path, None, PatchError::EmptySegment(path.to_owned()));
    }
    for (path, through) in [("hp.max", "hp"), ("a.list.0", "a.list"), ("a.nothing.x.y", "a.nothing")] {
        let error = || PatchError::NotAnObject { path: path.to_owned(), through: through.to_owned() };
        check(path, Some(json!(1)), error());
        check(path, None, error());
    }
    let endless = vec!["a"; 1_000_000].join(".");
    check(&endless, Some(json!(1)), PatchError::TooDeep);
    check(&endless, None, PatchError::TooDeep);
}

#[test]
fn values_that_are_not_json_are_refused() {
    let check = |kind, error: fn(String) -> PatchError| {
        let bad = Value { kind };
        let listed = Value { kind: Some(Kind::ListValue(ListValue { values: vec![bad.clone()] })) };
        for bad in [bad, listed] {
            let field = FieldPatch { path: "x".to_owned(), value: Some(bad.clone()) };
            let merge = Struct { fields: [("x".to_owned(), bad)].into() };
            for patch in [Patch::Merge(merge), Patch::Fields(vec![field])] {
                assert_eq!(patch.apply(Struct::default()), Err(error("x".to_owned())));
            }
        }
    };
    check(None, PatchError::InvalidValue);
    check(Some(Kind::NumberValue(f64::NAN)), PatchError::NotFinite);
    check(Some(Kind::NumberValue(f64::INFINITY)), PatchError::NotFinite);
}

/// An object of this many levels.
fn nested(levels: usize) -> Struct {
    let mut data = Struct::default();
    for _ in 1..levels {
        let inner = Value { kind: Some(Kind::StructValue(data)) };
        data = Struct { fields: [("n".to_owned(), inner)].into() };
    }
    data
}

#[test]
fn the_deepest_record_can_be_decoded_in_every_message() {
    let mut deepest = nested(MAX_DEPTH);
    let path = format!("{}leaf", "n.".repeat(MAX_DEPTH - 1));
    set(&mut deepest, &path, Some(&value(json!(1)))).unwrap();
    assert_eq!(check(&deepest), Ok(()));

    let record = Record { data: Some(deepest.clone()), ..Record::default() };
    fn readable<M: prost::Message + Default + PartialEq + std::fmt::Debug>(message: &M) {
        assert_eq!(&M::decode(message.encode_to_vec().as_slice()).unwrap(), message);
    }
    readable(&StoredRecord { record: Some(record.clone()), ..StoredRecord::default() });
    readable(&UpdateRequest {
        change: Some(update_request::Change::Merge(deepest.clone())),
        ..UpdateRequest::default()
    });
    readable(&UpdateResponse { error: None, record: Some(record.clone()) });
    readable(&BatchGetResponse { records: vec![record.clone()], ..BatchGetResponse::default() });
    readable(&HistoryResponse { error: None, records: vec![record] });
    readable(&Updated { data: Some(deepest), ..Updated::default() });
}

#[test]
fn deeper_data_is_refused() {
    assert_eq!(Patch::Merge(nested(MAX_DEPTH)).apply(Struct::default()), Ok(nested(MAX_DEPTH)));
    assert_eq!(Patch::Merge(nested(MAX_DEPTH + 1)).apply(Struct::default()), Err(PatchError::TooDeep));

    let mut list = value(json!(1));
    for _ in 0..MAX_DEPTH {
        list = Value { kind: Some(Kind::ListValue(ListValue { values: vec![list] })) };
    }
    let patch = FieldPatch { path: "x".to_owned(), value: Some(list) };
    assert_eq!(Patch::Fields(vec![patch]).apply(Struct::default()), Err(PatchError::TooDeep));
}

#[test]
fn larger_data_is_refused() {
    let text = |length: usize| Patch::Merge(object(json!({ "t": "x".repeat(length) })));
    let overhead = text(100_000).apply(Struct::default()).unwrap().encoded_len() - 100_000;
    assert!(text(MAX_SIZE - overhead).apply(Struct::default()).is_ok());
    let error = text(MAX_SIZE - overhead + 1).apply(Struct::default()).unwrap_err();
    assert_eq!(error, PatchError::TooLarge(MAX_SIZE + 1));
    assert_eq!(Error::from(error).code(), Code::InvalidArgument);
    assert_eq!(Error::from(PatchError::TooDeep).code(), Code::InvalidArgument);
}

fn json_values() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|it| json!(it)),
        any::<i32>().prop_map(|it| json!(it)),
        "[a-z]{0,3}".prop_map(|it| json!(it)),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|it| json!(it)),
            prop::collection::btree_map("[a-c]", inner, 0..4).prop_map(|it| json!(it)),
        ]
    })
}

fn json_objects() -> impl Strategy<Value = serde_json::Value> {
    prop::collection::btree_map("[a-c]", json_values(), 0..4).prop_map(|it| json!(it))
}

/// The pseudocode of the RFC.
fn merge_patch(target: serde_json::Value, patch: serde_json::Value) -> serde_json::Value {
    let serde_json::Value::Object(patch) = patch else {
        return patch;
    };
    let mut target = match target {
        serde_json::Value::Object(target) => target,
        _ => serde_json::Map::new(),
    };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(&name);
        } else {
            let old = target.remove(&name).unwrap_or_default();
            target.insert(name, merge_patch(old, value));
        }
    }
    target.into()
}

proptest! {
    #[test]
    fn merging_agrees_with_the_rfcs_pseudocode(target in json_objects(), patch in json_objects()) {
        prop_assert_eq!(merged(target.clone(), patch.clone()), object(merge_patch(target, patch)));
    }

    #[test]
    fn merging_twice_is_merging_once(target in json_objects(), patch in json_objects()) {
        let patch = Patch::Merge(object(patch));
        let once = patch.apply(object(target)).unwrap();
        prop_assert_eq!(patch.apply(once.clone()).unwrap(), once);
    }

    #[test]
    fn set_fields_are_present_and_removed_fields_are_not(new in json_values(), path in "[a-c](\\.[d-f]){0,4}") {
        let set = fields(&[(&path, Some(new.clone()))]).apply(Struct::default()).unwrap();
        let mut found = value(json!(null));
        found.kind = Some(Kind::StructValue(set.clone()));
        for segment in path.split('.') {
            let Some(Kind::StructValue(inside)) = found.kind else { panic!("`{path}` is not there") };
            found = inside.fields[segment].clone();
        }
        prop_assert_eq!(found, value(new));

        let removed = fields(&[(&path, None)]).apply(set).unwrap();
        prop_assert_eq!(fields(&[(&path, None)]).apply(removed.clone()).unwrap(), removed);
    }
}
