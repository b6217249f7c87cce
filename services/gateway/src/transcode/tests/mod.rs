//! Compares transcoding with `prost-reflect`, which uses a tree, and checks the errors of invalid texts.

mod exact;
mod random;

use std::sync::LazyLock;

use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};

use self::random::Choices;
use super::{InvalidBody, Schema, error_in, to_json, to_protobuf};

static KINDS: LazyLock<(DescriptorPool, Schema)> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/transcode/tests");
    let set = protox::compile(["kinds.proto"], [folder]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(set).unwrap();
    let schema = Schema::new(&pool).unwrap();
    (pool, schema)
});

static FLEET: LazyLock<(DescriptorPool, Schema)> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(proto::DESCRIPTORS).unwrap();
    (pool, Schema::for_fleet().unwrap())
});

/// Every message that a client can send or receive, and one with every kind of field.
static MESSAGES: LazyLock<Vec<(MessageDescriptor, &'static Schema)>> = LazyLock::new(|| {
    let everything = KINDS.0.get_message_by_name("kinds.v1.Everything").unwrap();
    let methods = proto::SERVICES.iter().flat_map(|service| service.methods);
    let names = methods.flat_map(|method| [method.input, method.output]);
    names.map(|name| (FLEET.0.get_message_by_name(name).unwrap(), &FLEET.1)).chain([(everything, &KINDS.1)]).collect()
});

fn from_json(descriptor: &MessageDescriptor, json: &[u8]) -> DynamicMessage {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    DynamicMessage::deserialize(descriptor.clone(), &mut deserializer)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(json)))
}

fn as_json(message: &DynamicMessage, options: &SerializeOptions) -> Vec<u8> {
    let mut serializer = serde_json::Serializer::new(Vec::new());
    message.serialize_with_options(&mut serializer, options).unwrap();
    serializer.into_inner()
}

/// The message as text that can be compared and read.
fn as_text(descriptor: &MessageDescriptor, bytes: &[u8]) -> String {
    let message = DynamicMessage::decode(descriptor.clone(), bytes).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&as_json(&message, &SerializeOptions::new())).unwrap();
    sorted(value).to_string()
}

/// Sorts members, because maps have no order.
fn sorted(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            members.sort_by(|left, right| left.0.cmp(&right.0));
            serde_json::Value::Object(members.into_iter().collect())
        }
        serde_json::Value::Array(items) => serde_json::Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn json_is_encoded_as_by_prost_reflect(entropy in prop::collection::vec(any::<u8>(), 0..600), which in any::<prop::sample::Index>(), spelling in 0..4u8) {
        let (descriptor, schema) = which.get(&MESSAGES);
        let mut message = random::message(descriptor, &mut Choices::new(&entropy), 4);
        message.clear_field_by_name("meta");
        let options = SerializeOptions::new()
            .use_proto_field_name(spelling & 1 == 0)
            .stringify_64_bit_integers(spelling & 2 == 0);
        let json = as_json(&message, &options);
        let shape = schema.id(descriptor.full_name()).unwrap();
        let bytes = to_protobuf(schema, shape, &json).unwrap();
        prop_assert_eq!(as_text(descriptor, &bytes), as_text(descriptor, &message.encode_to_vec()));
    }

    #[test]
    fn a_message_survives_a_round_trip_through_json(entropy in prop::collection::vec(any::<u8>(), 0..600), which in any::<prop::sample::Index>()) {
        let (descriptor, schema) = which.get(&MESSAGES);
        let mut message = random::message(descriptor, &mut Choices::new(&entropy), 4);
        message.clear_field_by_name("meta");
        let shape = schema.id(descriptor.full_name()).unwrap();
        let json = to_json(schema, shape, &message.encode_to_vec()).unwrap();
        let expected = as_text(descriptor, &message.encode_to_vec());
        prop_assert_eq!(as_text(descriptor, &from_json(descriptor, &json).encode_to_vec()), expected.clone());
        let bytes = to_protobuf(schema, shape, &json).unwrap();
        prop_assert_eq!(as_text(descriptor, &bytes), expected);
    }

    #[test]
    fn two_encodings_one_after_another_are_merged_as_by_prost_reflect(entropy in prop::collection::vec(any::<u8>(), 0..600), which in any::<prop::sample::Index>()) {
        let (descriptor, schema) = which.get(&MESSAGES);
        let (left, right) = entropy.split_at(entropy.len() / 2);
        let bytes = [left, right].map(|half| random::message(descriptor, &mut Choices::new(half), 4).encode_to_vec()).concat();
        // The sums of seconds and of nanoseconds need not be a time.
        if let Ok(json) = to_json(schema, schema.id(descriptor.full_name()).unwrap(), &bytes) {
            let expected = as_text(descriptor, &bytes);
            prop_assert_eq!(as_text(descriptor, &from_json(descriptor, &json).encode_to_vec()), expected);
        }
    }

    #[test]
    fn damaged_bytes_do_not_panic(entropy in prop::collection::vec(any::<u8>(), 0..400), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
        let (descriptor, schema) = MESSAGES.last().unwrap();
        let message = random::message(descriptor, &mut Choices::new(&entropy), 3);
        let mut bytes = message.encode_to_vec();
        for (at, byte) in flips {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let shape = schema.id(descriptor.full_name()).unwrap();
        if let Ok(json) = to_json(schema, shape, &bytes) {
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
        }
    }

    #[test]
    fn json_is_accepted_as_by_serde_json(text in "[\\[\\]{}:,\"a-f0-9.eE+\\-\\\\u \n]{0,60}") {
        let schema = &KINDS.1;
        let shape = schema.id("kinds.v1.Everything").unwrap();
        let ours = to_protobuf(schema, shape, format!("{{\"value\": {text}}}").as_bytes());
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        // JSON has numbers that no double holds, and objects with a key twice.
        let stricter = |bad: &InvalidBody| {
            ["exactly", "too small", "duplicate key"].iter().any(|reason| bad.problem().contains(reason))
        };
        match &ours {
            Err(bad) if stricter(bad) => {}
            _ => prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?}", ours, theirs),
        }
    }
}

