//! What the document describes and what the gateway takes are the same, as a foreign validator of JSON Schema sees it.

use std::sync::LazyLock;

use jsonschema::Validator;
use proptest::prelude::*;
use prost_reflect::DescriptorPool;

use super::*;
use crate::transcode::{InvalidBody, to_json, to_protobuf};

static KINDS: LazyLock<Schema> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/transcode/tests");
    let set = protox::compile(["kinds.proto"], [folder]).unwrap();
    Schema::new(&DescriptorPool::from_file_descriptor_set(set).unwrap()).unwrap()
});

static FLEET: LazyLock<Schema> = LazyLock::new(|| Schema::for_fleet().unwrap());

/// A message with the validator of what the document says about it.
struct Described {
    schema: &'static Schema,
    id: MessageId,
    validator: Validator,
}

impl Described {
    fn new(schema: &'static Schema, id: MessageId, components: &Map<String, Value>) -> Self {
        let mut document = reference(&schema.message(id).name);
        document["components"] = json!({ "schemas": components });
        let validator = jsonschema::draft202012::new(&document).unwrap();
        Self { schema, id, validator }
    }

    /// Whether the document allows this text; `None` if a parser of JSON refuses it.
    fn allows(&self, text: &str) -> Option<bool> {
        Some(self.validator.is_valid(&serde_json::from_str(text).ok()?))
    }

    fn accepts(&self, text: &str) -> Result<(), InvalidBody> {
        to_protobuf(self.schema, self.id, text.as_bytes()).map(drop)
    }
}

/// Every request of the fleet, and a message with every kind of field.
static REQUESTS: LazyLock<Vec<Described>> = LazyLock::new(|| {
    let methods: Vec<&Method> = proto::SERVICES.iter().flat_map(|service| service.methods).collect();
    let document = document(&methods, &FLEET, &Limits::default());
    let components = document["components"]["schemas"].as_object().unwrap();
    let mut all: Vec<_> =
        methods.iter().map(|method| Described::new(&FLEET, FLEET.id(method.input).unwrap(), components)).collect();
    all.push(everything(Use::Request));
    all
});

fn everything(use_of: Use) -> Described {
    let id = KINDS.id("kinds.v1.Everything").unwrap();
    let mut schemas = Schemas { use_of, ..Schemas::new(&KINDS) };
    schemas.message(id);
    Described::new(&KINDS, id, &schemas.done)
}

static EVERYTHING: LazyLock<Described> = LazyLock::new(|| everything(Use::Request));

/// The value of a field of [`EVERYTHING`]: both must take it, or neither.
#[track_caller]
fn check(field: &str, value: &str, taken: bool) {
    let text = format!("{{\"{field}\": {value}}}");
    assert_eq!(EVERYTHING.accepts(&text).map_err(|bad| bad.problem().to_owned()).is_ok(), taken, "gateway: {text}");
    assert_eq!(EVERYTHING.allows(&text), Some(taken), "document: {text}");
}

#[test]
fn whole_numbers_have_the_same_forms_and_limits() {
    let limits = [
        ("a_int32", "-2147483648", "-2147483649", "2147483647", "2147483648"),
        ("a_sfixed32", "-2147483648", "-2147483649", "2147483647", "2147483648"),
        ("a_uint32", "-0", "-1", "4294967295", "4294967296"),
        ("a_fixed32", "0", "-1", "4294967295", "4294967296"),
        ("a_int64", "-9223372036854775808", "-9223372036854775809", "9223372036854775807", "9223372036854775808"),
        ("a_sint64", "-9223372036854775808", "-9223372036854775809", "9223372036854775807", "9223372036854775808"),
        ("a_uint64", "-0", "-1", "18446744073709551615", "18446744073709551616"),
        ("int64_value", "-9223372036854775808", "-9223372036854775809", "9223372036854775807", "9223372036854775808"),
    ];
    for (field, least, too_small, most, too_large) in limits {
        for (number, taken) in [(least, true), (too_small, false), (most, true), (too_large, false)] {
            check(field, &format!("\"{number}\""), taken);
            // The validator sees a double, which is the smallest number of 64 bits.
            check(field, if number == "-9223372036854775809" { "-9223372036854777856" } else { number }, taken);
        }
        for text in ["0", "7", "10", "1e3", "1E+3", "12e2", "1.0", "100.000", "-0"] {
            check(field, &format!("\"{text}\""), true);
        }
        for text in ["007", "+1", "", " 1", "1 ", "0x1", "1.5", "1e-3", "1e", ".5", "1.", "--1", "1e99", "one", "NaN"] {
            check(field, &format!("\"{text}\""), false);
        }
        for number in ["1e3", "1.0", "-0.0", "10e-1"] {
            check(field, number, true);
        }
        for number in ["1.5", "1e-3", "1e99", "true", "[]", "{}"] {
            check(field, number, false);
        }
        check(field, "null", true);
    }
    check("a_int32", "\"999999999e0\"", true);
    check("a_int32", "\"9999999990e0\"", false);
}

