//! `/openapi.json`: every public route with its messages, generated from the descriptors.

mod forms;

use std::collections::{BTreeMap, BTreeSet};

use proto::rpc::Method;
use serde_json::{Map, Value, json};

use crate::limits::Limits;
use crate::routes;
use crate::transcode::{Enum, Field, Form, Kind, Message, MessageId, Schema, Shape};

const DESCRIPTION: &str = "The public methods of the services as JSON over HTTP. Keys in requests may be in lower camel \
    case or as in the .proto files; responses use lower camel case and omit default values. 64-bit integers are \
    strings in responses; requests may use numbers. Numbers may be written as strings; of whole numbers the usual spellings \
    are described. Unknown fields are rejected. Beyond the schemas, requests are rejected that have a key twice, are nested \
    deeper than 64, or have a number that its type does not hold: a whole number as `google.protobuf.Value`, double or float \
    must be one exactly.";
const STREAM: &str = "Server-sent events. Each message has the response in JSON as its `data`, and no `id`, because a stream \
    cannot be resumed: a request with the header `Last-Event-ID` is answered with 400. \
    Comments are sent as heartbeats. The last event is `done`, or `error` with a problem as its data. A stream \
    without either was interrupted.";
/// The HTTP status of each code.
const STATUSES: &str = "`INVALID_ARGUMENT`, `OUT_OF_RANGE` 400; `PERMISSION_DENIED` 403; `NOT_FOUND` 404; \
    `ALREADY_EXISTS`, `ABORTED` 409; `FAILED_PRECONDITION` 422; `RESOURCE_EXHAUSTED` 429; `UNKNOWN`, `INTERNAL`, \
    `DATA_LOSS` 500; `UNIMPLEMENTED` 501; `UNAVAILABLE` 503, or 504 if a timeout expired. Responses with 503 have \
    the header `Retry-After`, and those with 429 if a repeat can succeed.";

/// The description of the routes of `methods`, in OpenAPI 3.1.
pub fn document(methods: &[&Method], schema: &Schema, limits: &Limits) -> Value {
    let mut schemas = Schemas::new(schema);
    // First, because a message of requests and responses is described as what requests may be.
    for method in methods {
        schemas.message(schema.id(method.input).expect("every method has its messages"));
    }
    schemas.use_of = Use::Response;
    let mut paths = Map::new();
    for method in methods {
        paths.insert(routes::path(method), schemas.path(method, limits));
    }
    schemas.done.insert("Problem".to_owned(), problem());
    let services: BTreeMap<&str, &str> =
        methods.iter().map(|method| (method.package, method.full_name.split('/').next().unwrap_or_default())).collect();
    let tags: Vec<Value> = services
        .iter()
        .map(|(package, service)| json!({"name": package, "description": format!("`{service}`")}))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {"title": "http-nats-gateway", "version": env!("CARGO_PKG_VERSION"), "description": DESCRIPTION},
        "servers": [{"url": "/"}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas.done,
            "parameters": {
                "IdempotencyKey": header("Idempotency-Key", "Two requests with the same key are the same operation.", &json!({
                    "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"
                })),
                "RequestId": header("X-Request-Id", "Identifies the request in logs and responses; generated if absent.", &json!({
                    "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[A-Za-z0-9._:/+=-]+$"
                })),
                "Traceparent": header("traceparent", "W3C trace context.", &json!({"type": "string"})),
            },
            "responses": {
                "Problem": {
                    "description": format!("The request failed. {STATUSES}"),
                    "headers": {
                        "X-Request-Id": {"schema": {"type": "string"}},
                        "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}},
                        "Traceresponse": {"description": "The trace, if it is recorded, as in `traceparent`.", "schema": {"type": "string"}},
                    },
                    "content": {"application/problem+json": {"schema": reference("Problem")}},
                },
            },
        },
    })
}

/// The schemas of messages.
struct Schemas<'a> {
    schema: &'a Schema,
    done: Map<String, Value>,
    named: BTreeSet<String>,
    use_of: Use,
}

/// What a message is described for. Requests may be written in more ways than responses are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Request,
    Response,
}

