//! Where entities are: an R*-tree for each region, as each worker keeps it.

use std::collections::BTreeMap;

use proto::world::state::v1::{Entity, Neighbor, Point};
use rstar::primitives::GeomWithData;
use rstar::{AABB, RTree};
use sdk::{Follow, Update};

/// The position of an entity, and its id.
type Place = GeomWithData<[f64; 3], String>;

/// All entities, by region and position.
#[derive(Debug, Default)]
pub(crate) struct Index {
    regions: BTreeMap<String, Entities>,
    count: usize,
}

#[derive(Debug, Default)]
struct Entities {
    by_id: BTreeMap<String, Entity>,
    tree: RTree<Place>,
}

impl Index {
    /// How many entities there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// How many of them are in a region.
    pub(crate) fn count_in(&self, region_id: &str) -> usize {
        self.regions.get(region_id).map_or(0, |region| region.by_id.len())
    }

    /// The entities within `radius` of a point, nearest first: at most `limit`, and whether there are more.
    pub(crate) fn within_radius(
        &self,
        region_id: &str,
        center: &Point,
        radius: f64,
        kind: &str,
        limit: usize,
    ) -> (Vec<Neighbor>, bool) {
        let Some(region) = self.regions.get(region_id) else { return Default::default() };
        let center = coordinates(center);
        let mut neighbors: Vec<Neighbor> = region
            .tree
            .nearest_neighbor_iter_with_distance_2(center)
            .take_while(|(_, squared)| *squared <= radius * radius)
            .filter_map(|(place, squared)| {
                let entity = region.by_id.get(&place.data).filter(|entity| is_kind(entity, kind))?;
                Some(Neighbor { entity: Some(entity.clone()), distance: squared.sqrt() })
            })
            .take(limit + 1)
            .collect();
        let truncated = neighbors.len() > limit;
        neighbors.truncate(limit);
        (neighbors, truncated)
    }

    /// The entities within a box, ordered by id: at most `limit`, and whether there are more.
    pub(crate) fn within_box(
        &self,
        region_id: &str,
        corners: &(Point, Point),
        kind: &str,
        limit: usize,
    ) -> (Vec<Entity>, bool) {
        let Some(region) = self.regions.get(region_id) else { return Default::default() };
        let bounds = AABB::from_corners(coordinates(&corners.0), coordinates(&corners.1));
        let mut found: Vec<&Entity> = region
            .tree
            .locate_in_envelope(bounds)
            .filter_map(|place| region.by_id.get(&place.data).filter(|entity| is_kind(entity, kind)))
            .collect();
        found.sort_by(|one, other| one.id.cmp(&other.id));
        let truncated = found.len() > limit;
        (found.into_iter().take(limit).cloned().collect(), truncated)
    }

    fn remove(&mut self, region_id: &str, id: &str) {
        let Some(region) = self.regions.get_mut(region_id) else { return };
        if let Some(entity) = region.by_id.remove(id) {
            region.tree.remove(&place(&entity));
            self.count -= 1;
        }
        if region.by_id.is_empty() {
            self.regions.remove(region_id);
        }
    }
}

impl Follow<Entity> for Index {
    fn apply(&mut self, update: Update<Entity>) {
        let (region_id, id) = update.key.split_once('.').unwrap_or_default();
        self.remove(region_id, id);
        if let Some(entity) = update.record.map(|stored| stored.value) {
            let region = self.regions.entry(region_id.to_owned()).or_default();
            region.tree.insert(place(&entity));
            region.by_id.insert(id.to_owned(), entity);
            self.count += 1;
        }
    }
}

fn is_kind(entity: &Entity, kind: &str) -> bool {
    kind.is_empty() || entity.kind == kind
}

fn place(entity: &Entity) -> Place {
    GeomWithData::new(coordinates(&entity.position.unwrap_or_default()), entity.id.clone())
}

