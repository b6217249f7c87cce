//! Points and boxes, and the regions that are made of them.

use proto::world::region::v1::{Change, Changed};
use proto::world::state::v1::{Box as Bounds, Point, Region};
use sdk::{Code, Error, Id, check_count, check_range, check_text, required};

/// Metres from the origin.
const MAX_COORDINATE: f64 = 1_000_000.0;
const MAX_NAME: usize = 128;
const MAX_TAGS: usize = 32;
const MAX_TAG: usize = 32;

/// The key of a region.
pub(crate) fn region_key(id: &str) -> Result<Id, Error> {
    Id::new("region", id, 64)
}

/// The point of a field, if it is set and lies in the world.
pub(crate) fn checked_point(what: &str, point: Option<Point>) -> Result<Point, Error> {
    let point = required(what, point)?;
    for (axis, coordinate) in [("x", point.x), ("y", point.y), ("z", point.z)] {
        check_range(&format!("{axis} of {what}"), coordinate, -MAX_COORDINATE..=MAX_COORDINATE)?;
    }
    Ok(point)
}

/// The corners of the box of a field, if it is set and lies in the world.
pub(crate) fn checked_box(what: &str, bounds: Option<Bounds>) -> Result<(Point, Point), Error> {
    let Bounds { min, max } = required(what, bounds)?;
    let (min, max) = (checked_point(&format!("{what}.min"), min)?, checked_point(&format!("{what}.max"), max)?);
    match contains(&min, &max, &max) {
        true => Ok((min, max)),
        false => Err(Error::invalid(format_args!("{what}.max is less than {what}.min"))),
    }
}

/// The region, if it is valid, in the form in which it is stored: equal descriptions are equal regions.
pub(crate) fn checked_region(region: Option<Region>) -> Result<Region, Error> {
    let mut region = required("region", region)?;
    region_key(&region.id)?;
    check_text("name", &region.name, MAX_NAME)?;
    checked_box("bounds", region.bounds)?;
    check_count("tags", region.tags.len(), MAX_TAGS)?;
    for tag in &region.tags {
        check_text("tag", tag, MAX_TAG)?;
    }
    region.tags.sort();
    region.tags.dedup();
    region.revision = 0;
    Ok(region)
}

/// Whether a region has this description already.
pub(crate) fn is_described_as(region: &Region, description: &Region) -> bool {
    *description == Region { revision: description.revision, ..region.clone() }
}

/// Rejects a position outside of a region.
pub(crate) fn check_inside(region: &Region, position: &Point) -> Result<(), Error> {
    let (min, max) = checked_box("bounds", region.bounds)?;
    if contains(&min, &max, position) {
        return Ok(());
    }
    let text = |point: &Point| format!("({}, {}, {})", point.x, point.y, point.z);
    let message =
        format!("position {} is not in region `{}`, {} to {}", text(position), region.id, text(&min), text(&max));
    Err(Error::new(Code::OutOfRange, message))
}

/// The event of a change of a region itself.
pub(crate) fn event(region_id: &str, change: Change) -> Changed {
    Changed { region_id: region_id.to_owned(), change: change.into(), ..Changed::default() }
}

fn contains(min: &Point, max: &Point, point: &Point) -> bool {
    let within = |min: f64, max: f64, coordinate: f64| (min..=max).contains(&coordinate);
    within(min.x, max.x, point.x) && within(min.y, max.y, point.y) && within(min.z, max.z, point.z)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn point(x: f64, y: f64) -> Point {
        Point { x, y, z: 0.0 }
    }

    /// A region of 100 times 100 metres.
    pub(crate) fn region(id: &str) -> Region {
        let bounds = Some(Bounds { min: Some(point(0.0, 0.0)), max: Some(Point { z: 10.0, ..point(100.0, 100.0) }) });
        Region { id: id.to_owned(), name: "The old mill".to_owned(), bounds, ..Region::default() }
    }

    #[track_caller]
    fn refused(region: Region, message: &str) {
        let error = checked_region(Some(region)).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::InvalidArgument, message));
    }

    #[test]
    fn a_region_out_of_bounds_is_refused() {
        refused(region("a.b"), "region id must be 1 to 64 letters, digits, `_` and `-`");
        refused(Region { name: String::new(), ..region("r") }, "name is empty");
        refused(Region { bounds: None, ..region("r") }, "bounds is missing");
        let no_end = Bounds { max: None, ..region("r").bounds.unwrap() };
        refused(Region { bounds: Some(no_end), ..region("r") }, "bounds.max is missing");
        let reversed = Bounds { max: Some(point(-1.0, 0.0)), ..no_end };
        refused(Region { bounds: Some(reversed), ..region("r") }, "bounds.max is less than bounds.min");
        let far = Bounds { max: Some(point(f64::INFINITY, 0.0)), ..no_end };
        let message = "x of bounds.max is inf, it must be -1000000 to 1000000";
        refused(Region { bounds: Some(far), ..region("r") }, message);
        let tags = vec!["t".to_owned(); 33];
        refused(Region { tags, ..region("r") }, "there are 33 tags, at most 32 are allowed");
        assert_eq!(checked_region(None).unwrap_err().message(), "region is missing");
    }

    #[test]
    fn tags_are_ordered_and_each_is_there_once() {
        let tags = |tags: &[&str]| tags.iter().copied().map(str::to_owned).collect();
        let stored = checked_region(Some(Region { tags: tags(&["b", "a", "b"]), revision: 7, ..region("r") }));
        assert_eq!(stored, Ok(Region { tags: tags(&["a", "b"]), ..region("r") }));
        assert!(is_described_as(&Region { revision: 7, ..region("r") }, &region("r")));
        assert!(!is_described_as(&region("r"), &stored.unwrap()));
    }

    #[test]
    fn the_bounds_belong_to_the_region() {
        assert_eq!(check_inside(&region("r"), &point(0.0, 100.0)), Ok(()));
        let error = check_inside(&region("r"), &point(0.0, 100.5)).unwrap_err();
        assert_eq!(error.code(), Code::OutOfRange);
        assert_eq!(error.message(), "position (0, 100.5, 0) is not in region `r`, (0, 0, 0) to (100, 100, 10)");
    }
}
