//! Transcodes protobuf bytes to JSON text.

use std::collections::HashMap;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Buf as _;
use proto::well_known::{Duration, FieldMask, Timestamp};

use super::schema::{Field, Form, Kind, Message, Schema, Shape};
use super::{InvalidMessage, time};

/// The maximum nesting of messages, the same as protobuf's own limit.
const MAX_DEPTH: usize = 100;

pub(super) fn message(
    schema: &Schema,
    message: &Message,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), InvalidMessage> {
    let writer = Writer { schema, items: Vec::with_capacity(32), depth: 0 };
    { writer }.message(message, bytes, out)
}

/// One occurrence of a known field.
#[derive(Clone, Copy)]
struct Item<'a> {
    field: usize,
    wire: Wire<'a>,
}

#[derive(Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

struct Writer<'a> {
    schema: &'a Schema,
    /// A stack: each message pushes its fields and pops them again.
    items: Vec<Item<'a>>,
    depth: usize,
}

impl<'a> Writer<'a> {
    fn message(&mut self, message: &'a Message, bytes: &'a [u8], out: &mut Vec<u8>) -> Result<(), InvalidMessage> {
        if self.depth == MAX_DEPTH {
            return Err(InvalidMessage(format!("messages are nested deeper than {MAX_DEPTH}")));
        }
        let base = self.items.len();
        self.depth += 1;
        match message.form {
            Form::Object => {
                self.scan(message, bytes)?;
                self.object(message, base, out)?;
            }
            Form::Struct => {
                self.scan(message, bytes)?;
                self.many(&message.fields[0], base..self.items.len(), out)?;
            }
            Form::ListValue => {
                self.scan(message, bytes)?;
                self.many(&message.fields[0], base..self.items.len(), out)?;
            }
            Form::Value => {
                self.scan(message, bytes)?;
                match self.items[base..].last().copied() {
                    Some(Item { wire: Wire::Fixed64(bits), .. }) if !f64::from_bits(bits).is_finite() => {
                        let number = f64::from_bits(bits);
                        return Err(InvalidMessage(format!(
                            "a `{}` is the number `{number}`, which JSON does not have",
                            message.name
                        )));
                    }
                    // Of a oneof, the members of one field are left.
                    Some(item) => self.one(&message.fields[item.field], base..self.items.len(), out)?,
                    None => out.extend(b"null"),
                }
            }
            Form::Wrapper => {
                self.scan(message, bytes)?;
                let field = &message.fields[0];
                let wire = self.items[base..].last().map(|item| item.wire);
                self.value(field, wire.unwrap_or_else(|| default(field.kind)), out)?;
            }
            Form::Timestamp => {
                let timestamp: Timestamp = well_known(bytes)?;
                time::write_timestamp(&timestamp, out).ok_or_else(|| out_of_range(message))?;
            }
            Form::Duration => {
                let duration: Duration = well_known(bytes)?;
                time::write_duration(&duration, out).ok_or_else(|| out_of_range(message))?;
            }
            Form::FieldMask => {
                let mask: FieldMask = well_known(bytes)?;
                let paths: Vec<String> = mask.paths.iter().map(|path| camel_case(path)).collect();
                string(&paths.join(","), out);
            }
        }
        self.items.truncate(base);
        self.depth -= 1;
        Ok(())
    }

