//! Transcodes JSON text to protobuf bytes.

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::json::{Json, Start};
use super::numbers::{Inexact, Whole, integer_name, is_number, whole};
use super::schema::{Enum, Field, FieldSet, Form, Kind, Message, Schema, Shape};
use super::{InvalidBody, numbers, time};

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

pub(super) fn request(schema: &Schema, message: &Message, text: &[u8]) -> Result<Bytes, InvalidBody> {
    let mut reader = Reader {
        schema,
        json: Json::new(text)?,
        out: Vec::with_capacity(text.len()),
        meta: message.field("meta").map(|(index, _)| index),
    };
    let at = reader.json.position();
    if text[at..].is_empty() {
        return Err(InvalidBody::new(at, "expected an object, but the text ends").with_hint("send at least `{}`"));
    }
    reader.expect(Start::Object, "an object")?;
    reader.object(message)?;
    reader.json.end()?;
    Ok(reader.out.into())
}

struct Reader<'a> {
    schema: &'a Schema,
    json: Json<'a>,
    out: Vec<u8>,
    /// The field of the outermost object that is rejected.
    meta: Option<usize>,
}

impl<'a> Reader<'a> {
    fn object(&mut self, message: &Message) -> Result<(), InvalidBody> {
        let meta = self.meta.take();
        let (mut seen, mut filled) = (FieldSet::default(), FieldSet::default());
        let mut first = true;
        self.json.enter()?;
        while let Some((at, key)) = self.json.key(&mut first)? {
            let Some((index, field)) = message.field(&key) else {
                return Err(unknown_field(message, at, &key));
            };
            if meta == Some(index) {
                return Err(InvalidBody::new(at, "set by the gateway, not by the caller")
                    .with_hint("use the headers `Idempotency-Key`, `X-Request-Id` and `traceparent`")
                    .within(&key));
            }
            if !seen.insert(index) {
                return Err(InvalidBody::new(at, "duplicate field").within(&key));
            }
            let start = self.json.start()?;
            if start == Start::Null && !(field.shape == Shape::One && self.accepts_null(field.kind)) {
                self.json.take_word(start);
                continue;
            }
            if let Some(oneof) = field.oneof {
                let (name, members) = &message.oneofs[oneof];
                if filled.intersects(members) {
                    let others = message.fields.iter().enumerate();
                    let other = others.clone().find(|(other, _)| filled.contains(*other) && members.contains(*other));
                    let other = other.map_or("another", |(_, other)| &other.name);
                    return Err(InvalidBody::new(
                        at,
                        format!("`{other}` is set already, and both are members of `{name}`"),
                    )
                    .within(&key));
                }
            }
            filled.insert(index);
            self.field(field).map_err(|bad| bad.within(&key))?;
        }
        Ok(())
    }

    fn field(&mut self, field: &Field) -> Result<(), InvalidBody> {
        match field.shape {
            Shape::One => self.one(field),
            Shape::Packed => {
                self.expect(Start::Array, "an array")?;
                let before = self.out.len();
                self.tag(field.number, WireType::LengthDelimited);
                let empty = self.out.len() + 1;
                self.delimited(|reader| reader.elements(|reader| reader.value(field.kind)))?;
                if self.out.len() == empty {
                    self.out.truncate(before);
                }
                Ok(())
            }
            Shape::List => {
                self.expect(Start::Array, "an array")?;
                self.elements(|reader| {
                    reader.tag(field.number, wire_type(field.kind));
                    reader.value(field.kind)
                })
            }
            Shape::Map(of) => {
                self.expect(Start::Object, "an object")?;
                self.entries(field.number, of, field.kind)
            }
        }
    }

    /// Encodes a singular field. A default value without field presence is omitted.
    fn one(&mut self, field: &Field) -> Result<(), InvalidBody> {
        let before = self.out.len();
        self.tag(field.number, wire_type(field.kind));
        let value = self.out.len();
        self.value(field.kind)?;
        if !field.presence && self.out[value..].iter().all(|byte| *byte == 0) {
            self.out.truncate(before);
        }
        Ok(())
    }

    fn elements(&mut self, mut each: impl FnMut(&mut Self) -> Result<(), InvalidBody>) -> Result<(), InvalidBody> {
        let (mut first, mut index) = (true, 0);
        self.json.enter()?;
        while self.json.element(&mut first)? {
            each(self).map_err(|bad| bad.at_index(index))?;
            index += 1;
        }
        Ok(())
    }