#[test]
fn other_kinds_have_the_same_forms() {
    for (field, taken, refused) in [
        ("a_bool", &["true", "false"][..], &["\"true\"", "1", "\"\""][..]),
        ("a_string", &["\"\"", "\"\\u0000\""], &["1", "[]"]),
        (
            "a_double",
            &["1.5", "\"1.5\"", "\"NaN\"", "\"-Infinity\"", "1e308"],
            &["\"nan\"", "\"+1\"", "\"\"", "\"1.\""],
        ),
        ("a_float", &["3.4028235e38", "-3.4028235e38", "0.1"], &["3.5e38", "-1e300", "\"inf\"", "true"]),
        ("a_color", &["\"COLOR_RED\"", "1", "-5", "77", "1.0"], &["\"RED\"", "\"1\"", "2147483648", "1.5", "[]"]),
        ("third", &["null", "\"NULL_VALUE\"", "0"], &["\"null\"", "\"\"", "1", "{}"]),
        (
            "a_bytes",
            &[
                "\"\"", "\"AA\"", "\"AA=\"", "\"AA==\"", "\"AAA\"", "\"AAA=\"", "\"AAAA\"", "\"_-8\"", "\"/+8=\"",
                "\"//8\"",
            ],
            &[
                "\"A\"",
                "\"A===\"",
                "\"AAAA=\"",
                "\"AAAAA\"",
                "\"_+8\"",
                "\"AA A\"",
                "\"AA==AA\"",
                "\"=\"",
                "\"%\"",
                "1",
            ],
        ),
        (
            "timestamp",
            &[
                "\"2026-01-31T12:00:00Z\"",
                "\"2026-01-31t12:00:00.5z\"",
                "\"2024-02-29T23:59:59.123456789+05:30\"",
                "\"0001-01-01T00:00:00Z\"",
                "\"9999-12-31T23:59:59-00:00\"",
            ],
            &[
                "\"2026-01-31 12:00:00Z\"",
                "\"2026-01-31T12:00:00\"",
                "\"2026-01-31T12:00Z\"",
                "\"2026-01-31T12:00:00,5Z\"",
                "\"2026-01-31T12:00:00.Z\"",
                "\"2026-01-31T12:00:00.1234567890Z\"",
                "\"2026-01-31T12:00:00+0530\"",
                "\"2026-01-31T12:00:00+24:00\"",
                "\"2026-01-31T12:00:00+05:30:10\"",
                "\"2026-01-31T12:00:00Z[UTC]\"",
                "\"2016-12-31T23:59:60Z\"",
                "\"2026-01-31T24:00:00Z\"",
                "\"2026-04-31T12:00:00Z\"",
                "\"2026-02-30T12:00:00Z\"",
                "\"2026-13-01T12:00:00Z\"",
                "\"0000-01-01T00:00:00Z\"",
                "\"+002026-01-31T12:00:00Z\"",
                "\"\"",
                "0",
            ],
        ),
        (
            "duration",
            &["\"1s\"", "\"-1.5s\"", "\"007.000000001s\"", "\"315576000000s\"", "\"-0s\""],
            &[
                "\"1\"",
                "\"s\"",
                "\"1.s\"",
                "\".5s\"",
                "\"1.0000000001s\"",
                "\"315576000001s\"",
                "\"+1s\"",
                "\"1e3s\"",
                "1",
            ],
        ),
        ("mask", &["\"\"", "\"aInt32,aMessage.aString\""], &["\"a_int32\"", "[]"]),
        ("empty", &["{}"], &["{\"a\": 1}", "[]", "\"\""]),
        ("struct", &["{}", "{\"a\": [null, {\"b\": 1}]}"], &["[]", "1"]),
        ("value", &["null", "1", "\"x\"", "[{}]"], &[]),
        ("list", &["[]", "[null, 1, {}]"], &["{}", "1"]),
        ("loose", &["[]", "[1, \"2\", \"1e1\"]"], &["[null]", "{}", "[\"01\"]"]),
        (
            "messages",
            &["[{}, {\"aBool\": true}]"],
            &["[null]", "[{\"unknown\": null}]", "[{\"a_bool\": true, \"aBool\": true}]"],
        ),
        ("by_string", &["{}", "{\"\": \"x\"}"], &["{\"a\": null}", "{\"a\": 1}", "[]"]),
        (
            "by_int32",
            &["{\"-7\": {}}", "{\"1e1\": {}}"],
            &["{\"\": {}}", "{\"2147483648\": {}}", "{\"07\": {}}", "{\"7\": null}"],
        ),
        ("by_uint64", &["{\"18446744073709551615\": 1}"], &["{\"18446744073709551616\": 1}", "{\"-1\": 1}"]),
        ("by_bool", &["{\"true\": 1, \"false\": \"NaN\"}"], &["{\"True\": 1}", "{\"1\": 1}"]),
        ("times", &["{\"a\": \"2026-01-31T12:00:00Z\"}"], &["{\"a\": \"yesterday\"}", "{\"a\": null}"]),
        ("bytes_value", &["\"AA\"", "null"], &["\"A\""]),
        ("string_value", &["\"\"", "null"], &["1", "{\"value\": \"\"}"]),
    ] {
        taken.iter().for_each(|value| check(field, value, true));
        refused.iter().for_each(|value| check(field, value, false));
    }
}

