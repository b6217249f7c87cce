//! Patches of JSON objects: merge patches, field patches, and the limits of every object.

use prost::Message as _;
use proto::rpc::Error;
use proto::state::manager::v1::FieldPatch;
use proto::well_known::value::Kind;
use proto::well_known::{Struct, Value};

/// The maximum nesting of objects and lists, including the outermost object. Deeper ones could be encoded, but not
/// decoded again: implementations of Protocol Buffers limit nesting to 100 messages, and each level takes three.
pub(crate) const MAX_DEPTH: usize = 32;

/// The maximum size of an encoded object.
pub(crate) const MAX_SIZE: usize = 256 * 1024;

/// Why a patch is rejected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatchError {
    #[error("path `{0}` has an empty segment")]
    EmptySegment(String),
    #[error("path `{path}` leads through `{through}`, which is not an object")]
    NotAnObject { path: String, through: String },
    #[error("value of `{0}` is not a JSON value")]
    InvalidValue(String),
    #[error("number in `{0}` is not finite")]
    NotFinite(String),
    #[error("data would be nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("data would have {0} bytes, more than the {MAX_SIZE} that a record may have")]
    TooLarge(usize),
}

impl From<PatchError> for Error {
    fn from(error: PatchError) -> Self {
        Self::invalid(error)
    }
}

/// A change of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Patch {
    /// JSON Merge Patch (RFC 7396).
    Merge(Struct),
    /// Field patches, applied in order; all or none.
    Fields(Vec<FieldPatch>),
}

impl Patch {
    /// Returns the patched object.
    pub(crate) fn apply(&self, mut data: Struct) -> Result<Struct, PatchError> {
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

/// The object in the value. A value that is not an object is replaced by an empty object.
fn as_object(value: &mut Value) -> &mut Struct {
    if !matches!(value.kind, Some(Kind::StructValue(_))) {
        *value = object();
    }
    match &mut value.kind {
        Some(Kind::StructValue(object)) => object,
        _ => unreachable!("the value has just been replaced by an object"),
    }
}

fn object() -> Value {
    Value { kind: Some(Kind::StructValue(Struct::default())) }
}

/// Sets or removes the field at the path. Setting creates missing objects on the path.
fn set(data: &mut Struct, path: &str, value: Option<&Value>) -> Result<(), PatchError> {
    if path.split('.').any(str::is_empty) {
        return Err(PatchError::EmptySegment(path.to_owned()));
    }
    if path.split('.').count() > MAX_DEPTH {
        return Err(PatchError::TooDeep);
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
            return Err(PatchError::NotAnObject { path: path.to_owned(), through: path[..passed - 1].to_owned() });
        };
        parent = child;
    }
    match value {
        Some(value) => parent.fields.insert(name.to_owned(), value.clone()),
        None => parent.fields.remove(name),
    };
    Ok(())
}

fn check(data: &Struct) -> Result<(), PatchError> {
    check_object(data, MAX_DEPTH)?;
    match data.encoded_len() {
        size if size > MAX_SIZE => Err(PatchError::TooLarge(size)),
        _ => Ok(()),
    }
}

fn check_object(object: &Struct, levels: usize) -> Result<(), PatchError> {
    let levels = levels.checked_sub(1).ok_or(PatchError::TooDeep)?;
    object.fields.iter().try_for_each(|(name, value)| check_value(name, value, levels))
}

fn check_value(name: &str, value: &Value, levels: usize) -> Result<(), PatchError> {
    match &value.kind {
        None => Err(PatchError::InvalidValue(name.to_owned())),
        Some(Kind::NumberValue(number)) if !number.is_finite() => Err(PatchError::NotFinite(name.to_owned())),
        Some(Kind::StructValue(object)) => check_object(object, levels),
        Some(Kind::ListValue(list)) => {
            let levels = levels.checked_sub(1).ok_or(PatchError::TooDeep)?;
            list.values.iter().try_for_each(|value| check_value(name, value, levels))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