    fn entries(&mut self, number: u32, of: Kind, kind: Kind) -> Result<(), InvalidBody> {
        let mut first = true;
        // As they are encoded, because `1` and `1.0` are the same key of a map with numbers as keys.
        let mut seen: HashSet<Vec<u8>> = HashSet::new();
        self.json.enter()?;
        while let Some((at, key)) = self.json.key(&mut first)? {
            self.tag(number, WireType::LengthDelimited);
            self.delimited(|reader| {
                reader.tag(1, wire_type(of));
                let start = reader.out.len();
                reader.map_key(of, at, &key)?;
                if !seen.insert(reader.out[start..].to_vec()) {
                    return Err(InvalidBody::new(at, "duplicate key"));
                }
                reader.tag(2, wire_type(kind));
                reader.value(kind)
            })
            .map_err(|bad| bad.within(&key))?;
        }
        Ok(())
    }

    fn map_key(&mut self, kind: Kind, at: usize, key: &str) -> Result<(), InvalidBody> {
        match (kind, key) {
            (Kind::String, _) => self.bytes(key.as_bytes()),
            (Kind::Bool, "true") => self.out.push(1),
            (Kind::Bool, "false") => self.out.push(0),
            (Kind::Bool, _) => return Err(InvalidBody::new(at, "expected the key `true` or `false`")),
            _ => self.integer(kind, at, key)?,
        }
        Ok(())
    }

    /// Encodes one value, without its tag.
    fn value(&mut self, kind: Kind) -> Result<(), InvalidBody> {
        match kind {
            Kind::String => {
                self.expect(Start::String, "a string")?;
                let text = self.json.string()?;
                self.bytes(text.as_bytes());
                Ok(())
            }
            Kind::Bool => {
                let (at, start) = (self.json.position(), self.json.start()?);
                match start {
                    Start::True | Start::False => {
                        self.json.take_word(start);
                        self.out.push(u8::from(start == Start::True));
                        Ok(())
                    }
                    _ => Err(unexpected_kind(at, "true or false", start)),
                }
            }
            Kind::Double | Kind::Float => self.float(kind),
            Kind::Bytes => {
                let at = self.json.position();
                self.expect(Start::String, "a string in base64")?;
                let text = self.json.string()?;
                let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
                let bytes = engine
                    .decode(text.as_bytes())
                    .map_err(|_| InvalidBody::new(at, "expected a string in base64, and this is not base64"))?;
                self.bytes(&bytes);
                Ok(())
            }
            Kind::Enum(of) => {
                let schema = self.schema;
                self.enumeration(schema.enumeration(of))
            }
            Kind::Message(of) => {
                let schema = self.schema;
                self.delimited(|reader| reader.message(schema.message(of)))
            }
            _ => {
                let at = self.json.position();
                let text = self.numeric(integer_name(kind))?;
                self.integer(kind, at, &text)
            }
        }
    }

    fn message(&mut self, message: &'a Message) -> Result<(), InvalidBody> {
        let at = self.json.position();
        match message.form {
            Form::Object => {
                self.expect(Start::Object, "an object")?;
                self.object(message)
            }
            Form::Timestamp => {
                const EXPECTED: &str = "a time in RFC 3339, for example `\"2026-01-31T12:00:00Z\"`";
                let text = self.text(EXPECTED)?;
                let timestamp = time::parse_timestamp(&text).ok_or_else(|| unexpected_text(at, EXPECTED, &text))?;
                self.out.extend(timestamp.encode_to_vec());
                Ok(())
            }
            Form::Duration => {
                const EXPECTED: &str = "a duration in seconds, for example `\"1.5s\"`";
                let text = self.text(EXPECTED)?;
                let duration = time::parse_duration(&text).ok_or_else(|| unexpected_text(at, EXPECTED, &text))?;
                self.out.extend(duration.encode_to_vec());
                Ok(())
            }
            Form::FieldMask => {
                let text = self.text("a string of field paths with commas between them")?;
                for path in text.split(',').filter(|path| !path.is_empty()) {
                    let path =
                        snake_case(path).ok_or_else(|| unexpected_text(at, "field paths in lower camel case", path))?;
                    self.tag(1, WireType::LengthDelimited);
                    self.bytes(path.as_bytes());
                }
                Ok(())
            }
            Form::Struct => self.field(&message.fields[0]),
            Form::ListValue => self.field(&message.fields[0]),
            Form::Wrapper => self.one(&message.fields[0]),
            Form::Value => self.any(message),
        }
    }

