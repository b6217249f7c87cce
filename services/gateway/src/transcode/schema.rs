//! Descriptors, compiled into tables for transcoding: a field needs one look-up, and no reference counting or cloning.

use std::collections::HashMap;
use std::fmt;

use prost_reflect::{Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor, Syntax};

/// The maximum number of fields of a message, which is the size of a [`FieldSet`].
const MAX_FIELDS: usize = 256;

/// All messages and enums of a descriptor pool.
#[derive(Debug)]
pub struct Schema {
    messages: Vec<Message>,
    enums: Vec<Enum>,
    by_name: HashMap<String, usize>,
}

/// One message.
#[derive(Debug)]
pub struct Message {
    /// Full name, for example `quest.v1.QuestInfo`.
    pub name: String,
    /// Its JSON form.
    pub form: Form,
    /// In the order of their numbers.
    pub fields: Vec<Field>,
    /// The names of each oneof and its fields.
    pub oneofs: Vec<(String, FieldSet)>,
    /// Field indexes by JSON name and by the name in the `.proto` file.
    names: HashMap<String, usize>,
}

/// The JSON form of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An object with its fields.
    Object,
    /// `google.protobuf.Timestamp`: RFC 3339 text.
    Timestamp,
    /// `google.protobuf.Duration`: seconds, for example `"1.5s"`.
    Duration,
    /// `google.protobuf.FieldMask`: comma-separated paths.
    FieldMask,
    /// `google.protobuf.Struct`: any object.
    Struct,
    /// `google.protobuf.Value`: any value.
    Value,
    /// `google.protobuf.ListValue`: any array.
    ListValue,
    /// `google.protobuf.Int32Value` and its like: the value itself.
    Wrapper,
}

/// One field.
#[derive(Debug)]
pub struct Field {
    /// Name in the `.proto` file.
    pub name: String,
    /// Name in JSON.
    pub json_name: String,
    /// `"jsonName":`, encoded for output.
    pub key: String,
    /// Field number.
    pub number: u32,
    /// Whether it is singular, repeated or a map.
    pub shape: Shape,
    /// The type of a value; for a map, of its values.
    pub kind: Kind,
    /// Whether a default value is distinguished from an absent one.
    pub presence: bool,
    /// Index into [`Message::oneofs`].
    pub oneof: Option<usize>,
}

/// Whether a field is singular, repeated or a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Singular.
    One,
    /// Repeated, in the packed encoding.
    Packed,
    /// Repeated.
    List,
    /// A map with keys of this kind.
    Map(Kind),
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the protobuf language")]
pub enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(EnumId),
    Message(MessageId),
}

/// The id of a message in a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageId(usize);

/// The id of an enum in a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnumId(usize);

/// One enum.
#[derive(Debug)]
pub struct Enum {
    /// Full name.
    pub name: String,
    /// Names and numbers, in the order of the numbers.
    pub values: Vec<(String, i32)>,
    by_name: HashMap<String, i32>,
    by_number: HashMap<i32, usize>,
}

/// A set of fields of one message, by index.
#[derive(Clone, Copy, Debug, Default)]
pub struct FieldSet([u64; MAX_FIELDS / 64]);

/// A contract without a JSON mapping.
#[derive(Debug)]
pub struct Unsupported(String);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsupported {}

impl Schema {
    /// Compiles the descriptors of the fleet's contract.
    ///
    /// # Errors
    /// If the embedded descriptors use an unsupported feature.
    pub fn for_fleet() -> Result<Self, Unsupported> {
        let pool = DescriptorPool::decode(proto::DESCRIPTORS)
            .map_err(|error| Unsupported(format!("the embedded descriptors are damaged: {error}")))?;
        Self::new(&pool)
    }

