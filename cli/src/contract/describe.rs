//! Reads `.proto` files into a contract that knows where each fact is written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::method_options::IdempotencyLevel;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, MessageOptions,
    MethodDescriptorProto, MethodOptions,
};
use proto::naming::{event_subject, snake};

use super::compile::{compile, path};
use super::{Contract, FactKey, FactKind};
use crate::problem::{Place, Problems};

/// A contract and where it is written.
pub(super) struct Described {
    pub(super) contract: Contract,
    places: BTreeMap<FactKey, Place>,
    /// Messages and enums by full name, packages by name, services by the start of their subjects.
    named: BTreeMap<String, Place>,
}

impl Described {
    /// Where a fact is written.
    pub(super) fn place(&self, key: &FactKey) -> Place {
        self.places.get(key).cloned().unwrap_or_else(|| Place::start_of(""))
    }

    /// Whether there is a message or an enum of this name.
    pub(super) fn has(&self, kind: FactKind, name: &str) -> bool {
        self.contract.keys().any(|key| key.kind == kind && key.of == name)
    }

    /// Where something would be that is gone: its type, or else its package.
    pub(super) fn nearest(&self, key: &FactKey) -> Option<Place> {
        let package = match key.kind {
            FactKind::Rpc => {
                let (service, _) = key.of.rsplit_once('.')?;
                let package = service.strip_prefix("svc.")?;
                let name = if self.named.contains_key(service) { service } else { package };
                name.to_owned()
            }
            FactKind::Event => {
                let (entity, version) = key.of.strip_prefix("evt.")?.rsplit_once('.')?;
                format!("{}.{version}", entity.rsplit_once('.')?.0)
            }
            _ => key.of.clone(),
        };
        let mut name = package.as_str();
        loop {
            if let Some(place) = self.named.get(name) {
                return Some(place.clone());
            }
            name = name.rsplit_once('.')?.0;
        }
    }
}

/// Reads all `.proto` files in a folder.
pub(super) fn describe(folder: &Path) -> Result<Described, Problems> {
    let set = compile(folder)?;
    let ours = || set.file.iter().filter(|file| !file.package().starts_with("google."));
    let requests: BTreeSet<&str> = ours()
        .flat_map(|file| &file.service)
        .flat_map(|service| &service.method)
        .map(MethodDescriptorProto::input_type)
        .collect();
    let mut described = Described { contract: Contract::new(), places: BTreeMap::new(), named: BTreeMap::new() };
    for file in ours() {
        let mut reader = ContractReader {
            described: &mut described,
            lines: SourceLocations::new(folder, file),
            requests: &requests,
        };
        reader.file(file);
    }
    Ok(described)
}

/// Where the elements of a file are written, by their paths in its descriptor.
struct SourceLocations {
    file: PathBuf,
    spans: BTreeMap<Vec<i32>, (usize, usize)>,
}

impl SourceLocations {
    fn new(folder: &Path, file: &FileDescriptorProto) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        let number = |number: i32| usize::try_from(number).unwrap_or_default() + 1;
        Self {
            file: folder.join(file.name()),
            spans: locations
                .filter_map(|location| match location.span.as_slice() {
                    [line, column, ..] => Some((location.path.clone(), (number(*line), number(*column)))),
                    _ => None,
                })
                .collect(),
        }
    }

    fn place(&self, path: &[i32]) -> Place {
        let (line, column) = self.spans.get(path).copied().unwrap_or((1, 1));
        Place { file: self.file.clone(), line, column }
    }
}

struct ContractReader<'a> {
    described: &'a mut Described,
    lines: SourceLocations,
    /// Types of all requests, with a leading dot.
    requests: &'a BTreeSet<&'a str>,
}