fn coordinates(point: &Point) -> [f64; 3] {
    [point.x, point.y, point.z]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entity::tests::entity;
    use crate::place::tests::point;

    fn index(entities: &[Entity]) -> Index {
        let mut index = Index::default();
        for entity in entities {
            index.put(entity.clone());
        }
        index
    }

    impl Index {
        fn put(&mut self, entity: Entity) {
            let key = format!("{}.{}", entity.region_id, entity.id);
            self.apply(sdk::testing::written(&key, entity.revision, entity));
        }

        fn near(&self, x: f64, radius: f64, kind: &str, limit: usize) -> (Vec<String>, bool) {
            let (found, truncated) = self.within_radius("r", &point(x, 0.0), radius, kind, limit);
            (found.into_iter().map(|neighbor| neighbor.entity.unwrap().id).collect(), truncated)
        }
    }

    #[test]
    fn entities_are_found_by_distance_kind_and_region() {
        let tree = Entity { kind: "tree".to_owned(), ..entity("r", "c", 4.0, 0.0) };
        let index = index(&[entity("r", "a", 9.0, 0.0), entity("r", "b", 2.0, 0.0), tree, entity("s", "d", 0.0, 0.0)]);
        let check = |x, radius, kind, limit, expected: &[&str], truncated| {
            assert_eq!(
                index.near(x, radius, kind, limit),
                (expected.iter().copied().map(str::to_owned).collect(), truncated)
            );
        };
        check(0.0, 4.0, "", 10, &["b", "c"], false);
        check(9.0, 5.0, "", 10, &["a", "c"], false);
        check(0.0, 100.0, "npc", 10, &["b", "a"], false);
        check(0.0, 100.0, "", 2, &["b", "c"], true);
        check(0.0, 1.0, "", 10, &[], false);
        assert_eq!(index.near(0.0, 0.0, "", 1), (Vec::new(), false));
        assert_eq!((index.count(), index.count_in("r"), index.count_in("t")), (4, 3, 0));
    }

    #[test]
    fn a_removed_or_moved_entity_is_not_where_it_was() {
        let mut index = index(&[entity("r", "a", 1.0, 0.0), entity("r", "b", 1.0, 0.0)]);
        index.put(entity("r", "a", 50.0, 0.0));
        assert_eq!(index.near(1.0, 1.0, "", 10).0, ["b"]);
        assert_eq!(index.near(50.0, 1.0, "", 10).0, ["a"]);
        index.apply(Update { key: "r.b".to_owned(), revision: 3, record: None });
        index.apply(Update { key: "r.b".to_owned(), revision: 3, record: None });
        assert_eq!((index.near(0.0, 99.0, "", 10).0, index.count()), (vec!["a".to_owned()], 1));
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_looking_at_all_entities_finds(
            places in proptest::collection::vec((0_u8..20, -50_i8..50, -50_i8..50), 0..60), x in -50_i8..50, size in 0_u8..60,
        ) {
            let mut index = Index::default();
            let mut all = BTreeMap::new();
            for (id, x, y) in places {
                let entity = Entity { revision: 1, ..entity("r", &format!("e{id}"), x.into(), y.into()) };
                all.insert(entity.id.clone(), entity.clone());
                index.put(entity);
            }
            let (center, size) = (point(x.into(), 0.0), f64::from(size));
            let offset = |entity: &Entity| {
                let position = entity.position.unwrap();
                (position.x - center.x, position.y - center.y)
            };
            let in_circle = all.values().filter(|entity| offset(entity).0.powi(2) + offset(entity).1.powi(2) <= size * size);
            let (found, _) = index.within_radius("r", &center, size, "", 100);
            prop_assert!(found.is_sorted_by(|one, other| one.distance <= other.distance));
            let mut found: Vec<String> = found.into_iter().map(|neighbor| neighbor.entity.unwrap().id).collect();
            found.sort();
            prop_assert_eq!(found, in_circle.map(|entity| entity.id.clone()).collect::<Vec<_>>());

            let corners = (point(center.x - size, -size), point(center.x + size, size));
            let in_box = all.values().filter(|entity| offset(entity).0.abs() <= size && offset(entity).1.abs() <= size);
            let (found, _) = index.within_box("r", &corners, "", 100);
            prop_assert_eq!(found, in_box.cloned().collect::<Vec<_>>());
        }
    }
}
