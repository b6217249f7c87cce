//! The SDK's types as JSON in the names of the API, and back. Made by their schemas: every field that the SDK knows is seen.

use anyhow::Context as _;
use aws_smithy_json::codec::JsonCodec;
use aws_smithy_schema::codec::Codec as _;
use aws_smithy_schema::serde::{SerdeError, SerializableStruct, ShapeDeserializer, ShapeSerializer as _};
use serde_json::Value;

/// What the API would send; fields without a value are absent.
///
/// # Errors
/// A value that JSON cannot have.
pub(super) fn to_json(shape: &impl SerializableStruct) -> anyhow::Result<Value> {
    let mut serializer = JsonCodec::default().create_serializer();
    serializer.write_struct(shape.schema(), shape).context("a value of the SDK is no JSON")?;
    Ok(serde_json::from_slice(&serializer.finish())?)
}

/// The SDK's type for what the API would send.
///
/// # Errors
/// A required field is missing, or a value has the wrong type.
pub(super) fn from_json<T>(
    value: &Value,
    deserialize: fn(&mut dyn ShapeDeserializer) -> Result<T, SerdeError>,
) -> anyhow::Result<T> {
    let text = serde_json::to_vec(value)?;
    let codec = JsonCodec::default();
    Ok(deserialize(&mut codec.create_deserializer(&text))?)
}

/// Names of the fields of a shape.
#[cfg(test)]
pub(super) fn fields(schema: &aws_smithy_schema::Schema<'static>) -> std::collections::BTreeSet<String> {
    schema.members().iter().filter_map(|member| member.member_name()).map(str::to_owned).collect()
}