impl ContractReader<'_> {
    fn file(&mut self, file: &FileDescriptorProto) {
        let package = file.package();
        self.named(package, &[path::PACKAGE]);
        for (index, message) in numbered(&file.message_type) {
            let name = format!("{package}.{}", message.name());
            let at = [path::MESSAGE, index];
            if let Some(subject) = self.event(package, message) {
                self.fact(FactKey::new(FactKind::Event, subject), name.clone(), &at);
            }
            self.message(&name, message, &at);
        }
        for (index, described) in numbered(&file.enum_type) {
            self.enumeration(&format!("{package}.{}", described.name()), described, &[path::ENUM, index]);
        }
        for (index, service) in numbered(&file.service) {
            let at = [path::SERVICE, index];
            self.named(&format!("svc.{package}"), &at);
            for (index, method) in numbered(&service.method) {
                let level = method
                    .options
                    .as_ref()
                    .map_or(IdempotencyLevel::IdempotencyUnknown, MethodOptions::idempotency_level);
                let mut rest = format!("{} -> {}", without_dot(method.input_type()), without_dot(method.output_type()));
                if level != IdempotencyLevel::IdempotencyUnknown {
                    rest.push_str(" idempotent");
                }
                if method.server_streaming() {
                    rest.push_str(" stream");
                }
                let subject = format!("svc.{package}.{}", snake(method.name()));
                self.fact(FactKey::new(FactKind::Rpc, subject), rest, &[&at[..], &[path::METHOD, index]].concat());
            }
        }
    }

    /// By convention a message that carries `Meta` and is no request is an event.
    fn event(&self, package: &str, message: &DescriptorProto) -> Option<String> {
        let has_meta = message.field.iter().any(|field| field.number() == 1 && field.type_name() == ".common.v1.Meta");
        let is_request = self.requests.contains(format!(".{package}.{}", message.name()).as_str());
        if has_meta && !is_request { event_subject(package, message.name()) } else { None }
    }

    fn message(&mut self, name: &str, message: &DescriptorProto, at: &[i32]) {
        self.named(name, at);
        self.fact(FactKey::new(FactKind::Message, name), String::new(), at);
        for (index, field) in numbered(&message.field) {
            let rest = field_line(message, field);
            let key = FactKey::numbered(FactKind::Field, name, field.number());
            self.fact(key, rest, &[at, &[path::FIELD, index]].concat());
        }
        for (index, range) in numbered(&message.reserved_range) {
            let key = FactKey::numbered(FactKind::Reserved, name, range.start());
            // The end of a range is exclusive in descriptors and inclusive in files.
            self.fact(key, format!("to {}", range.end() - 1), &[at, &[path::RESERVED_RANGE, index]].concat());
        }
        for (index, nested) in numbered(&message.nested_type) {
            let is_map = nested.options.as_ref().is_some_and(MessageOptions::map_entry);
            if !is_map {
                let at = [at, &[path::NESTED_MESSAGE, index]].concat();
                self.message(&format!("{name}.{}", nested.name()), nested, &at);
            }
        }
        for (index, nested) in numbered(&message.enum_type) {
            let at = [at, &[path::NESTED_ENUM, index]].concat();
            self.enumeration(&format!("{name}.{}", nested.name()), nested, &at);
        }
    }

    fn enumeration(&mut self, name: &str, described: &EnumDescriptorProto, at: &[i32]) {
        self.named(name, at);
        for (index, value) in numbered(&described.value) {
            let key = FactKey::numbered(FactKind::Enum, name, value.number());
            // An alias has the number of another value.
            let rest = match self.described.contract.get(&key) {
                Some(other) => format!("{other}|{}", value.name()),
                None => value.name().to_owned(),
            };
            self.fact(key, rest, &[at, &[path::VALUE, index]].concat());
        }
    }

    fn fact(&mut self, key: FactKey, rest: String, at: &[i32]) {
        self.described.places.insert(key.clone(), self.lines.place(at));
        self.described.contract.insert(key, rest);
    }

    fn named(&mut self, name: &str, at: &[i32]) {
        self.described.named.insert(name.to_owned(), self.lines.place(at));
    }
}

fn numbered<T>(items: &[T]) -> impl Iterator<Item = (i32, &T)> {
    (0..).zip(items)
}

/// `name type cardinality`, and what else JSON or a peer can see.
fn field_line(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let map = message.nested_type.iter().find(|nested| {
        let is_map = nested.options.as_ref().is_some_and(MessageOptions::map_entry);
        is_map && field.type_name().ends_with(&format!(".{}.{}", message.name(), nested.name()))
    });
    let (name, mut cardinality) = match map.map(|map| map.field.as_slice()) {
        Some([key, value, ..]) => (format!("map<{},{}>", type_name(key), type_name(value)), "map".to_owned()),
        _ if field.label() == Label::Repeated => (type_name(field), "repeated".to_owned()),
        _ if field.proto3_optional() => (type_name(field), "optional".to_owned()),
        _ => (type_name(field), "single".to_owned()),
    };
    if let (Some(index), false) = (field.oneof_index, field.proto3_optional()) {
        let oneof = usize::try_from(index).ok().and_then(|index| message.oneof_decl.get(index));
        cardinality = format!("oneof={}", oneof.map_or("", |oneof| oneof.name()));
    }
    if field.json_name() != camel(field.name()) {
        cardinality.push_str(&format!(" json={}", field.json_name()));
    }
    format!("{} {name} {cardinality}", field.name())
}

fn type_name(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum | Type::Group => without_dot(field.type_name()).to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

fn without_dot(name: &str) -> &str {
    name.strip_prefix('.').unwrap_or(name)
}

/// `player_id` gives `playerId`, as in JSON.
fn camel(name: &str) -> String {
    let mut out = String::new();
    let mut after_underscore = false;
    for letter in name.chars() {
        match letter {
            '_' => after_underscore = true,
            letter if after_underscore => {
                out.extend(letter.to_uppercase());
                after_underscore = false;
            }
            letter => out.push(letter),
        }
    }
    out
}