fn everything(json: &str) -> Result<String, InvalidBody> {
    let schema = &KINDS.1;
    let shape = schema.id("kinds.v1.Everything").unwrap();
    let bytes = to_protobuf(schema, shape, json.as_bytes())?;
    Ok(String::from_utf8(to_json(schema, shape, &bytes).unwrap()).unwrap())
}

#[track_caller]
fn check(json: &str, expected: &str) {
    assert_eq!(everything(json).unwrap(), expected);
}

#[test]
fn numbers_may_be_written_in_many_ways() {
    check(r#"{"a_int32": 5.0}"#, r#"{"aInt32":5}"#);
    check(r#"{"a_int32": "5"}"#, r#"{"aInt32":5}"#);
    check(r#"{"aInt32": 1e2}"#, r#"{"aInt32":100}"#);
    check(r#"{"a_int64": -9223372036854775808}"#, r#"{"aInt64":"-9223372036854775808"}"#);
    check(r#"{"a_uint64": "18446744073709551615"}"#, r#"{"aUint64":"18446744073709551615"}"#);
    check(r#"{"a_double": "-Infinity"}"#, r#"{"aDouble":"-Infinity"}"#);
    check(r#"{"a_double": 0.1}"#, r#"{"aDouble":0.1}"#);
    check(r#"{"a_float": 0.1}"#, r#"{"aFloat":0.1}"#);
}

#[test]
fn numbers_survive_a_round_trip_exactly() {
    let mut values = vec![0.1, 5.034_427_608_383_001e-308, f64::MAX, f64::MIN_POSITIVE, -0.0, 1e15, 123_456_789.0];
    values.extend((0..2000_u64).map(|number| f64::from_bits(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
    for value in values.into_iter().filter(|value| value.is_finite()) {
        let schema = &KINDS.1;
        let shape = schema.id("google.protobuf.Struct").unwrap();
        let bytes = [&[0x0a, 14, 0x0a, 1, b'x', 0x12, 9, 0x11][..], &value.to_le_bytes()].concat();
        let json = to_json(schema, shape, &bytes).unwrap();
        let everything = schema.id("kinds.v1.Everything").unwrap();
        let text = [b"{\"struct\":", &json[..], b"}"].concat();
        let back = to_protobuf(schema, everything, &text).unwrap();
        assert_eq!(back[3..], bytes, "{value:?} {}", String::from_utf8_lossy(&json));
    }
    for value in (0..2000_u32).map(|number| f32::from_bits(number.wrapping_mul(0x9e37_79b9))) {
        if value.is_finite() {
            let text = format!("{{\"a_float\": {value:?}}}");
            let schema = &KINDS.1;
            let everything = schema.id("kinds.v1.Everything").unwrap();
            let bytes = to_protobuf(schema, everything, text.as_bytes()).unwrap();
            let json = to_json(schema, everything, &bytes).unwrap();
            assert_eq!(to_protobuf(schema, everything, &json).unwrap(), bytes, "{value:?}");
        }
    }
}

#[test]
fn null_is_absent_except_where_it_is_a_value() {
    check(r#"{"a_string": null, "first": null, "strings": null, "third": null}"#, r#"{"third":null}"#);
    check(r#"{"value": null}"#, r#"{"value":null}"#);
    check(r#"{"values": [null, 1]}"#, r#"{"values":[null,1]}"#);
    check(r#"{"struct": {"a": null}}"#, r#"{"struct":{"a":null}}"#);
}

#[test]
fn well_known_types_have_their_own_form() {
    check(r#"{"timestamp": "2026-01-31T12:00:00.5+01:00"}"#, r#"{"timestamp":"2026-01-31T11:00:00.500Z"}"#);
    check(r#"{"timestamp": "0001-01-01T00:00:00Z"}"#, r#"{"timestamp":"0001-01-01T00:00:00Z"}"#);
    check(r#"{"duration": "-0.5s"}"#, r#"{"duration":"-0.500s"}"#);
    check(r#"{"mask": "aInt32,aMessage.aString"}"#, r#"{"mask":"aInt32,aMessage.aString"}"#);
    check(r#"{"int64_value": 7, "empty": {}}"#, r#"{"empty":{},"int64Value":"7"}"#);
    check(r#"{"a_bytes": "_-8"}"#, r#"{"aBytes":"/+8="}"#);
}

#[test]
fn escapes_are_understood() {
    check(r#"{"a_string": "\u00e9\ud83d\ude00\n\"\\\/"}"#, "{\"aString\":\"é😀\\n\\\"\\\\/\"}");
    check(r#"{"\u0061_string": "x"}"#, r#"{"aString":"x"}"#);
}

#[test]
fn long_values_get_long_lengths() {
    let long = "x".repeat(70_000);
    check(
        &format!(r#"{{"a_message":{{"a_message":{{"a_string":"{long}"}}}}}}"#),
        &format!(r#"{{"aMessage":{{"aMessage":{{"aString":"{long}"}}}}}}"#),
    );
}

#[track_caller]
fn check_refused(json: &str, expected: &str) {
    let bad = everything(json).expect_err(json);
    let (line, column) = bad.position(json.as_bytes());
    assert_eq!(format!("{line}:{column} `{}` {}", bad.field(), bad.problem()), expected);
}

#[test]
fn invalid_json_is_refused_where_it_breaks() {
    check_refused("", "1:1 `` expected an object, but the text ends");
    check_refused("  \n ", "2:2 `` expected an object, but the text ends");
    check_refused("[]", "1:1 `` expected an object, found an array");
    check_refused("nul", "1:1 `` expected a value, but found `n`");
    check_refused("{", "1:2 `` expected a key in double quotes or `}`, but the text ends");
    check_refused("{\n  \"a_int32\": 1,\n}", "3:1 `` expected a key in double quotes, but found `}`");
    check_refused(r#"{"a_int32" 1}"#, "1:12 `` expected `:`, but found `1`");
    check_refused(r#"{"a_int32": 1 "a"}"#, "1:15 `` expected `,` or `}`, but found `\\\"`");
    check_refused(r#"{"a_int32": 01}"#, "1:14 `a_int32` expected the end of the number, but found `1`");
    check_refused(r#"{"a_int32": -}"#, "1:14 `a_int32` expected a digit, but found `}`");
    check_refused(r#"{"a_int32": 1} x"#, "1:16 `` expected the end of the text, but found `x`");
    check_refused(r#"{"strings": ["a",]}"#, "1:18 `strings` expected a value after `,`, but found `]`");
    check_refused(r#"{"a_string": "é"#, "1:16 `a_string` text ends within a string");
    check_refused("{\"a_string\": \"\t\"}", "1:15 `a_string` control characters in a string must be escaped");
    check_refused(r#"{"a_string": "\x"}"#, "1:15 `a_string` unknown escape in a string");
    check_refused(r#"{"a_string": "\ud800"}"#, "1:15 `a_string` half of a surrogate pair in a string");
    check_refused(r#"{"a_bool": truee}"#, "1:12 `` expected a value, but found `t`");
}

#[test]
fn the_wrong_type_is_refused_with_its_field() {
    check_refused(
        r#"{"a_uint32": -1}"#,
        "1:14 `a_uint32` expected a whole number from 0 to 4294967295, and `-1` is out of range",
    );
    check_refused(
        r#"{"a_message": {"messages": [{}, {"a_int32": 1.5}]}}"#,
        "1:45 `a_message.messages[1].a_int32` expected a whole number of 32 bits, found `1.5`",
    );
    check_refused(r#"{"a_string": 1}"#, "1:14 `a_string` expected a string, found a number");
    check_refused(r#"{"a_bool": "true"}"#, "1:12 `a_bool` expected true or false, found a string");
    check_refused(r#"{"strings": "a"}"#, "1:13 `strings` expected an array, found a string");
    check_refused(r#"{"strings": [null]}"#, "1:14 `strings[0]` expected a string, found null");
    check_refused(r#"{"by_string": {"k": 1}}"#, "1:21 `by_string.k` expected a string, found a number");
    check_refused(r#"{"by_int32": {"k": {}}}"#, "1:15 `by_int32.k` expected a whole number of 32 bits, found `k`");
    check_refused(
        r#"{"a_color": "RED"}"#,
        "1:13 `a_color` expected one of `COLOR_BLUE`, `COLOR_UNSPECIFIED`, `COLOR_RED`, found `RED`",
    );
    check_refused(r#"{"a_double": 1e999}"#, "1:14 `a_double` `1e999` is out of range");
    check_refused(r#"{"a_bytes": "%"}"#, "1:13 `a_bytes` expected a string in base64, and this is not base64");
    check_refused(
        r#"{"timestamp": "yesterday"}"#,
        "1:15 `timestamp` expected a time in RFC 3339, for example `\"2026-01-31T12:00:00Z\"`, found `yesterday`",
    );
    check_refused(
        r#"{"first": "a", "second": {}}"#,
        "1:16 `second` `first` is set already, and both are members of `choice`",
    );
    check_refused(r#"{"a_bool": true, "aBool": true}"#, "1:18 `aBool` duplicate field");
}

#[test]
fn an_unknown_field_is_refused_with_the_nearest_name() {
    check_refused(r#"{"a_message": {"a_strin": 1}}"#, "1:16 `a_message.a_strin` unknown field");
    let bad = everything(r#"{"a_strin": 1}"#).unwrap_err();
    assert_eq!(bad.hint(), Some("did you mean `a_string`?"));
}

#[test]
fn excessive_depth_is_refused() {
    let problem = |json: String| everything(&json).unwrap_err().problem().to_owned();
    let deep = "objects and arrays are nested deeper than 64";
    assert_eq!(problem(format!(r#"{{"value": {}"#, "[".repeat(500_000))), deep);
    assert_eq!(problem(r#"{"a_message":"#.repeat(100_000)), deep);
    assert_eq!(problem(format!(r#"{{"struct": {}"#, r#"{"a":"#.repeat(100_000))), deep);
}

#[test]
fn the_gateways_own_field_is_refused() {
    let (_, schema) = &*FLEET;
    let shape = schema.id("quest.v1.GenerateRequest").unwrap();
    let bad = to_protobuf(schema, shape, br#"{"meta": {}}"#).unwrap_err();
    assert_eq!(bad.field(), "meta");
    assert!(bad.hint().unwrap().contains("Idempotency-Key"));
}

#[test]
fn an_error_in_a_response_is_found_after_other_fields() {
    let mut bytes = vec![0x12, 1, b'x'];
    bytes.extend([0x0a, 4, 0x08, 2, 0x12, 0]);
    assert_eq!(error_in(&bytes).unwrap().unwrap().code, 2);
    assert_eq!(error_in(&bytes[..3]).unwrap(), None);
    assert!(error_in(&bytes[..5]).is_err());
}

#[test]
fn repeated_singular_fields_are_merged() {
    let (_, schema) = &*KINDS;
    let shape = schema.id("kinds.v1.Everything").unwrap();
    // a_int32 = 1, a_message = {a_int32: 2}, a_int32 = 3, a_message = {a_string: "x"}, an unknown field, `first`, then
    // `second`.
    let bytes = [
        &[0x18, 1][..],
        &[0x8a, 1, 2, 0x18, 2],
        &[0x18, 3],
        &[0x8a, 1, 3, 0x72, 1, b'x'],
        &[0xf8, 0x07, 1],
        &[0xb2, 1, 1, b'a'],
        &[0xba, 1, 0],
    ]
    .concat();
    let json = String::from_utf8(to_json(schema, shape, &bytes).unwrap()).unwrap();
    assert_eq!(json, r#"{"aInt32":3,"aMessage":{"aInt32":2,"aString":"x"},"second":{}}"#);
}