impl<'a> Schemas<'a> {
    fn new(schema: &'a Schema) -> Self {
        Self { schema, done: Map::new(), named: BTreeSet::new(), use_of: Use::Request }
    }

    fn path(&mut self, method: &Method, limits: &Limits) -> Value {
        let id = |name: &str| self.schema.id(name).expect("every method has its messages");
        let (input, output) = (id(method.input), id(method.output));
        let (request, response) = (self.message(input), self.message(output));
        // The gateway sets `meta` and handles `error`, so neither is part of the HTTP API.
        self.without(method.input, "meta");
        self.without(method.output, "error");
        let answer = if method.streaming {
            json!({
                "description": STREAM,
                "headers": {"X-Request-Id": {"schema": {"type": "string"}}},
                "content": {"text/event-stream": {"schema": {"type": "string"}, "x-event-data": response}},
            })
        } else {
            json!({
                "description": "The response.",
                "headers": {"X-Request-Id": {"schema": {"type": "string"}}},
                "content": {"application/json": {"schema": response}},
            })
        };
        let parameter = |name: &str| json!({"$ref": format!("#/components/parameters/{name}")});
        json!({
            "post": {
                "operationId": format!("{}.{}", method.package, method.name),
                "tags": [method.package],
                "description": format!("Calls `{}`. The body may have up to {} bytes.", method.subject, limits.body),
                "parameters": [parameter("IdempotencyKey"), parameter("RequestId"), parameter("Traceparent")],
                "requestBody": {"required": true, "content": {"application/json": {"schema": request}}},
                "responses": {
                    "200": answer,
                    "4XX": {"$ref": "#/components/responses/Problem"},
                    "5XX": {"$ref": "#/components/responses/Problem"},
                },
            }
        })
    }

    /// Removes a field from the schema of a request or a response.
    fn without(&mut self, message: &str, field: &str) -> &mut Value {
        let described = self.done.entry(message).or_insert(Value::Null);
        if let Some(properties) = described["properties"].as_object_mut() {
            properties.remove(field);
        }
        described
    }

    /// The schema of a message: inline for well-known types, otherwise a reference to a component, which is added on
    /// first use.
    fn message(&mut self, id: MessageId) -> Value {
        let schema = self.schema;
        let message = schema.message(id);
        match message.form {
            Form::Object => {
                if self.named.insert(message.name.clone()) {
                    let described = self.object(message);
                    self.done.insert(message.name.clone(), described);
                }
                reference(&message.name)
            }
            Form::Timestamp => self.text(json!({"format": "date-time"}), forms::timestamp),
            Form::Duration => self.text(json!({"examples": ["1.5s"]}), forms::duration),
            Form::FieldMask => self.text(json!({"examples": ["title,reward.gold"]}), || "^[^_]*$".to_owned()),
            Form::Struct => json!({"type": "object", "additionalProperties": true}),
            Form::Value => json!({"description": "Any JSON value."}),
            Form::ListValue => json!({"type": "array", "items": true}),
            Form::Wrapper => self.kind(message.fields[0].kind),
        }
    }

    /// The schema of a text; for requests with its pattern.
    fn text(&self, mut described: Value, pattern: impl FnOnce() -> String) -> Value {
        described["type"] = "string".into();
        if self.use_of == Use::Request {
            described["pattern"] = pattern().into();
        }
        described
    }

    /// A whole number from `least` to `most` in a request. Its form as text is a component, because it is long.
    fn whole(&mut self, name: &str, described: Value, least: i128, most: i128) -> Value {
        if self.named.insert(name.to_owned()) {
            let description = format!("A whole number from {least} to {most} as text.");
            let text = json!({"type": "string", "description": description, "pattern": forms::whole(least, most)});
            self.done.insert(name.to_owned(), text);
        }
        or(described, &reference(name))
    }

