//! The methods that workflows may call, and their messages: translated from JSON and back, and one filled in from another.

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value,
};
use proto::orchestration::v1::payload::Form;
use proto::orchestration::v1::{Call, Input, Payload};
use proto::rpc::{Method, Service};
use proto::well_known::Struct;
use sdk::{Code, Error, check_count};

/// The services whose methods may be called: those that `calls` of the manifest names.
const SERVICES: [&Service; 6] = [
    &proto::payment::v1::PAYMENT,
    &proto::quest::v1::QUEST,
    &proto::state::manager::v1::STATE_MANAGER,
    &proto::story::v1::STORY_TELLER,
    &proto::time::v1::TIME_MANAGER,
    &proto::world::state::v1::WORLD_STATE,
];

/// Bytes of an encoded request.
const MAX_REQUEST: usize = 16 << 10;
const MAX_INPUTS: usize = 8;
/// The fields that the SDK fills in.
const META: &str = "meta";
const ERROR: &str = "error";

/// The messages of the methods.
#[derive(Clone, Debug)]
pub(crate) struct Methods(DescriptorPool);

/// The methods that may be called: unary ones that are safe to repeat.
pub(crate) fn accepted() -> impl Iterator<Item = &'static Method> {
    let methods = SERVICES.iter().flat_map(|service| service.methods);
    methods.filter(|method| method.idempotent && !method.streaming)
}

/// The method of a call that was checked before.
pub(crate) fn of(call: &Call) -> Result<&'static Method, Error> {
    named(&call.method).ok_or_else(|| Error::internal(format_args!("`{}` cannot be called any more", call.method)))
}

fn named(name: &str) -> Option<&'static Method> {
    accepted().find(|method| method.full_name == name || method.subject == name)
}

/// A method of any service.
fn known(name: &str) -> Option<&'static Method> {
    proto::SERVICES.iter().flat_map(|service| service.methods).find(|method| method.full_name == name)
}

/// The request of a call as it is stored: encoded.
pub(crate) fn encoded(payload: Option<&Payload>) -> Bytes {
    match payload.and_then(|payload| payload.form.as_ref()) {
        Some(Form::Encoded(bytes)) => bytes.clone(),
        _ => Bytes::new(),
    }
}

impl Methods {
    /// The methods of the fleet's contracts.
    pub(crate) fn new() -> Result<Self, Error> {
        let pool = DescriptorPool::decode(proto::DESCRIPTORS);
        pool.map(Self).map_err(|error| Error::internal(format_args!("the embedded descriptors are damaged: {error}")))
    }

    /// The call with the method's full name and the request encoded. `what` names the call, for example ``call of step `pay` ``.
    pub(crate) fn checked(&self, what: &str, call: Call) -> Result<Call, Error> {
        let method = named(&call.method).ok_or_else(|| refused(what, &call.method))?;
        let request = self.request(what, method, call.request)?;
        check_count(&format!("inputs of {what}"), call.inputs.len(), MAX_INPUTS)?;
        Ok(Call { method: method.full_name.to_owned(), request: Some(request), inputs: call.inputs })
    }

    fn request(&self, what: &str, method: &Method, payload: Option<Payload>) -> Result<Payload, Error> {
        let descriptor = self.message(method.input)?;
        let invalid = |error: &dyn std::fmt::Display| {
            Error::invalid(format_args!("request of {what} is no `{}`: {error}", method.input))
        };
        let mut message = match payload.and_then(|payload| payload.form) {
            None => DynamicMessage::new(descriptor),
            Some(Form::Encoded(bytes)) => DynamicMessage::decode(descriptor, bytes).map_err(|error| invalid(&error))?,
            Some(Form::Json(fields)) => {
                DynamicMessage::deserialize(descriptor, self.json(&fields)?).map_err(|error| invalid(&error))?
            }
        };
        if let Some(unknown) = message.unknown_fields().next() {
            return Err(invalid(&format_args!("it has no field of number {}", unknown.number())));
        }
        message.clear_field_by_name(META);
        let bytes = message.encode_to_vec();
        match bytes.len() {
            size if size > MAX_REQUEST => {
                let message = format_args!("request of {what} has {size} bytes, at most {MAX_REQUEST} are allowed");
                Err(Error::invalid(message))
            }
            _ => Ok(Payload { form: Some(Form::Encoded(bytes.into())) }),
        }
    }

    /// Rejects an input that cannot be filled in from a response of `source`.
    pub(crate) fn check_input(&self, what: &str, call: &Call, input: &Input, source: &Call) -> Result<(), Error> {
        let from = self.field(what, "from", of(source)?.output, &input.from)?;
        let to = self.field(what, "to", of(call)?.input, &input.to)?;
        if from.kind() == to.kind() {
            return Ok(());
        }
        let message = format_args!(
            "input of {what} sets `{}`, which is {}, to `{}`, which is {}",
            input.to,
            kind(&to),
            input.from,
            kind(&from)
        );
        Err(Error::invalid(message))
    }

    /// The field that a path leads to.
    fn field(&self, what: &str, end: &str, message: &str, path: &str) -> Result<FieldDescriptor, Error> {
        let mut descriptor = Some(self.message(message)?);
        let mut found = None;
        for name in path.split('.') {
            let field = descriptor.and_then(|message| message.get_field_by_name(name));
            let usable = |field: &FieldDescriptor| {
                !field.is_list() && !field.is_map() && (found.is_some() || (name != META && name != ERROR))
            };
            let field = { field }.filter(usable).ok_or_else(|| {
                let message = format_args!(
                    "`{end}` of an input of {what}: `{message}` has no single field `{}`",
                    path.escape_debug()
                );
                Error::invalid(message)
            })?;
            descriptor = field.kind().as_message().cloned();
            found = Some(field);
        }
        found.ok_or_else(|| Error::internal("a path has no names"))
    }