    /// Pushes the fields of a message onto the stack. Unknown fields are skipped.
    fn scan(&mut self, message: &Message, mut bytes: &'a [u8]) -> Result<(), InvalidMessage> {
        let base = self.items.len();
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            let number = u32::try_from(key >> 3).map_err(|_| truncated())?;
            let wire = match key & 7 {
                0 => Wire::Varint(varint(&mut bytes)?),
                1 => Wire::Fixed64(bytes.try_get_u64_le().map_err(|_| truncated())?),
                2 => Wire::Bytes(delimited(&mut bytes)?),
                5 => Wire::Fixed32(bytes.try_get_u32_le().map_err(|_| truncated())?),
                other => return Err(InvalidMessage(format!("`{}` has the wire type {other}", message.name))),
            };
            if let Some(field) = message.numbered(number) {
                if let Some(oneof) = message.fields[field].oneof {
                    // The last member of a oneof wins.
                    let members = &message.oneofs[oneof].1;
                    let mut at = base;
                    while at < self.items.len() {
                        let other = self.items[at].field;
                        if other != field && members.contains(other) {
                            self.items.remove(at);
                        } else {
                            at += 1;
                        }
                    }
                }
                self.items.push(Item { field, wire });
            }
        }
        let items = &mut self.items[base..];
        if !items.is_sorted_by_key(|item| item.field) {
            items.sort_by_key(|item| item.field);
        }
        Ok(())
    }

    fn object(&mut self, message: &'a Message, base: usize, out: &mut Vec<u8>) -> Result<(), InvalidMessage> {
        let end = self.items.len();
        let mut at = base;
        out.push(b'{');
        while at < end {
            let index = self.items[at].field;
            let run = self.items[at..end].iter().take_while(|item| item.field == index).count();
            let field = &message.fields[index];
            let last = self.items[at + run - 1].wire;
            // A default value without field presence is omitted.
            let absent = field.shape == Shape::One && !field.presence && is_default(last);
            if !absent {
                if out.last() != Some(&b'{') {
                    out.push(b',');
                }
                out.extend_from_slice(field.key.as_bytes());
                match field.shape {
                    Shape::One => self.one(field, at..at + run, out)?,
                    _ => self.many(field, at..at + run, out)?,
                }
            }
            at += run;
        }
        out.push(b'}');
        Ok(())
    }

    /// Writes a singular field that occurs at least once. Of several values the last one counts; messages are merged.
    fn one(
        &mut self,
        field: &'a Field,
        items: std::ops::Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), InvalidMessage> {
        match field.kind {
            Kind::Message(of) if items.len() > 1 => {
                let wires = self.items[items].iter().map(|item| item.wire);
                let parts = concatenated(field, wires)?;
                self.merged(self.schema.message(of), &parts, out)
            }
            _ => self.value(field, self.items[items.end - 1].wire, out),
        }
    }

    /// Writes a message that occurs several times: its merged value is the concatenation of the encodings.
    fn merged(&self, message: &Message, parts: &[u8], out: &mut Vec<u8>) -> Result<(), InvalidMessage> {
        let writer = Writer { schema: self.schema, items: Vec::new(), depth: self.depth };
        { writer }.message(message, parts, out)
    }

    fn many(
        &mut self,
        field: &'a Field,
        items: std::ops::Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), InvalidMessage> {
        if let Shape::Map(key) = field.shape {
            return self.map(field, key, items, out);
        }
        out.push(b'[');
        for at in items {
            match self.items[at].wire {
                Wire::Bytes(mut packed) if packable(field.kind) => {
                    while !packed.is_empty() {
                        comma(out);
                        let wire = scalar(field.kind, &mut packed)?;
                        self.value(field, wire, out)?;
                    }
                }
                wire => {
                    comma(out);
                    self.value(field, wire, out)?;
                }
            }
        }
        out.push(b']');
        Ok(())
    }

    /// Writes a map. Of entries with the same key, the last one counts: these are not merged, as a map assigns.
    fn map(
        &mut self,
        field: &'a Field,
        of: Kind,
        items: std::ops::Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), InvalidMessage> {
        let mut last = HashMap::new();
        if items.len() > 1 {
            for at in items.clone() {
                let entry = Entry::read(field, of, self.items[at].wire)?;
                let mut text = Vec::new();
                self.map_key(field, of, entry.key, &mut text)?;
                last.insert(text, at);
            }
        }
        out.push(b'{');
        for at in items {
            let entry = Entry::read(field, of, self.items[at].wire)?;
            let start = out.len();
            if out.last() != Some(&b'{') {
                out.push(b',');
            }
            let text = out.len();
            self.map_key(field, of, entry.key, out)?;
            if last.get(&out[text..]).is_some_and(|last| *last != at) {
                out.truncate(start);
                continue;
            }
            out.push(b':');
            match (field.kind, &entry.values[..]) {
                (Kind::Message(of), [_, _, ..]) => {
                    let parts = concatenated(field, entry.values.iter().copied())?;
                    self.merged(self.schema.message(of), &parts, out)?;
                }
                (_, [.., value]) => self.value(field, *value, out)?,
                (_, []) => self.value(field, default(field.kind), out)?,
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// Writes the key of a map's entry, which is a string in JSON.
    fn map_key(
        &mut self,
        field: &'a Field,
        kind: Kind,
        key: Wire<'a>,
        out: &mut Vec<u8>,
    ) -> Result<(), InvalidMessage> {
        match kind {
            Kind::String | Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64 => {
                self.kind(field, kind, key, out)
            }
            _ => {
                out.push(b'"');
                self.kind(field, kind, key, out)?;
                out.push(b'"');
                Ok(())
            }
        }
    }

    fn value(&mut self, field: &'a Field, wire: Wire<'a>, out: &mut Vec<u8>) -> Result<(), InvalidMessage> {
        self.kind(field, field.kind, wire, out)
    }

    fn kind(&mut self, field: &'a Field, kind: Kind, wire: Wire<'a>, out: &mut Vec<u8>) -> Result<(), InvalidMessage> {
        let written = match (kind, wire) {
            (Kind::Message(of), Wire::Bytes(bytes)) => return self.message(self.schema.message(of), bytes, out),
            (Kind::String, Wire::Bytes(bytes)) => {
                let text = std::str::from_utf8(bytes)
                    .map_err(|_| InvalidMessage(format!("field `{}` is not UTF-8", field.name)))?;
                string(text, out);
                Ok(())
            }
            (Kind::Bytes, Wire::Bytes(bytes)) => write!(out, "\"{}\"", STANDARD.encode(bytes)),
            (Kind::Bool, Wire::Varint(value)) => write!(out, "{}", value != 0),
            // The value of a 32-bit integer is the lower half.
            (Kind::Int32, Wire::Varint(value)) => write!(out, "{}", value as i32),
            (Kind::Uint32, Wire::Varint(value)) => write!(out, "{}", value as u32),
            (Kind::Sint32, Wire::Varint(value)) => write!(out, "{}", zigzag(u64::from(value as u32)) as i32),
            (Kind::Int64, Wire::Varint(value)) => write!(out, "\"{}\"", value.cast_signed()),
            (Kind::Uint64, Wire::Varint(value)) => write!(out, "\"{value}\""),
            (Kind::Sint64, Wire::Varint(value)) => write!(out, "\"{}\"", zigzag(value)),
            (Kind::Fixed32, Wire::Fixed32(value)) => write!(out, "{value}"),
            (Kind::Sfixed32, Wire::Fixed32(value)) => write!(out, "{}", value.cast_signed()),
            (Kind::Fixed64, Wire::Fixed64(value)) => write!(out, "\"{value}\""),
            (Kind::Sfixed64, Wire::Fixed64(value)) => write!(out, "\"{}\"", value.cast_signed()),
            (Kind::Double, Wire::Fixed64(value)) => {
                double(f64::from_bits(value), out);
                Ok(())
            }
            (Kind::Float, Wire::Fixed32(value)) => {
                let value = f32::from_bits(value);
                if value.is_finite() && (value.fract() != 0.0 || value.abs() > MAX_EXACT_FLOAT) {
                    write!(out, "{value:?}")
                } else {
                    double(f64::from(value), out);
                    Ok(())
                }
            }
            (Kind::Enum(of), Wire::Varint(value)) => {
                let of = self.schema.enumeration(of);
                let number = value as i32;
                match of.name(number) {
                    _ if of.name == "google.protobuf.NullValue" => write!(out, "null"),
                    Some(name) => write!(out, "\"{name}\""),
                    None => write!(out, "{number}"),
                }
            }
            _ => return Err(wrong_type(field)),
        };
        written.expect("writing to a vector does not fail");
        Ok(())
    }
}

/// An entry of a map.
struct Entry<'a> {
    key: Wire<'a>,
    /// Usually one.
    values: Vec<Wire<'a>>,
}

impl<'a> Entry<'a> {
    fn read(field: &Field, of: Kind, wire: Wire<'a>) -> Result<Self, InvalidMessage> {
        let Wire::Bytes(mut bytes) = wire else {
            return Err(wrong_type(field));
        };
        let mut entry = Self { key: default(of), values: Vec::new() };
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            let wire = match tag & 7 {
                0 => Wire::Varint(varint(&mut bytes)?),
                1 => Wire::Fixed64(bytes.try_get_u64_le().map_err(|_| truncated())?),
                2 => Wire::Bytes(delimited(&mut bytes)?),
                5 => Wire::Fixed32(bytes.try_get_u32_le().map_err(|_| truncated())?),
                _ => return Err(wrong_type(field)),
            };
            match tag >> 3 {
                1 => entry.key = wire,
                2 => entry.values.push(wire),
                _ => {}
            }
        }
        Ok(entry)
    }
}

