//! Generates messages of any type from random bytes: fewer bytes make a smaller message.

use std::collections::HashMap;

use prost::bytes::Bytes;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value};

/// A source of choices. When the bytes are used up, every choice is 0.
pub(super) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn number(&mut self) -> u64 {
        let width = self.byte() % 9;
        (0..width).fold(0, |number, _| (number << 8) | u64::from(self.byte()))
    }

    fn text(&mut self) -> String {
        const LETTERS: [char; 12] = ['a', 'B', '7', ' ', '"', '\\', '\n', '\u{1}', 'é', '😀', '/', '\u{7f}'];
        (0..self.byte() % 8).map(|_| LETTERS[usize::from(self.byte()) % LETTERS.len()]).collect()
    }
}

pub(super) fn message(descriptor: &MessageDescriptor, choices: &mut Choices<'_>, depth: u8) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    let mut set = |name: &str, value: Value| message.set_field_by_name(name, value);
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => {
            let seconds = choices.number() % 315_537_897_600;
            set("seconds", Value::I64(seconds.cast_signed() - 62_135_596_800));
            set("nanos", Value::I32(nanos(choices)));
        }
        "google.protobuf.Duration" => {
            let sign = if choices.byte().is_multiple_of(2) { 1 } else { -1 };
            let seconds = (choices.number() % 315_576_000_000).cast_signed();
            set("seconds", Value::I64(seconds * sign));
            set("nanos", Value::I32(nanos(choices) * i32::try_from(sign).unwrap()));
        }
        "google.protobuf.FieldMask" => {
            let paths = ["a", "a_b", "quest_id.player_id"][..usize::from(choices.byte() % 4)].iter();
            set("paths", Value::List(paths.map(|path| Value::String((*path).to_owned())).collect()));
        }
        "google.protobuf.Value" => {
            let members: Vec<FieldDescriptor> = descriptor.fields().collect();
            let scalars = members.len() - if depth == 0 { 2 } else { 0 };
            let member = &members[usize::from(choices.byte()) % scalars];
            message.set_field(member, value(member, choices, depth));
        }
        _ => {
            for field in descriptor.fields() {
                // The depth limits nesting; a message field may always be absent.
                let ends = depth == 0 && matches!(field.kind(), Kind::Message(_));
                if ends || choices.byte().is_multiple_of(3) {
                    continue;
                }
                let value = many_or_one(&field, choices, depth);
                message.set_field(&field, value);
            }
        }
    }
    debug_assert_eq!(&message.descriptor(), descriptor);
    message
}

fn many_or_one(field: &FieldDescriptor, choices: &mut Choices<'_>, depth: u8) -> Value {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { unreachable!("a map is made of entries") };
        let entries = (0..choices.byte() % 4).map(|_| {
            let key = map_key(&entry.map_entry_key_field(), choices);
            (key, value(&entry.map_entry_value_field(), choices, depth))
        });
        Value::Map(entries.collect::<HashMap<_, _>>())
    } else if field.is_list() {
        Value::List((0..choices.byte() % 4).map(|_| value(field, choices, depth)).collect())
    } else {
        value(field, choices, depth)
    }
}

fn map_key(field: &FieldDescriptor, choices: &mut Choices<'_>) -> MapKey {
    match value(field, choices, 0) {
        Value::Bool(key) => MapKey::Bool(key),
        Value::I32(key) => MapKey::I32(key),
        Value::I64(key) => MapKey::I64(key),
        Value::U32(key) => MapKey::U32(key),
        Value::U64(key) => MapKey::U64(key),
        Value::String(key) => MapKey::String(key),
        other => unreachable!("no map has {other:?} for a key"),
    }
}

fn value(field: &FieldDescriptor, choices: &mut Choices<'_>, depth: u8) -> Value {
    match field.kind() {
        // Not arbitrary bits, because `serde_json` does not always parse the nearest number.
        Kind::Double => Value::F64(f64::from(choices.number() as i32) / 64.0),
        Kind::Float => Value::F32(f32::from(choices.number() as i16) / 64.0),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(choices.number() as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(choices.number().cast_signed()),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(choices.number() as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(choices.number()),
        Kind::Bool => Value::Bool(choices.byte() % 2 == 1),
        Kind::String => Value::String(choices.text()),
        Kind::Bytes => Value::Bytes(Bytes::from(choices.text())),
        Kind::Enum(of) if of.full_name() == "google.protobuf.NullValue" => Value::EnumNumber(0),
        Kind::Enum(of) => {
            let known = of.values().nth(usize::from(choices.byte()) % (of.values().len() + 1));
            Value::EnumNumber(known.map_or(12_345, |value| value.number()))
        }
        Kind::Message(of) => Value::Message(message(&of, choices, depth.saturating_sub(1))),
    }
}

fn nanos(choices: &mut Choices<'_>) -> i32 {
    const SOME: [i32; 5] = [0, 500_000_000, 1_000, 999_999_999, 1];
    SOME[usize::from(choices.byte()) % SOME.len()]
}