#[test]
fn fields_are_taken_once_under_either_name_and_one_member_of_a_oneof() {
    let both = |text: &str, taken: bool| {
        assert_eq!(EVERYTHING.accepts(text).is_ok(), taken, "gateway: {text}");
        assert_eq!(EVERYTHING.allows(text), Some(taken), "document: {text}");
    };
    both(r#"{"aInt32": 1, "a_int32": 1}"#, false);
    both(r#"{"aInt32": null, "a_int32": 1}"#, false);
    both(r#"{"first": "a", "second": {}}"#, false);
    both(r#"{"first": null, "second": {}}"#, true);
    both(r#"{"first": null, "third": null}"#, true);
    both(r#"{"second": {}, "third": null}"#, false);
    both(r#"{"unknown": null}"#, false);
    for (request, text, taken) in [
        ("quest.v1.GenerateRequest", r#"{"player_id": "p", "level": 1}"#, true),
        ("quest.v1.GenerateRequest", r#"{"playerId": "p", "level": "1"}"#, true),
        ("quest.v1.GenerateRequest", r#"{"playerId": "p", "player_id": "p"}"#, false),
        ("quest.v1.GenerateRequest", r#"{"meta": {}}"#, false),
        ("quest.v1.GenerateRequest", r#"{"meta": null}"#, false),
        ("npc.behavior.v1.PlanRequest", r#"{"actions": [{"nam": ""}]}"#, false),
        ("npc.behavior.v1.PlanRequest", r#"{"world": {"a": "007"}}"#, false),
        ("state.manager.v1.UpdateRequest", r#"{"expected_revision": "18446744073709551615"}"#, true),
        ("state.manager.v1.UpdateRequest", r#"{"merge": {}, "fields": {}}"#, false),
    ] {
        let described = REQUESTS.iter().find(|one| one.schema.message(one.id).name == request).unwrap();
        assert_eq!(described.accepts(text).is_ok(), taken, "gateway: {request} {text}");
        assert_eq!(described.allows(text), Some(taken), "document: {request} {text}");
    }
}

/// A request in JSON, made of bytes: most values fit, some do not.
struct Writer<'a> {
    schema: &'a Schema,
    bytes: &'a [u8],
    out: String,
    /// Whether there is a whole number in a spelling that is accepted and not described.
    unusual: bool,
}

const UNUSUAL: [&str; 5] = ["\"1.5e1\"", "\"10e-1\"", "\"0e5\"", "\"1e03\"", "\"20.00e1\""];
const ODD: [&str; 34] = [
    "null",
    "true",
    "false",
    "{}",
    "[]",
    "[null]",
    "{\"a\": 1}",
    "\"\"",
    "\"007\"",
    "\"+1\"",
    "\"-1\"",
    "\"-0\"",
    "\"1e3\"",
    "-1",
    "1.5",
    "1e3",
    "0.0",
    "2147483648",
    "-2147483649",
    "4294967296",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "\"9223372036854775807\"",
    "\"9223372036854775808\"",
    "\"-9223372036854775809\"",
    "\"18446744073709551616\"",
    "\"NaN\"",
    "\"Infinity\"",
    "\"AA=\"",
    "\"A\"",
    "\"2026-01-31T12:00:00Z\"",
    "\"1.5s\"",
    "\"a_b\"",
];

impl Writer<'_> {
    fn choose(&mut self, below: u8) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return below - 1 };
        self.bytes = rest;
        first % below
    }

    fn pick<'b>(&mut self, of: &[&'b str]) -> &'b str {
        of[usize::from(self.choose(u8::try_from(of.len()).unwrap()))]
    }

    fn message(&mut self, id: MessageId, depth: u8) {
        let schema = self.schema;
        let message = schema.message(id);
        match message.form {
            Form::Object => {
                self.out.push('{');
                let mut first = true;
                for field in message.fields.iter().filter(|_| depth > 0) {
                    if self.choose(4) != 0 {
                        continue;
                    }
                    let names: &[&str] = match self.choose(24) {
                        // A parser of JSON would drop the first of two equal names, with what is wrong in it.
                        0 if field.name != field.json_name => &[&field.name, &field.json_name],
                        1 => &["unknown"],
                        0 | 2..12 => &[&field.json_name],
                        _ => &[&field.name],
                    };
                    for name in names {
                        self.out.push_str(if first { "" } else { ", " });
                        first = false;
                        self.out.push_str(&format!("\"{name}\": "));
                        self.field(field, depth - 1);
                    }
                }
                self.out.push('}');
            }
            Form::Timestamp => self.out.push_str("\"2026-01-31T12:00:00.5+01:00\""),
            Form::Duration => self.out.push_str("\"-1.5s\""),
            Form::FieldMask => self.out.push_str("\"a,b.c\""),
            Form::Struct => self.out.push_str("{\"a\": {\"b\": [1, null]}}"),
            Form::ListValue => self.out.push_str("[1, \"a\", {}]"),
            Form::Wrapper => self.value(message.fields[0].kind, depth),
            Form::Value => {
                let any = self.pick(&ODD);
                self.out.push_str(any);
            }
        }
    }

    fn field(&mut self, field: &Field, depth: u8) {
        let (count, odd) = (self.choose(3), self.choose(24));
        match field.shape {
            _ if odd == 0 => {
                let odd = self.pick(&ODD);
                self.out.push_str(odd);
            }
            Shape::One => self.value(field.kind, depth),
            Shape::Packed | Shape::List => {
                self.out.push('[');
                for index in 0..count {
                    self.out.push_str(if index == 0 { "" } else { ", " });
                    self.value(field.kind, depth);
                }
                self.out.push(']');
            }
            Shape::Map(of) => {
                self.out.push('{');
                // A parser of JSON would drop the first of two equal keys, with what is wrong in it.
                let mut written: BTreeSet<&str> = BTreeSet::new();
                for _ in 0..count {
                    let key = match of {
                        Kind::String => self.pick(&["\"\"", "\"k\"", "\"ü\""]),
                        Kind::Bool => self.pick(&["\"true\"", "\"false\"", "\"1\""]),
                        _ => self.pick(&["\"1\"", "\"0\"", "\"22\"", "\"1e2\"", "\"x\"", "\"-3\""]),
                    };
                    if written.insert(key) {
                        self.out.push_str(if written.len() == 1 { "" } else { ", " });
                        self.out.push_str(&format!("{key}: "));
                        self.value(field.kind, depth);
                    }
                }
                self.out.push('}');
            }
        }
    }

    fn value(&mut self, kind: Kind, depth: u8) {
        let odd = self.choose(32);
        if odd == 0 {
            let odd = self.pick(&ODD);
            self.out.push_str(odd);
            return;
        }
        let fitting: &[&str] = match kind {
            Kind::Message(id) => return self.message(id, depth),
            Kind::Double | Kind::Float => &["1", "-0.5", "1e3", "\"2.5\"", "\"Infinity\"", "\"1e-3\""],
            Kind::Bool => &["true", "false"],
            Kind::String => &["\"\"", "\"text\"", "\"\\ud83d\\ude00\""],
            Kind::Bytes => &["\"\"", "\"AAA\"", "\"_-8=\""],
            Kind::Enum(id) if self.schema.enumeration(id).name == NULL => &["null", "0", "\"NULL_VALUE\""],
            Kind::Enum(id) => {
                let schema = self.schema;
                let name = &schema.enumeration(id).values[0].0;
                let names = [format!("\"{name}\""), "3".to_owned()];
                let chosen = self.choose(2);
                return self.out.push_str(&names[usize::from(chosen)]);
            }
            _ if odd == 1 => {
                self.unusual = true;
                &UNUSUAL
            }
            _ => &["0", "7", "\"12\"", "1e2", "\"3e1\"", "5.0", "2147483647", "\"1.0\""],
        };
        let fitting = self.pick(fitting);
        self.out.push_str(fitting);
    }
}

/// Whether a reason to refuse is one that a JSON Schema cannot say; the document says it in words.
fn is_beyond_schemas(bad: &InvalidBody) -> bool {
    let problem = bad.problem();
    let of_floats = ["is not a", "is too small", "is out of range"];
    problem.starts_with("duplicate ") || (problem.starts_with('`') && of_floats.iter().any(|why| problem.contains(why)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_gateway_takes_what_the_document_allows_and_nothing_else(bytes in prop::collection::vec(any::<u8>(), 0..300), which in any::<prop::sample::Index>()) {
        let request = which.get(&REQUESTS);
        let mut writer = Writer { schema: request.schema, bytes: &bytes, out: String::new(), unusual: false };
        writer.message(request.id, 4);
        let Writer { out: text, unusual, .. } = writer;
        let Some(allowed) = request.allows(&text) else { return Err(TestCaseError::fail(text)) };
        match request.accepts(&text) {
            Ok(()) => prop_assert!(allowed || unusual, "the document refuses {text}"),
            Err(bad) => prop_assert!(!allowed || is_beyond_schemas(&bad), "the gateway refuses {text}: {bad:?}"),
        }
    }

    #[test]
    fn the_document_allows_what_the_gateway_answers(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let response = &*RESPONSE;
        let mut writer = Writer { schema: response.schema, bytes: &bytes, out: String::new(), unusual: false };
        writer.message(response.id, 4);
        if let Ok(encoded) = to_protobuf(response.schema, response.id, writer.out.as_bytes()) {
            let json = String::from_utf8(to_json(response.schema, response.id, &encoded).unwrap()).unwrap();
            prop_assert_eq!(response.allows(&json), Some(true), "{}", json);
        }
    }
}

static RESPONSE: LazyLock<Described> = LazyLock::new(|| everything(Use::Response));
