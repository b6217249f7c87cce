//! Nothing is changed in silence: keys that occur twice, and numbers that their type does not hold.

use super::{KINDS, check, check_refused, everything, to_json};

#[test]
fn a_key_of_a_map_that_occurs_twice_is_refused() {
    check_refused(r#"{"by_string": {"a": "x", "a": "y"}}"#, "1:26 `by_string.a` duplicate key");
    check_refused(r#"{"struct": {"a": 0, "b": {"c": 1, "\u0063": 1}}}"#, "1:35 `struct.b.c` duplicate key");
    check_refused(r#"{"value": [{"a": null, "a": null}]}"#, "1:24 `value[0].a` duplicate key");
    check_refused(r#"{"by_uint64": {"1": 0, "1.0": 0}}"#, "1:24 `by_uint64.1.0` duplicate key");
    check_refused(r#"{"by_int32": {"10": {}, "1e1": {}}}"#, "1:25 `by_int32.1e1` duplicate key");
    check_refused(r#"{"by_bool": {"true": 1, "true": 1}}"#, "1:25 `by_bool.true` duplicate key");
    check(
        r#"{"messages": [{"by_string": {"a": ""}}, {"by_string": {"a": ""}}]}"#,
        r#"{"messages":[{"byString":{"a":""}},{"byString":{"a":""}}]}"#,
    );
}

#[test]
fn a_field_that_occurs_twice_is_refused_by_either_name() {
    check_refused(r#"{"a_message": {"a_bool": true, "a_bool": true}}"#, "1:32 `a_message.a_bool` duplicate field");
    check_refused(r#"{"aInt32": null, "a_int32": 1}"#, "1:18 `a_int32` duplicate field");
    check_refused(r#"{"strings": ["a"], "strings": ["b"]}"#, "1:20 `strings` duplicate field");
    check_refused(r#"{"first": "", "first": ""}"#, "1:15 `first` duplicate field");
    check_refused(
        r#"{"second": {}, "third": null}"#,
        "1:16 `third` `second` is set already, and both are members of `choice`",
    );
}

#[track_caller]
fn check_written(bytes: &[u8], expected: Result<&str, &str>) {
    let schema = &KINDS.1;
    let json = to_json(schema, schema.id("kinds.v1.Everything").unwrap(), bytes);
    let json = json.map(|json| String::from_utf8(json).unwrap()).map_err(|bad| bad.0);
    assert_eq!(json.as_deref().map_err(String::as_str), expected);
}

#[test]
fn of_entries_with_the_same_key_the_last_one_is_written() {
    // by_string: a = 1, b = 2, a = 3.
    let entry = |key: u8, value: u8| [0xc2, 2, 6, 0x0a, 1, key, 0x12, 1, value];
    let bytes = [entry(b'a', b'1'), entry(b'b', b'2'), entry(b'a', b'3')].concat();
    check_written(&bytes, Ok(r#"{"byString":{"b":"2","a":"3"}}"#));
    // by_bool: the keys 1 and 2 are both true, and an absent key is false.
    check_written(
        &[0xda, 2, 2, 8, 1, 0xda, 2, 2, 8, 2, 0xda, 2, 0, 0xda, 2, 2, 8, 0],
        Ok(r#"{"byBool":{"true":0,"false":0}}"#),
    );
    // struct: a = true, a = null.
    check_written(
        &[0xa2, 3, 16, 0x0a, 7, 0x0a, 1, b'a', 0x12, 2, 0x20, 1, 0x0a, 5, 0x0a, 1, b'a', 0x12, 0],
        Ok(r#"{"struct":{"a":null}}"#),
    );
}

/// A field of length-delimited content; its number is up to 15, or the two bytes of its tag.
fn delimited(tag: &[u8], content: &[u8]) -> Vec<u8> {
    [tag, &[u8::try_from(content.len()).unwrap()], content].concat()
}

#[test]
fn a_message_that_occurs_twice_in_an_entry_or_a_value_is_merged() {
    // by_int32: 7 = {a_int32: 2}, and again for the same entry {a_string: "x"}.
    let twice = [&[8, 7][..], &delimited(&[0x12], &[0x18, 2]), &delimited(&[0x12], &[0x72, 1, b'x'])].concat();
    check_written(&delimited(&[0xca, 2], &twice), Ok(r#"{"byInt32":{"7":{"aInt32":2,"aString":"x"}}}"#));
    // Two entries with the same key are not merged.
    let entry = |value: &[u8]| delimited(&[0xca, 2], &[&[8, 7][..], &delimited(&[0x12], value)].concat());
    let entries = [entry(&[0x18, 2]), entry(&[0x72, 1, b'x'])].concat();
    check_written(&entries, Ok(r#"{"byInt32":{"7":{"aString":"x"}}}"#));

    // value: struct_value {a: true}, and again {b: false}.
    let member = |key: u8, value: u8| delimited(&[0x0a], &[0x0a, 1, key, 0x12, 2, 0x20, value]);
    let halves = [delimited(&[0x2a], &member(b'a', 1)), delimited(&[0x2a], &member(b'b', 0))].concat();
    check_written(&delimited(&[0xaa, 3], &halves), Ok(r#"{"value":{"a":true,"b":false}}"#));
    // The same below a struct, with another member of the oneof between: that one forgets the first.
    let entry = |value: &[u8]| {
        let entry = [&[0x0a, 1, b's'][..], &delimited(&[0x12], value)].concat();
        delimited(&[0xa2, 3], &delimited(&[0x0a], &entry))
    };
    check_written(&entry(&halves), Ok(r#"{"struct":{"s":{"a":true,"b":false}}}"#));
    let between = [delimited(&[0x2a], &member(b'a', 1)), vec![0x20, 1], delimited(&[0x2a], &member(b'b', 0))].concat();
    check_written(&entry(&between), Ok(r#"{"struct":{"s":{"b":false}}}"#));
    // value: list_value [true], and again [false].
    let lists = [delimited(&[0x32], &[0x0a, 2, 0x20, 1]), delimited(&[0x32], &[0x0a, 2, 0x20, 0])].concat();
    check_written(&delimited(&[0xaa, 3], &lists), Ok(r#"{"value":[true,false]}"#));
}

#[test]
fn a_message_that_once_has_another_type_is_an_error() {
    let json = to_json(&KINDS.1, KINDS.1.id("kinds.v1.Everything").unwrap(), &[0x8a, 1, 0, 0x88, 1, 1]);
    assert!(json.unwrap_err().0.contains("`a_message`"));
}

#[test]
fn whole_numbers_that_a_double_does_not_hold_are_refused() {
    check_refused(
        r#"{"struct": {"steam_id": 76561198000000001}}"#,
        "1:25 `struct.steam_id` `76561198000000001` is not a double exactly, the nearest one is `7.6561198e16`",
    );
    check_refused(
        r#"{"values": [1, -9007199254740993]}"#,
        "1:16 `values[1]` `-9007199254740993` is not a double exactly, the nearest one is `-9.007199254740992e15`",
    );
    check_refused(
        r#"{"double_value": 9007199254740993.0}"#,
        "1:18 `double_value` `9007199254740993.0` is not a double exactly, the nearest one is `9.007199254740992e15`",
    );
    check_refused(
        r#"{"a_float": "16777217"}"#,
        "1:13 `a_float` `16777217` is not a float exactly, the nearest one is `1.6777216e7`",
    );
    let bad = everything(r#"{"value": 76561198000000001}"#).unwrap_err();
    assert_eq!(bad.hint(), Some("send it as a string, which holds every number"));
    check(r#"{"a_float": 3.6005644498940314e34}"#, r#"{"aFloat":3.6005644e34}"#);
    check(r#"{"value": 9007199254740992}"#, r#"{"value":9007199254740992}"#);
    check(r#"{"value": 36893488147419103232}"#, r#"{"value":3.6893488147419103e19}"#);
    check(r#"{"values": [1e23, 0.1, 3.14159265358979323846]}"#, r#"{"values":[1e23,0.1,3.141592653589793]}"#);
    check(r#"{"value": "76561198000000001"}"#, r#"{"value":"76561198000000001"}"#);
}

#[test]
fn numbers_out_of_the_range_of_their_type_are_refused_with_this_reason() {
    check_refused(r#"{"a_float": 1e39}"#, "1:13 `a_float` `1e39` is out of range");
    check_refused(r#"{"value": -1e400}"#, "1:11 `value` `-1e400` is out of range");
    check_refused(r#"{"a_double": 1e-400}"#, "1:14 `a_double` `1e-400` is too small for a double, which would be 0");
    check_refused(r#"{"a_float": 1e-60}"#, "1:13 `a_float` `1e-60` is too small for a float, which would be 0");
    check(r#"{"a_double": 0e400}"#, "{}");
    for text in ["1e18", "-1e400", "1e99999999999999999999", "4294967296", "1e10"] {
        let expected =
            format!("1:14 `a_uint32` expected a whole number from 0 to 4294967295, and `{text}` is out of range");
        check_refused(&format!(r#"{{"a_uint32": {text}}}"#), &expected);
    }
    for text in ["1.5", "1e-400", "1e-99999999999999999999", "1.0000000000000000000001"] {
        let expected = format!("1:13 `a_int64` expected a whole number of 64 bits, found `{text}`");
        check_refused(&format!(r#"{{"a_int64": {text}}}"#), &expected);
    }
    check(r#"{"a_int64": 1e18}"#, r#"{"aInt64":"1000000000000000000"}"#);
    check(r#"{"a_int64": "9007199254740993.0"}"#, r#"{"aInt64":"9007199254740993"}"#);
    check(r#"{"by_uint64": {"1.8446744073709551615e19": 1}}"#, r#"{"byUint64":{"18446744073709551615":"COLOR_RED"}}"#);
}

#[test]
fn a_value_that_is_no_number_of_json_is_an_error_of_the_response() {
    for (number, name) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")] {
        let bits = number.to_le_bytes();
        let error = format!("a `google.protobuf.Value` is the number `{name}`, which JSON does not have");
        check_written(&[&[0xaa, 3, 9, 0x11][..], &bits].concat(), Err(&error));
        // In a struct, and in a list.
        check_written(&[&[0xa2, 3, 16, 0x0a, 14, 0x0a, 1, b'a', 0x12, 9, 0x11][..], &bits].concat(), Err(&error));
        check_written(&[&[0xb2, 3, 11, 0x0a, 9, 0x11][..], &bits].concat(), Err(&error));
    }
    // A field of the type double has these values.
    check_written(&[&[9][..], &f64::NAN.to_le_bytes()].concat(), Ok(r#"{"aDouble":"NaN"}"#));
}