/// The encodings of a message that occurs several times, one after another.
fn concatenated<'a>(field: &Field, wires: impl Iterator<Item = Wire<'a>>) -> Result<Vec<u8>, InvalidMessage> {
    let mut parts = Vec::new();
    for wire in wires {
        let Wire::Bytes(part) = wire else { return Err(wrong_type(field)) };
        parts.extend_from_slice(part);
    }
    Ok(parts)
}

/// The whole numbers up to this one are all doubles.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;
/// The whole numbers up to this one are all floats.
const MAX_EXACT_FLOAT: f32 = 16_777_216.0;

fn double(value: f64, out: &mut Vec<u8>) {
    let written = if value.is_nan() {
        write!(out, "\"NaN\"")
    } else if value.is_infinite() {
        write!(out, "{}", if value > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" })
    } else if value.fract() == 0.0 && value.abs() <= MAX_EXACT && !(value == 0.0 && value.is_sign_negative()) {
        write!(out, "{}", value as i64)
    } else {
        write!(out, "{value:?}")
    };
    written.expect("writing to a vector does not fail");
}

/// Writes a string with JSON escapes.
fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain..at]);
        plain = at + 1;
        if escape.is_empty() {
            write!(out, "\\u{byte:04x}").expect("writing to a vector does not fail");
        } else {
            out.extend_from_slice(escape);
        }
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

