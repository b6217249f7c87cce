//! Changes of JSON objects: merge patches, field patches, and the bounds that every object keeps.

use prost::Message as _;
use proto::rpc::{Code, Error};
use proto::state::manager::v1::FieldPatch;
use proto::well_known::value::Kind;
use proto::well_known::{Struct, Value};

/// Objects and lists within each other, the outermost object counted. Deeper ones could be encoded, but not decoded
/// again: implementations of Protocol Buffers stop at 100 messages within each other, and a level takes three.
pub(crate) const MAX_DEPTH: usize = 32;

/// Bytes of an encoded object.
pub(crate) const MAX_SIZE: usize = 256 * 1024;

/// Why a change is not made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("path `{0}` has an empty segment")]
    EmptySegment(String),
    #[error("path `{path}` leads through `{through}`, which is not an object")]
    NotAnObject { path: String, through: String },
    #[error("value of `{0}` is none of null, number, text, truth value, object and list")]
    NoValue(String),
    #[error("number in `{0}` is not finite")]
    NotFinite(String),
    #[error("data would be nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("data would take {0} bytes, more than the {MAX_SIZE} that a record may have")]
    TooLarge(usize),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::TooLarge(_) => Code::ResourceExhausted,
            _ => Code::InvalidArgument,
        };
        Self::new(code, refusal.to_string())
    }
}

/// What is to become of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// JSON Merge Patch (RFC 7396).
    Merge(Struct),
    /// One field after the other, all or none.
    Fields(Vec<FieldPatch>),
}

impl Change {
    /// The object after the change.
    pub(crate) fn apply(&self, mut data: Struct) -> Result<Struct, Refusal> {
        match self {
            Self::Merge(patch) => merge(&mut data, patch),
            Self::Fields(patches) => {
                for patch in patches {
                    set(&mut data, &patch.path, patch.value.as_ref())?;
                }
            }
        }
        check(&data)?;
        Ok(data)
    }
}

fn merge(target: &mut Struct, patch: &Struct) {
    for (name, value) in &patch.fields {
        match &value.kind {
            Some(Kind::NullValue(_)) => {
                target.fields.remove(name);
            }
            Some(Kind::StructValue(patch)) => merge(as_object(target.fields.entry(name.clone()).or_default()), patch),
            _ => {
                target.fields.insert(name.clone(), value.clone());
            }
        }
    }
}

/// What the value holds, replaced by an empty object if it is not an object.
fn as_object(value: &mut Value) -> &mut Struct {
    if !matches!(value.kind, Some(Kind::StructValue(_))) {
        *value = object();
    }
    match &mut value.kind {
        Some(Kind::StructValue(object)) => object,
        _ => unreachable!("it has just been made an object"),
    }
}

fn object() -> Value {
    Value { kind: Some(Kind::StructValue(Struct::default())) }
}

/// Sets the field at the path, or removes it; objects that are missing on the way are made.
fn set(data: &mut Struct, path: &str, value: Option<&Value>) -> Result<(), Refusal> {
    if path.split('.').any(str::is_empty) {
        return Err(Refusal::EmptySegment(path.to_owned()));
    }
    if path.split('.').count() > MAX_DEPTH {
        return Err(Refusal::TooDeep);
    }
    let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
    let mut parent = data;
    let mut passed = 0;
    for segment in parents.split('.').filter(|segment| !segment.is_empty()) {
        passed += segment.len() + 1;
        if value.is_none() && !parent.fields.contains_key(segment) {
            return Ok(());
        }
        let child = parent.fields.entry(segment.to_owned()).or_insert_with(object);
        let Some(Kind::StructValue(child)) = &mut child.kind else {
            return Err(Refusal::NotAnObject { path: path.to_owned(), through: path[..passed - 1].to_owned() });
        };
        parent = child;
    }
    match value {
        Some(value) => parent.fields.insert(name.to_owned(), value.clone()),
        None => parent.fields.remove(name),
    };
    Ok(())
}

fn check(data: &Struct) -> Result<(), Refusal> {
    check_object(data, MAX_DEPTH)?;
    match data.encoded_len() {
        size if size > MAX_SIZE => Err(Refusal::TooLarge(size)),
        _ => Ok(()),
    }
}

fn check_object(object: &Struct, levels: usize) -> Result<(), Refusal> {
    let levels = levels.checked_sub(1).ok_or(Refusal::TooDeep)?;
    object.fields.iter().try_for_each(|(name, value)| check_value(name, value, levels))
}

fn check_value(name: &str, value: &Value, levels: usize) -> Result<(), Refusal> {
    match &value.kind {
        None => Err(Refusal::NoValue(name.to_owned())),
        Some(Kind::NumberValue(number)) if !number.is_finite() => Err(Refusal::NotFinite(name.to_owned())),
        Some(Kind::StructValue(object)) => check_object(object, levels),
        Some(Kind::ListValue(list)) => {
            let levels = levels.checked_sub(1).ok_or(Refusal::TooDeep)?;
            list.values.iter().try_for_each(|value| check_value(name, value, levels))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