    /// Encodes a `google.protobuf.Value`: the member of its oneof that matches the next value.
    fn any(&mut self, value: &'a Message) -> Result<(), InvalidBody> {
        let start = self.json.start()?;
        let member = match start {
            Start::Null => "null_value",
            Start::Number => "number_value",
            Start::String => "string_value",
            Start::True | Start::False => "bool_value",
            Start::Object => "struct_value",
            Start::Array => "list_value",
        };
        let (_, field) = value.field(member).expect("google.protobuf.Value has this member");
        if start == Start::Number {
            return self.one(field).map_err(|bad| bad.with_hint("send it as a string, which holds every number"));
        }
        self.one(field)
    }

    fn enumeration(&mut self, of: &Enum) -> Result<(), InvalidBody> {
        let (at, start) = (self.json.position(), self.json.start()?);
        match start {
            Start::Null if of.name == NULL => {
                self.json.take_word(start);
                self.out.push(0);
                Ok(())
            }
            Start::String => {
                let text = self.json.string()?;
                let number = of.number(&text).ok_or_else(|| unexpected_text(at, &one_of(of), &text))?;
                varint(i64::from(number).cast_unsigned(), &mut self.out);
                Ok(())
            }
            Start::Number => {
                let text = self.json.number()?;
                if of.name == NULL && whole(text) != Whole::Value(0) {
                    return Err(unexpected_text(at, "null", text));
                }
                self.integer(Kind::Int32, at, text)
            }
            _ => Err(unexpected_kind(at, &one_of(of), start)),
        }
    }

    fn float(&mut self, kind: Kind) -> Result<(), InvalidBody> {
        let at = self.json.position();
        let text = self.numeric("a number")?;
        let special = match &*text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ if is_number(&text) => None,
            _ => return Err(unexpected_text(at, "a number", &text)),
        };
        if let Some(special) = special {
            match kind {
                Kind::Double => self.out.extend(special.to_le_bytes()),
                _ => self.out.extend((special as f32).to_le_bytes()),
            }
            return Ok(());
        }
        if kind == Kind::Double {
            let value = numbers::double(&text).map_err(|why| inexact(at, &text, "double", why))?;
            self.out.extend(value.to_le_bytes());
        } else {
            let value = numbers::float(&text).map_err(|why| inexact(at, &text, "float", why))?;
            self.out.extend(value.to_le_bytes());
        }
        Ok(())
    }

    fn integer(&mut self, kind: Kind, at: usize, text: &str) -> Result<(), InvalidBody> {
        let out_of_range = |_| {
            let name = integer_name(kind);
            InvalidBody::new(at, format!("expected {name}, and `{}` is out of range", short(text)))
        };
        let value = match whole(text) {
            Whole::Value(value) => value,
            // No integer type has this value either.
            Whole::TooLarge => i128::MAX,
            Whole::Other => return Err(unexpected_text(at, integer_name(kind), text)),
        };
        match kind {
            Kind::Int32 => {
                let value = i32::try_from(value).map_err(out_of_range)?;
                varint(i64::from(value).cast_unsigned(), &mut self.out);
            }
            Kind::Sint32 => {
                let value = i32::try_from(value).map_err(out_of_range)?;
                varint(u64::from(((value << 1) ^ (value >> 31)).cast_unsigned()), &mut self.out);
            }
            Kind::Sfixed32 => self.out.extend(i32::try_from(value).map_err(out_of_range)?.to_le_bytes()),
            Kind::Int64 => {
                let value = i64::try_from(value).map_err(out_of_range)?;
                varint(value.cast_unsigned(), &mut self.out);
            }
            Kind::Sint64 => {
                let value = i64::try_from(value).map_err(out_of_range)?;
                varint(((value << 1) ^ (value >> 63)).cast_unsigned(), &mut self.out);
            }
            Kind::Sfixed64 => self.out.extend(i64::try_from(value).map_err(out_of_range)?.to_le_bytes()),
            Kind::Uint32 => varint(u64::from(u32::try_from(value).map_err(out_of_range)?), &mut self.out),
            Kind::Fixed32 => self.out.extend(u32::try_from(value).map_err(out_of_range)?.to_le_bytes()),
            Kind::Uint64 => varint(u64::try_from(value).map_err(out_of_range)?, &mut self.out),
            _ => self.out.extend(u64::try_from(value).map_err(out_of_range)?.to_le_bytes()),
        }
        Ok(())
    }

    /// Reads a number, or a string that contains one.
    fn numeric(&mut self, expected: &str) -> Result<Cow<'a, str>, InvalidBody> {
        let (at, start) = (self.json.position(), self.json.start()?);
        match start {
            Start::Number => self.json.number().map(Cow::Borrowed),
            Start::String => self.json.string(),
            _ => Err(unexpected_kind(at, expected, start)),
        }
    }

    fn text(&mut self, expected: &str) -> Result<Cow<'a, str>, InvalidBody> {
        self.expect(Start::String, expected)?;
        self.json.string()
    }

    fn expect(&mut self, wanted: Start, expected: &str) -> Result<(), InvalidBody> {
        let (at, start) = (self.json.position(), self.json.start()?);
        if start == wanted { Ok(()) } else { Err(unexpected_kind(at, expected, start)) }
    }

    /// Writes the output of `write` with a length prefix.
    fn delimited(&mut self, write: impl FnOnce(&mut Self) -> Result<(), InvalidBody>) -> Result<(), InvalidBody> {
        let start = self.out.len();
        self.out.push(0);
        write(self)?;
        let length = self.out.len() - start - 1;
        // Nearly every length fits into the one reserved byte; otherwise the output is moved.
        let width = encoded_len_varint(length as u64);
        if width > 1 {
            self.out.resize(self.out.len() + width - 1, 0);
            self.out.copy_within(start + 1..start + 1 + length, start + width);
        }
        encode_varint(length as u64, &mut &mut self.out[start..start + width]);
        Ok(())
    }

    fn tag(&mut self, number: u32, wire: WireType) {
        encode_key(number, wire, &mut self.out);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        varint(bytes.len() as u64, &mut self.out);
        self.out.extend_from_slice(bytes);
    }

    fn accepts_null(&self, kind: Kind) -> bool {
        match kind {
            Kind::Message(of) => self.schema.message(of).form == Form::Value,
            Kind::Enum(of) => self.schema.enumeration(of).name == NULL,
            _ => false,
        }
    }
}