fn comma(out: &mut Vec<u8>) {
    if out.last() != Some(&b'[') {
        out.push(b',');
    }
}

fn default(kind: Kind) -> Wire<'static> {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Wire::Fixed64(0),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Wire::Fixed32(0),
        Kind::String | Kind::Bytes | Kind::Message(_) => Wire::Bytes(&[]),
        _ => Wire::Varint(0),
    }
}

fn is_default(wire: Wire<'_>) -> bool {
    matches!(wire, Wire::Varint(0) | Wire::Fixed64(0) | Wire::Fixed32(0) | Wire::Bytes([]))
}

fn packable(kind: Kind) -> bool {
    !matches!(kind, Kind::String | Kind::Bytes | Kind::Message(_))
}

fn scalar(kind: Kind, bytes: &mut &[u8]) -> Result<Wire<'static>, InvalidMessage> {
    Ok(match default(kind) {
        Wire::Fixed64(_) => Wire::Fixed64(bytes.try_get_u64_le().map_err(|_| truncated())?),
        Wire::Fixed32(_) => Wire::Fixed32(bytes.try_get_u32_le().map_err(|_| truncated())?),
        _ => Wire::Varint(varint(bytes)?),
    })
}

fn varint(bytes: &mut &[u8]) -> Result<u64, InvalidMessage> {
    prost::encoding::decode_varint(bytes).map_err(|_| truncated())
}

fn delimited<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], InvalidMessage> {
    let length = usize::try_from(varint(bytes)?).map_err(|_| truncated())?;
    bytes.split_off(..length).ok_or_else(truncated)
}

fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

fn camel_case(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut raise = false;
    for letter in path.chars() {
        if letter == '_' {
            raise = true;
        } else if std::mem::take(&mut raise) {
            out.extend(letter.to_uppercase());
        } else {
            out.push(letter);
        }
    }
    out
}

fn well_known<M: prost::Message + Default>(bytes: &[u8]) -> Result<M, InvalidMessage> {
    M::decode(bytes).map_err(|error| InvalidMessage(error.to_string()))
}

fn truncated() -> InvalidMessage {
    InvalidMessage("the bytes end in the middle of a field".to_owned())
}

fn wrong_type(field: &Field) -> InvalidMessage {
    InvalidMessage(format!("field `{}` has another type", field.name))
}

fn out_of_range(message: &Message) -> InvalidMessage {
    InvalidMessage(format!("a `{}` is out of range", message.name))
}