    /// The request of a call with what the response of `source` says filled in.
    pub(crate) fn filled(&self, call: &Call, input: &Input, source: &Call, response: &Bytes) -> Result<Payload, Error> {
        let step = &input.step_id;
        let output = self.message(of(source)?.output)?;
        let unreadable =
            |error| Error::new(Code::DataLoss, format!("the response of step `{step}` is not readable: {error}"));
        let response = DynamicMessage::decode(output, response.clone()).map_err(unreadable)?;
        let value = value(&response, &input.from).ok_or_else(|| {
            Error::failed_precondition(format_args!("the response of step `{step}` has no `{}`", input.from))
        })?;
        let descriptor = self.message(of(call)?.input)?;
        let damaged = |error| Error::new(Code::DataLoss, format!("a request of the workflow is not readable: {error}"));
        let mut request = DynamicMessage::decode(descriptor, encoded(call.request.as_ref())).map_err(damaged)?;
        set(&mut request, &input.to, value);
        let bytes = request.encode_to_vec();
        match bytes.len() {
            size if size > MAX_REQUEST => Err(Error::failed_precondition(format_args!(
                "with `{}` of step `{step}`, the request to `{}` has {size} bytes, at most {MAX_REQUEST} are allowed",
                input.from, call.method
            ))),
            _ => Ok(Payload { form: Some(Form::Encoded(bytes.into())) }),
        }
    }

    /// A call as people read it: its request in JSON, if the contracts still have its method.
    pub(crate) fn shown(&self, call: Call) -> Call {
        let request = call.request.map(|request| self.in_json(known(&call.method).map(|method| method.input), request));
        Call { request, ..call }
    }

    /// The response of a call in the same way.
    pub(crate) fn shown_response(&self, call: &Call, response: Payload) -> Payload {
        self.in_json(known(&call.method).map(|method| method.output), response)
    }

    /// A stored message in JSON; as it is stored if it is not readable.
    fn in_json(&self, message: Option<&str>, payload: Payload) -> Payload {
        let fields = || {
            let stored = DynamicMessage::decode(self.message(message?).ok()?, encoded(Some(&payload))).ok()?;
            let json = serde_json::to_value(stored).ok()?;
            let fields = DynamicMessage::deserialize(self.message("google.protobuf.Struct").ok()?, json).ok()?;
            fields.transcode_to::<Struct>().ok()
        };
        fields().map_or(payload.clone(), |fields| Payload { form: Some(Form::Json(fields)) })
    }

    fn json(&self, fields: &Struct) -> Result<serde_json::Value, Error> {
        let invalid =
            |error: &dyn std::fmt::Display| Error::invalid(format_args!("a request is not valid JSON: {error}"));
        let mut message = DynamicMessage::new(self.message("google.protobuf.Struct")?);
        message.transcode_from(fields).map_err(|error| invalid(&error))?;
        serde_json::to_value(message).map_err(|error| invalid(&error))
    }

    fn message(&self, name: &str) -> Result<MessageDescriptor, Error> {
        let descriptor = self.0.get_message_by_name(name);
        descriptor.ok_or_else(|| Error::internal(format_args!("the contracts have no message `{name}`")))
    }
}

/// Why a method cannot be called, with those that can.
fn refused(what: &str, name: &str) -> Error {
    let service = name.rsplit_once(['/', '.']).map_or(name, |(service, _)| service).trim_start_matches("svc.");
    let of_service = SERVICES.iter().find(|it| it.name == service || it.package == service);
    let accepted = match of_service {
        Some(service) => accepted().filter(|method| method.package == service.package).map(|it| it.full_name).collect(),
        None => SERVICES.map(|service| service.name).to_vec(),
    };
    let what_is_accepted = if of_service.is_some() { "it must be one of" } else { "it must be a method of" };
    Error::invalid(format_args!(
        "method of {what} is `{}`, {what_is_accepted} {}",
        name.escape_debug(),
        accepted.join(", ")
    ))
}

/// What a path leads to; `None` if a message on the way is absent.
fn value(message: &DynamicMessage, path: &str) -> Option<Value> {
    match path.split_once('.') {
        Some((name, rest)) if message.has_field_by_name(name) => {
            value(message.get_field_by_name(name)?.as_message()?, rest)
        }
        Some(_) => None,
        None => {
            let field = message.descriptor().get_field_by_name(path)?;
            let is_there = message.has_field(&field) || !field.supports_presence();
            is_there.then(|| message.get_field(&field).into_owned())
        }
    }
}

fn set(message: &mut DynamicMessage, path: &str, value: Value) {
    match path.split_once('.') {
        Some((name, rest)) => {
            if let Some(inner) = message.get_field_by_name_mut(name).and_then(Value::as_message_mut) {
                set(inner, rest, value);
            }
        }
        None => message.set_field_by_name(path, value),
    }
}

/// What a field holds.
fn kind(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(message) => format!("a `{}`", message.full_name()),
        Kind::Enum(values) => format!("a `{}`", values.full_name()),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

#[cfg(test)]
mod tests;
