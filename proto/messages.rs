//! What the build script derives from messages and enumerations, besides what prost makes of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MessageOptions,
};

use crate::naming::snake;

/// Fields that hold secrets. A message with one of them shows its name alone when it is printed.
const SECRETS: [&str; 5] = ["password", "password_hash", "access_token", "refresh_token", "private_key"];

/// The name that a record reserves for the operations which the SDK stores with it, in the field whose number is the highest
/// that the message reserves.
const OPERATIONS: &str = "operations";

/// Where the methods of each request are: the expression of the method, by the full name of the request.
pub(crate) type Methods = BTreeMap<String, String>;

/// The traits of the messages of a file.
pub(crate) fn write(out: &mut String, file: &FileDescriptorProto, methods: &Methods) -> Result<(), String> {
    let module = rust_path(file.package());
    for message in &file.message_type {
        let path = format!("crate::{module}::{}", message.name());
        if let Some(method) = methods.get(&format!(".{}.{}", file.package(), message.name())) {
            request(out, &path, method);
        }
        if has_secrets(message) {
            push(
                out,
                format_args!(
                    "impl ::core::fmt::Debug for {path} {{\n    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> \
                     ::core::fmt::Result {{\n        f.write_str({:?})\n    }}\n}}\n",
                    message.name()
                ),
            );
        }
        record(out, &path, message)
            .map_err(|reason| format!("{}: record `{}` {reason}", file.name(), message.name()))?;
    }
    for (path, enumeration) in enumerations(file) {
        names(out, &path, enumeration);
    }
    Ok(())
}

/// The full names of the messages that hold secrets.
pub(crate) fn with_secrets(set: &FileDescriptorSet) -> Vec<String> {
    let messages = set.file.iter().flat_map(|file| file.message_type.iter().map(|message| (file.package(), message)));
    messages.filter(|(_, it)| has_secrets(it)).map(|(package, it)| format!(".{package}.{}", it.name())).collect()
}

fn has_secrets(message: &DescriptorProto) -> bool {
    message.field.iter().any(|field| SECRETS.contains(&field.name()))
}

fn request(out: &mut String, path: &str, method: &str) {
    push(
        out,
        format_args!(
            "impl crate::rpc::Request for {path} {{\n    const METHOD: &'static crate::rpc::Method = &{method};\n}}\n"
        ),
    );
}

/// A response with one payload is made from it.
pub(crate) fn payload(out: &mut String, path: &str, message: &DescriptorProto) {
    let [_, payload] = &message.field[..] else { return };
    let is_message = payload.r#type() == Type::Message && payload.oneof_index.is_none();
    if !is_message
        || message.nested_type.iter().any(|nested| nested.options.as_ref().is_some_and(MessageOptions::map_entry))
    {
        return;
    }
    let (name, message) = (payload.name(), message_path(payload.type_name()));
    let (payload, value) = match payload.label() {
        Label::Repeated => (format!("Vec<{message}>"), "payload"),
        _ => (message, "Some(payload)"),
    };
    push(
        out,
        format_args!(
            "impl From<{payload}> for {path} {{\n    fn from(payload: {payload}) -> Self {{\n        \
             Self {{ error: None, {name}: {value} }}\n    }}\n}}\n"
        ),
    );
}

fn record(out: &mut String, path: &str, message: &DescriptorProto) -> Result<(), String> {
    if !message.reserved_name.iter().any(|name| name == OPERATIONS) {
        return Ok(());
    }
    let reserved = message.reserved_range.iter().map(|range| range.end() - 1).max();
    let number = reserved.ok_or("reserves the name `operations` and no number for it")?;
    let is_revision = |field: &FieldDescriptorProto| field.name() == "revision" && field.r#type() == Type::Uint64;
    push(out, format_args!("impl crate::rpc::Record for {path} {{\n    const OPERATIONS: u32 = {number};\n"));
    if message.field.iter().any(is_revision) {
        push(
            out,
            format_args!(
                "    fn set_revision(&mut self, revision: u64) {{\n        self.revision = revision;\n    }}\n"
            ),
        );
    }
    out.push_str("}\n");
    Ok(())
}

/// What the values of an enumeration are called, without the one that means that there is none.
fn names(out: &mut String, path: &str, enumeration: &EnumDescriptorProto) {
    let is_unspecified = |name: &str| name.ends_with("_UNSPECIFIED");
    let names = enumeration.value.iter().map(EnumValueDescriptorProto::name);
    let names: Vec<&str> = names.filter(|name| !is_unspecified(name)).collect();
    push(
        out,
        format_args!(
            "impl crate::rpc::Enumeration for {path} {{\n    const NAMES: &'static [&'static str] = &{names:?};\n    \
             fn name(self) -> &'static str {{\n        self.as_str_name()\n    }}\n}}\n"
        ),
    );
}

/// The enumerations of a file, those inside of messages too, with their paths.
fn enumerations(file: &FileDescriptorProto) -> Vec<(String, &EnumDescriptorProto)> {
    let mut found = Vec::new();
    let mut open: Vec<(String, &[EnumDescriptorProto], &[DescriptorProto])> =
        vec![(format!("crate::{}", rust_path(file.package())), &file.enum_type, &file.message_type)];
    while let Some((module, enumerations, messages)) = open.pop() {
        found.extend(enumerations.iter().map(|it| (format!("{module}::{}", it.name()), it)));
        let inner =
            messages.iter().map(|it| (format!("{module}::{}", snake(it.name())), &*it.enum_type, &*it.nested_type));
        open.extend(inner);
    }
    found
}

/// The path of a message by its full name, for example `.google.protobuf.Timestamp` or `.quest.v1.QuestInfo`.
fn message_path(full: &str) -> String {
    if let Some(name) = full.strip_prefix(".google.protobuf.") {
        return format!("::prost_types::{name}");
    }
    let mut tokens: Vec<String> = full.trim_start_matches('.').split('.').map(str::to_owned).collect();
    // Modules are in snake case: packages are already, messages around other messages become so.
    let last = tokens.len() - 1;
    tokens[..last].iter_mut().for_each(|token| *token = snake(token));
    format!("crate::{}", tokens.join("::"))
}

pub(crate) fn rust_path(package: &str) -> String {
    package.replace('.', "::")
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string does not fail");
}
