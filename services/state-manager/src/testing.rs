//! JSON as Protocol Buffers' well-known types, for tests.

use proto::well_known::value::Kind;
use proto::well_known::{ListValue, Struct, Value};

pub(crate) fn value(json: serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(it) => Kind::BoolValue(it),
        serde_json::Value::Number(it) => Kind::NumberValue(it.as_f64().unwrap()),
        serde_json::Value::String(it) => Kind::StringValue(it),
        serde_json::Value::Array(items) => {
            Kind::ListValue(ListValue { values: items.into_iter().map(value).collect() })
        }
        serde_json::Value::Object(fields) => {
            Kind::StructValue(Struct { fields: fields.into_iter().map(|(name, it)| (name, value(it))).collect() })
        }
    };
    Value { kind: Some(kind) }
}

pub(crate) fn object(json: serde_json::Value) -> Struct {
    match value(json).kind {
        Some(Kind::StructValue(object)) => object,
        other => panic!("{other:?} is not an object"),
    }
}