    fn object(&mut self, message: &Message) -> Value {
        let mut properties = Map::new();
        // A field may be written with either name, but once.
        let mut twice = Vec::new();
        for field in &message.fields {
            let mut described = self.field(field);
            if let Some(oneof) = field.oneof {
                let (name, members) = &message.oneofs[oneof];
                let others = message.fields.iter().enumerate();
                let others = others.filter(|(index, other)| members.contains(*index) && other.number != field.number);
                let others: Vec<String> = others.map(|(_, other)| format!("`{}`", other.json_name)).collect();
                let note = format!("One of `{name}`: not together with {}.", others.join(", "));
                // Some tools ignore a description next to a reference.
                described = match described.get("$ref") {
                    Some(_) => json!({"allOf": [described], "description": note}),
                    None => {
                        described["description"] = note.into();
                        described
                    }
                };
            }
            if self.use_of == Use::Request {
                described = or_null(described);
                if field.name != field.json_name {
                    properties.insert(field.name.clone(), described.clone());
                    twice.push(json!({"not": {"required": [field.json_name, field.name]}}));
                }
            }
            properties.insert(field.json_name.clone(), described);
        }
        let mut object = json!({"type": "object", "properties": properties});
        if self.use_of == Use::Request {
            object["additionalProperties"] = false.into();
            twice.extend(exclusive(message, |kind| self.null_is_a_value(kind)));
            if !twice.is_empty() {
                object["allOf"] = twice.into();
            }
        }
        object
    }

    fn null_is_a_value(&self, kind: Kind) -> bool {
        match kind {
            Kind::Message(id) => self.schema.message(id).form == Form::Value,
            Kind::Enum(id) => self.schema.enumeration(id).name == NULL,
            _ => false,
        }
    }

    fn field(&mut self, field: &Field) -> Value {
        let value = self.kind(field.kind);
        match field.shape {
            Shape::One => value,
            Shape::Packed | Shape::List => json!({"type": "array", "items": value}),
            Shape::Map(of) => {
                let mut map = json!({"type": "object", "additionalProperties": value});
                match of {
                    Kind::String => {}
                    Kind::Bool => map["propertyNames"] = json!({"enum": ["true", "false"]}),
                    _ if self.use_of == Use::Response => map["propertyNames"] = json!({"pattern": "^-?[0-9]+$"}),
                    // A key is a number as text.
                    _ => map["propertyNames"] = self.kind(of),
                }
                map
            }
        }
    }

    fn kind(&mut self, kind: Kind) -> Value {
        let described = self.written(kind);
        if self.use_of == Use::Response {
            return described;
        }
        // Requests may have numbers as text.
        match kind {
            Kind::Double => {
                let number = json!({"type": "number", "format": "double"});
                or(number, &json!({"type": "string", "pattern": forms::NUMBER_OR_SPECIAL}))
            }
            Kind::Float => {
                let number = json!({"type": "number", "format": "float", "minimum": -MAX_FLOAT, "maximum": MAX_FLOAT});
                or(number, &json!({"type": "string", "pattern": forms::NUMBER_OR_SPECIAL}))
            }
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                self.whole("Int32Text", int32(), i32::MIN.into(), i32::MAX.into())
            }
            Kind::Uint32 | Kind::Fixed32 => self.whole("Uint32Text", described, 0, u32::MAX.into()),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                let number = json!({"type": "integer", "format": "int64", "minimum": i64::MIN, "maximum": i64::MAX});
                self.whole("Int64Text", number, i64::MIN.into(), i64::MAX.into())
            }
            Kind::Uint64 | Kind::Fixed64 => {
                let number = json!({"type": "integer", "format": "uint64", "minimum": 0, "maximum": u64::MAX});
                self.whole("Uint64Text", number, 0, u64::MAX.into())
            }
            Kind::Bytes => {
                json!({"type": "string", "contentEncoding": "base64", "pattern": forms::BASE64})
            }
            Kind::Enum(id) if self.schema.enumeration(id).name == NULL => {
                or(described, &json!({"enum": ["NULL_VALUE", 0]}))
            }
            _ => described,
        }
    }

    /// The schema of a value as responses have it.
    fn written(&mut self, kind: Kind) -> Value {
        match kind {
            Kind::Double => or(json!({"type": "number", "format": "double"}), &special()),
            Kind::Float => or(json!({"type": "number", "format": "float"}), &special()),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({"type": "integer", "format": "int32"}),
            Kind::Uint32 | Kind::Fixed32 => {
                json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": u32::MAX})
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({"type": ["string", "integer"], "format": "int64", "pattern": "^-?[0-9]+$"})
            }
            Kind::Uint64 | Kind::Fixed64 => {
                json!({"type": ["string", "integer"], "format": "uint64", "minimum": 0, "pattern": "^[0-9]+$"})
            }
            Kind::Bool => json!({"type": "boolean"}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Enum(id) => {
                let schema = self.schema;
                self.enumeration(schema.enumeration(id))
            }
            Kind::Message(id) => self.message(id),
        }
    }

    fn enumeration(&mut self, of: &Enum) -> Value {
        if of.name == NULL {
            return json!({"type": "null"});
        }
        if self.named.insert(of.name.clone()) {
            let names: Vec<&str> = of.values.iter().map(|(name, _)| name.as_str()).collect();
            self.done.insert(of.name.clone(), json!({"type": "string", "enum": names}));
        }
        // A number without a name may be of a newer contract.
        or(reference(&of.name), &int32())
    }
}