    /// Compiles the descriptors of `pool`.
    ///
    /// # Errors
    /// If a message uses an unsupported feature: groups, extensions, `google.protobuf.Any`, more than 256 fields.
    pub fn new(pool: &DescriptorPool) -> Result<Self, Unsupported> {
        let messages: Vec<MessageDescriptor> = pool.all_messages().filter(|message| !message.is_map_entry()).collect();
        let enums: Vec<EnumDescriptor> = pool.all_enums().collect();
        let index = Index {
            messages: names(messages.iter().map(MessageDescriptor::full_name)),
            enums: names(enums.iter().map(EnumDescriptor::full_name)),
        };
        Ok(Self {
            messages: messages.iter().map(|message| index.message(message)).collect::<Result<_, _>>()?,
            enums: enums.iter().map(compile_enum).collect(),
            by_name: index.messages,
        })
    }

    /// Finds a message by its full name.
    ///
    /// # Errors
    /// If there is no such message.
    pub fn id(&self, name: &str) -> Result<MessageId, Unsupported> {
        let found = self.by_name.get(name).copied().map(MessageId);
        found.ok_or_else(|| Unsupported(format!("there is no message `{name}`")))
    }

    /// The message with this id.
    pub fn message(&self, id: MessageId) -> &Message {
        &self.messages[id.0]
    }

    /// The enum of a [`Kind::Enum`].
    pub fn enumeration(&self, id: EnumId) -> &Enum {
        &self.enums[id.0]
    }
}

impl Message {
    /// The field with this JSON name or name in the `.proto` file, and its index.
    pub(super) fn field(&self, name: &str) -> Option<(usize, &Field)> {
        let index = *self.names.get(name)?;
        Some((index, &self.fields[index]))
    }

    /// The index of the field with this number.
    pub(super) fn numbered(&self, number: u32) -> Option<usize> {
        // Field numbers are usually dense, so the guess is usually right.
        let guess = (number as usize).wrapping_sub(1);
        match self.fields.get(guess) {
            Some(field) if field.number == number => Some(guess),
            _ => self.fields.binary_search_by_key(&number, |field| field.number).ok(),
        }
    }
}

impl Enum {
    pub(super) fn number(&self, name: &str) -> Option<i32> {
        self.by_name.get(name).copied()
    }

    pub(super) fn name(&self, number: i32) -> Option<&str> {
        self.by_number.get(&number).map(|index| self.values[*index].0.as_str())
    }
}

impl FieldSet {
    /// Adds a field, and returns whether it is new.
    pub(super) fn insert(&mut self, index: usize) -> bool {
        let (word, bit) = (index / 64, 1 << (index % 64));
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    pub(crate) fn contains(&self, index: usize) -> bool {
        self.0[index / 64] & (1 << (index % 64)) != 0
    }

    pub(super) fn intersects(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).any(|(left, right)| left & right != 0)
    }
}

struct Index {
    messages: HashMap<String, usize>,
    enums: HashMap<String, usize>,
}