const NULL: &str = "google.protobuf.NullValue";

fn varint(value: u64, out: &mut Vec<u8>) {
    encode_varint(value, out);
}

fn wire_type(kind: Kind) -> WireType {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::SixtyFourBit,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::ThirtyTwoBit,
        Kind::String | Kind::Bytes | Kind::Message(_) => WireType::LengthDelimited,
        _ => WireType::Varint,
    }
}

fn snake_case(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len() + 4);
    for letter in path.chars() {
        match letter {
            'A'..='Z' => out.extend(['_', letter.to_ascii_lowercase()]),
            '_' => return None,
            _ => out.push(letter),
        }
    }
    Some(out)
}

fn unexpected_kind(at: usize, expected: &str, found: Start) -> InvalidBody {
    InvalidBody::new(at, format!("expected {expected}, found {}", found.name()))
}

fn unexpected_text(at: usize, expected: &str, found: &str) -> InvalidBody {
    InvalidBody::new(at, format!("expected {expected}, found `{}`", short(found)))
}

/// Why a number would be changed by encoding it.
fn inexact(at: usize, text: &str, kind: &str, why: Inexact) -> InvalidBody {
    let text = short(text);
    InvalidBody::new(
        at,
        match why {
            Inexact::OutOfRange => format!("`{text}` is out of range"),
            Inexact::TooSmall => format!("`{text}` is too small for a {kind}, which would be 0"),
            Inexact::Rounded(nearest) => format!("`{text}` is not a {kind} exactly, the nearest one is `{nearest}`"),
        },
    )
}

fn short(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]).escape_debug().to_string(),
        None => text.escape_debug().to_string(),
    }
}

fn one_of(of: &Enum) -> String {
    let names: Vec<String> = of.values.iter().map(|(name, _)| format!("`{name}`")).collect();
    format!("one of {}", names.join(", "))
}

fn unknown_field(message: &Message, at: usize, key: &str) -> InvalidBody {
    let known = || message.fields.iter().map(|field| field.name.as_str()).filter(|name| *name != "meta");
    let near = known()
        .map(|name| (strsim::jaro_winkler(name, short(key).as_str()), name))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|left, right| left.0.total_cmp(&right.0));
    let hint = match near {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!("`{}` has {}", message.name, list(known())),
    };
    InvalidBody::new(at, "unknown field").with_hint(hint).within(&short(key))
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "no fields".to_owned() } else { names.join(", ") }
}