/// Of the members of a oneof, at most one may be set; one that is null is not.
fn exclusive(message: &Message, null_is_a_value: impl Fn(Kind) -> bool) -> Vec<Value> {
    let names = |field: &Field| BTreeSet::from([field.json_name.clone(), field.name.clone()]);
    let set = |field: &Field| {
        if null_is_a_value(field.kind) { json!(true) } else { json!({"not": {"type": "null"}}) }
    };
    let mut out = Vec::new();
    for (index, left) in message.fields.iter().enumerate().filter(|(_, field)| field.oneof.is_some()) {
        for right in message.fields[index + 1..].iter().filter(|right| right.oneof == left.oneof) {
            for (left_name, right_name) in names(left)
                .iter()
                .flat_map(|left| names(right).into_iter().map(move |right| (left.clone(), right)).collect::<Vec<_>>())
            {
                let both = Map::from_iter([(left_name.clone(), set(left)), (right_name.clone(), set(right))]);
                out.push(json!({"not": {"required": [left_name, right_name], "properties": both}}));
            }
        }
    }
    out
}

const NULL: &str = "google.protobuf.NullValue";
/// The largest float, as it is written.
const MAX_FLOAT: f64 = 3.402_823_5e38;

/// What JSON has no number for.
fn special() -> Value {
    json!({"enum": ["NaN", "Infinity", "-Infinity"]})
}

fn int32() -> Value {
    json!({"type": "integer", "format": "int32", "minimum": i32::MIN, "maximum": i32::MAX})
}

/// Either of two, or of more.
fn or(mut described: Value, other: &Value) -> Value {
    match described.get_mut("anyOf").and_then(Value::as_array_mut) {
        Some(all) => {
            all.push(other.clone());
            described
        }
        None => json!({"anyOf": [described, other]}),
    }
}

/// A field that is null is absent.
fn or_null(mut described: Value) -> Value {
    match described.get("type") {
        Some(Value::String(kind)) if kind == "null" => described,
        None if described
            .get("anyOf")
            .and_then(Value::as_array)
            .is_some_and(|all| all.contains(&json!({"type": "null"}))) =>
        {
            described
        }
        Some(Value::String(kind)) if described.get("enum").is_none() => {
            described["type"] = json!([kind, "null"]);
            described
        }
        _ => or(described, &json!({"type": "null"})),
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn header(name: &str, description: &str, schema: &Value) -> Value {
    json!({"name": name, "in": "header", "description": description, "schema": schema})
}

fn problem() -> Value {
    json!({
        "type": "object",
        "description": "RFC 9457.",
        "required": ["type", "title", "status", "detail", "instance", "code", "request_id", "trace_id"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string", "description": "The meaning of the status."},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "A sentence for people."},
            "instance": {"type": "string", "description": "The path of the request."},
            "code": {"type": "string", "enum": codes()},
            "details": {
                "type": "object",
                "description": "Details for programs, for example `field`, `current_revision` or `reason`.",
                "additionalProperties": {"type": "string"},
            },
            "hint": {"type": "string", "description": "How to fix the request."},
            "request_id": {"type": "string"},
            "trace_id": {"type": "string"},
        },
    })
}

fn codes() -> Vec<&'static str> {
    (0..).map_while(|number| proto::rpc::Code::try_from(number).ok()).map(|code| code.as_str_name()).collect()
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;
