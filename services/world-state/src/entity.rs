//! Entities: what may be stored of them, and which events their changes cause.

use std::borrow::Cow;
use std::fmt;

use proto::world::region::v1::{Change, Changed};
use proto::world::state::v1::{Entity, Point};
use sdk::{Error, RecordKey, check_count, check_id, check_text, required};

use crate::place::{checked_point, region_key};

const MAX_ID: usize = 64;
const MAX_ATTRIBUTES: usize = 16;
const MAX_ATTRIBUTE_NAME: usize = 32;
const MAX_ATTRIBUTE: usize = 128;

/// Identifies an entity in a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntityKey {
    key: String,
    region_length: usize,
}

impl EntityKey {
    pub(crate) fn new(region_id: &str, id: &str) -> Result<Self, Error> {
        region_key(region_id)?;
        check_id("entity id", id, MAX_ID)?;
        Ok(Self { key: format!("{region_id}.{id}"), region_length: region_id.len() })
    }

    pub(crate) fn region_id(&self) -> &str {
        &self.key[..self.region_length]
    }

    pub(crate) fn id(&self) -> &str {
        &self.key[self.region_length + 1..]
    }
}

impl fmt::Display for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entity `{}` of region `{}`", self.id(), self.region_id())
    }
}

impl RecordKey for EntityKey {
    fn bucket_key(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.key)
    }
}

/// The entity, if it is valid, with its key and its position.
pub(crate) fn checked(entity: Option<Entity>) -> Result<(EntityKey, Entity, Point), Error> {
    let mut entity = required("entity", entity)?;
    let key = EntityKey::new(&entity.region_id, &entity.id)?;
    check_kind(&entity.kind)?;
    let position = checked_point("position", entity.position)?;
    check_count("attributes", entity.attributes.len(), MAX_ATTRIBUTES)?;
    for (name, value) in &entity.attributes {
        check_text("name of an attribute", name, MAX_ATTRIBUTE_NAME)?;
        check_text(&format!("attribute `{name}`"), value, MAX_ATTRIBUTE)?;
    }
    entity.revision = 0;
    Ok((key, entity, position))
}

pub(crate) fn check_kind(kind: &str) -> Result<(), Error> {
    check_id("kind", kind, MAX_ID)
}

/// The event of an entity that is written; `None` if it only changes its position.
pub(crate) fn written(current: Option<&Entity>, next: &Entity) -> Option<Changed> {
    match current {
        None => Some(event(next, Change::EntityEntered, "")),
        Some(current) if (&current.kind, &current.attributes) != (&next.kind, &next.attributes) => {
            Some(event(next, Change::EntityChanged, ""))
        }
        Some(_) => None,
    }
}

/// The entity at another place, and the events of both regions if the place is in another one: that of the one it enters, and
/// that of the one it leaves.
pub(crate) fn moved(current: &Entity, to: &EntityKey, position: Point) -> (Entity, [Changed; 2]) {
    let next = Entity { region_id: to.region_id().to_owned(), position: Some(position), ..current.clone() };
    let entered = event(&next, Change::EntityEntered, &current.region_id);
    let left = event(current, Change::EntityLeft, to.region_id());
    (next, [entered, left])
}

/// The event of an entity that is removed.
pub(crate) fn removed(entity: &Entity) -> Changed {
    event(entity, Change::EntityLeft, "")
}

fn event(entity: &Entity, change: Change, other_region: &str) -> Changed {
    Changed {
        meta: None,
        region_id: entity.region_id.clone(),
        change: change.into(),
        entity_id: entity.id.clone(),
        kind: entity.kind.clone(),
        other_region_id: other_region.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use sdk::Code;

    use super::*;
    use crate::place::tests::point;

    pub(crate) fn entity(region: &str, id: &str, x: f64, y: f64) -> Entity {
        Entity {
            id: id.to_owned(),
            region_id: region.to_owned(),
            kind: "npc".to_owned(),
            position: Some(point(x, y)),
            ..Entity::default()
        }
    }

    fn with_attribute(name: &str, value: &str) -> Entity {
        let attributes = [(name.to_owned(), value.to_owned())].into();
        Entity { attributes, ..entity("r", "e", 1.0, 2.0) }
    }

    #[track_caller]
    fn refused(entity: Entity, message: &str) {
        let error = checked(Some(entity)).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::InvalidArgument, message));
    }

    #[test]
    fn an_entity_out_of_bounds_is_refused() {
        refused(entity("", "e", 0.0, 0.0), "region id must be 1 to 64 letters, digits, `_` and `-`");
        refused(entity("r", "*", 0.0, 0.0), "entity id must be 1 to 64 letters, digits, `_` and `-`");
        refused(
            Entity { kind: String::new(), ..entity("r", "e", 0.0, 0.0) },
            "kind must be 1 to 64 letters, digits, `_` and `-`",
        );
        refused(entity("r", "e", f64::NAN, 0.0), "x of position is NaN, it must be -1000000 to 1000000");
        refused(Entity { position: None, ..entity("r", "e", 0.0, 0.0) }, "position is missing");
        refused(with_attribute("name", &"x".repeat(129)), "attribute `name` has 129 bytes, at most 128 are allowed");
        refused(with_attribute("", "x"), "name of an attribute is empty");
        let attributes = (0..17).map(|number| (number.to_string(), "x".to_owned())).collect();
        let many = Entity { attributes, ..entity("r", "e", 0.0, 0.0) };
        refused(many, "there are 17 attributes, at most 16 are allowed");
    }

    #[test]
    fn an_entity_that_only_moves_in_its_region_is_no_event() {
        let current = with_attribute("name", "Rose");
        let change = |next: &Entity| written(Some(&current), next).map(|event| event.change());
        assert_eq!(change(&Entity { position: Some(point(9.0, 9.0)), revision: 8, ..current.clone() }), None);
        assert_eq!(change(&with_attribute("name", "Lily")), Some(Change::EntityChanged));
        assert_eq!(written(None, &current).unwrap().change(), Change::EntityEntered);
    }

    #[test]
    fn an_entity_leaves_one_region_for_another() {
        let to = EntityKey::new("s", "e").unwrap();
        let (next, [entered, left]) = moved(&entity("r", "e", 1.0, 1.0), &to, point(5.0, 6.0));
        assert_eq!(next, entity("s", "e", 5.0, 6.0));
        let parts = |event: &Changed| (event.region_id.clone(), event.change(), event.other_region_id.clone());
        assert_eq!(parts(&entered), ("s".to_owned(), Change::EntityEntered, "r".to_owned()));
        assert_eq!(parts(&left), ("r".to_owned(), Change::EntityLeft, "s".to_owned()));
    }
}