impl Index {
    fn message(&self, message: &MessageDescriptor) -> Result<Message, Unsupported> {
        let name = message.full_name().to_owned();
        if message.parent_file().syntax() == Syntax::Proto2 && !name.starts_with("google.protobuf.") {
            return Err(Unsupported(format!("`{name}` is proto2; only proto3 is supported")));
        }
        if message.fields().len() > MAX_FIELDS {
            return Err(Unsupported(format!("`{name}` has more than {MAX_FIELDS} fields")));
        }
        let mut fields = message.fields().map(|field| self.field(&field)).collect::<Result<Vec<_>, _>>()?;
        fields.sort_by_key(|field| field.number);

        let mut oneofs = Vec::new();
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            let mut members = FieldSet::default();
            for member in oneof.fields() {
                if let Ok(index) = fields.binary_search_by_key(&member.number(), |field| field.number) {
                    members.insert(index);
                    fields[index].oneof = Some(oneofs.len());
                }
            }
            oneofs.push((oneof.name().to_owned(), members));
        }
        let names = fields
            .iter()
            .enumerate()
            .flat_map(|(index, field)| [(field.name.clone(), index), (field.json_name.clone(), index)])
            .collect();
        Ok(Message { form: form(&name), name, fields, oneofs, names })
    }

    fn field(&self, field: &FieldDescriptor) -> Result<Field, Unsupported> {
        let (shape, kind) = match field.kind() {
            prost_reflect::Kind::Message(entry) if field.is_map() => {
                let key = self.kind(&entry.map_entry_key_field())?;
                (Shape::Map(key), self.kind(&entry.map_entry_value_field())?)
            }
            _ if field.is_packed() => (Shape::Packed, self.kind(field)?),
            _ if field.cardinality() == Cardinality::Repeated => (Shape::List, self.kind(field)?),
            _ => (Shape::One, self.kind(field)?),
        };
        Ok(Field {
            name: field.name().to_owned(),
            json_name: field.json_name().to_owned(),
            key: format!("{}:", serde_json::Value::from(field.json_name())),
            number: field.number(),
            shape,
            kind,
            presence: field.supports_presence(),
            oneof: None,
        })
    }

    fn kind(&self, field: &FieldDescriptor) -> Result<Kind, Unsupported> {
        Ok(match field.kind() {
            prost_reflect::Kind::Double => Kind::Double,
            prost_reflect::Kind::Float => Kind::Float,
            prost_reflect::Kind::Int32 => Kind::Int32,
            prost_reflect::Kind::Int64 => Kind::Int64,
            prost_reflect::Kind::Uint32 => Kind::Uint32,
            prost_reflect::Kind::Uint64 => Kind::Uint64,
            prost_reflect::Kind::Sint32 => Kind::Sint32,
            prost_reflect::Kind::Sint64 => Kind::Sint64,
            prost_reflect::Kind::Fixed32 => Kind::Fixed32,
            prost_reflect::Kind::Fixed64 => Kind::Fixed64,
            prost_reflect::Kind::Sfixed32 => Kind::Sfixed32,
            prost_reflect::Kind::Sfixed64 => Kind::Sfixed64,
            prost_reflect::Kind::Bool => Kind::Bool,
            prost_reflect::Kind::String => Kind::String,
            prost_reflect::Kind::Bytes => Kind::Bytes,
            prost_reflect::Kind::Enum(of) => Kind::Enum(EnumId(self.enums[of.full_name()])),
            prost_reflect::Kind::Message(of) if of.full_name() == "google.protobuf.Any" => {
                let field = field.full_name();
                return Err(Unsupported(format!("`{field}` is a `google.protobuf.Any`, which is not supported")));
            }
            prost_reflect::Kind::Message(of) => Kind::Message(MessageId(self.messages[of.full_name()])),
        })
    }
}

fn compile_enum(descriptor: &EnumDescriptor) -> Enum {
    let values: Vec<(String, i32)> =
        descriptor.values().map(|value| (value.name().to_owned(), value.number())).collect();
    let mut by_number = HashMap::new();
    for (index, (_, number)) in values.iter().enumerate() {
        // If two names have the same number, the first one is written.
        by_number.entry(*number).or_insert(index);
    }
    Enum { name: descriptor.full_name().to_owned(), by_name: values.iter().cloned().collect(), by_number, values }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> HashMap<String, usize> {
    names.enumerate().map(|(index, name)| (name.to_owned(), index)).collect()
}

fn form(name: &str) -> Form {
    match name {
        "google.protobuf.Timestamp" => Form::Timestamp,
        "google.protobuf.Duration" => Form::Duration,
        "google.protobuf.FieldMask" => Form::FieldMask,
        "google.protobuf.Struct" => Form::Struct,
        "google.protobuf.Value" => Form::Value,
        "google.protobuf.ListValue" => Form::ListValue,
        "google.protobuf.DoubleValue"
        | "google.protobuf.FloatValue"
        | "google.protobuf.Int64Value"
        | "google.protobuf.UInt64Value"
        | "google.protobuf.Int32Value"
        | "google.protobuf.UInt32Value"
        | "google.protobuf.BoolValue"
        | "google.protobuf.StringValue"
        | "google.protobuf.BytesValue" => Form::Wrapper,
        _ => Form::Object,
    }
}
