//! The picture of the services: callers to the left of what they call, events as dashed lines.

use std::collections::{BTreeMap, BTreeSet};

use super::Entry;

const BOX_WIDTH: f64 = 190.0;
const BOX_HEIGHT: f64 = 26.0;
const ROW: f64 = 38.0;
const COLUMN: f64 = 330.0;
const MARGIN: f64 = 30.0;
const LEGEND_HEIGHT: f64 = 40.0;

/// How often the rows are sorted by their neighbours: more changes nothing for graphs of this size.
const SWEEPS: usize = 8;

/// Draws the services, their calls and their events.
pub(super) fn svg(services: &[Entry]) -> String {
    let drawn: Vec<&Entry> = services.iter().filter(|service| !service.is_gateway).collect();
    let layout = Layout::new(&drawn);
    let mut shapes = String::new();
    for service in &drawn {
        for callee in &service.calls {
            shapes.push_str(&layout.edge(&service.name, callee, "call"));
        }
        for publisher in service.consumes.values().flatten().filter(|publisher| **publisher != service.name) {
            shapes.push_str(&layout.edge(publisher, &service.name, "event"));
        }
    }
    for service in &drawn {
        shapes.push_str(&layout.node(service));
    }
    let (width, height) = (layout.width(), layout.height());
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <title>Calls and events of the services</title>\n\
         <style>\n\
         .ground {{ fill: #ffffff }} .box {{ fill: #eef3fa; stroke: #5b7083 }} .public {{ fill: #dff3e4; stroke: #2e7d4f }}\n\
         .call {{ fill: none; stroke: #5b7083; stroke-width: 1.4 }} .event {{ fill: none; stroke: #b3541e; stroke-width: 1.6; stroke-dasharray: 6 4 }}\n\
         text {{ fill: #17212b }}\n\
         </style>\n\
         <defs>\n{}{}</defs>\n\
         <rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>\n{shapes}{}</svg>\n",
        arrowhead("call", "#5b7083"),
        arrowhead("event", "#b3541e"),
        legend(height - LEGEND_HEIGHT),
    )
}

fn arrowhead(class: &str, colour: &str) -> String {
    format!(
        "<marker id=\"{class}\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\">\
         <path d=\"M0 0 L8 4 L0 8 z\" fill=\"{colour}\"/></marker>\n"
    )
}

fn legend(y: f64) -> String {
    let line = |class: &str, x: f64, text: &str| {
        format!(
            "<path class=\"{class}\" marker-end=\"url(#{class})\" d=\"M{x} {y} h36\"/><text x=\"{}\" y=\"{}\">{text}</text>\n",
            x + 44.0,
            y + 4.0
        )
    };
    format!(
        "{}{}<rect class=\"public\" x=\"{}\" y=\"{}\" width=\"36\" height=\"14\" rx=\"4\"/><text x=\"{}\" y=\"{}\">has public methods</text>\n",
        line("call", MARGIN, "calls"),
        line("event", MARGIN + 110.0, "event"),
        MARGIN + 220.0,
        y - 7.0,
        MARGIN + 264.0,
        y + 4.0,
    )
}

/// Where each service is.
struct Layout<'a> {
    /// Column and row; whatever is called is to the right of its callers.
    places: BTreeMap<&'a str, (usize, usize)>,
    rows: usize,
    columns: usize,
}

impl<'a> Layout<'a> {
    fn new(services: &[&'a Entry]) -> Self {
        let calls: BTreeMap<&str, BTreeSet<&str>> = services
            .iter()
            .map(|service| (service.name.as_str(), service.calls.iter().map(String::as_str).collect()))
            .collect();
        let heights: BTreeMap<&str, usize> = calls.keys().map(|name| (*name, height(name, &calls))).collect();
        let top = heights.values().copied().max().unwrap_or_default();
        let called: BTreeSet<&str> = calls.values().flatten().copied().collect();
        let mut columns: Vec<Vec<&str>> = vec![Vec::new(); top + 1];
        for (name, height) in &heights {
            columns[top - height].push(name);
        }
        // What takes no part in any call fills the shortest column.
        let alone = |name: &str| !called.contains(name) && calls[name].is_empty();
        let (spread, last) = columns[top].iter().partition::<Vec<&str>, _>(|name| alone(name));
        columns[top] = last;
        for name in spread {
            if let Some(shortest) = columns.iter_mut().min_by_key(|column| column.len()) {
                shortest.push(name);
            }
        }
        sort_rows(&mut columns, &calls);
        let rows = columns.iter().map(Vec::len).max().unwrap_or_default();
        let places = columns.iter().enumerate().flat_map(|(column, names)| {
            let offset = (rows - names.len()) / 2;
            names.iter().enumerate().map(move |(row, name)| (*name, (column, row + offset)))
        });
        // Names are borrowed from the services.
        let names: BTreeMap<&str, &'a str> = services.iter().map(|it| (it.name.as_str(), it.name.as_str())).collect();
        Self { places: places.map(|(name, place)| (names[name], place)).collect(), rows, columns: columns.len() }
    }

    fn width(&self) -> f64 {
        2.0 * MARGIN + number(self.columns.saturating_sub(1)) * COLUMN + BOX_WIDTH
    }

    fn height(&self) -> f64 {
        2.0 * MARGIN + number(self.rows) * ROW + LEGEND_HEIGHT
    }

    /// The upper left corner of a service.
    fn corner(&self, name: &str) -> Option<(f64, f64)> {
        let (column, row) = self.places.get(name)?;
        Some((MARGIN + number(*column) * COLUMN, MARGIN + number(*row) * ROW))
    }

    fn node(&self, service: &Entry) -> String {
        let Some((x, y)) = self.corner(&service.name) else { return String::new() };
        let class = if service.methods.iter().any(|method| method.is_public) { "public" } else { "box" };
        format!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"5\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
            x + BOX_WIDTH / 2.0,
            y + BOX_HEIGHT / 2.0 + 4.5,
            service.name,
        )
    }

    /// A curve from one service to another; nothing if one of them is not drawn.
    fn edge(&self, from: &str, to: &str, class: &str) -> String {
        let (Some((from_x, from_y)), Some((to_x, to_y))) = (self.corner(from), self.corner(to)) else {
            return String::new();
        };
        // Beside the line of a call between the same two.
        let middle = if class == "event" { BOX_HEIGHT * 0.75 } else { BOX_HEIGHT / 2.0 };
        let (from_y, to_y) = (from_y + middle, to_y + middle);
        let bend = (COLUMN - BOX_WIDTH) / 2.0;
        // Out of the side that faces the other one; within a column, in an arc beside it.
        let (start, start_bend) = if to_x < from_x { (from_x, -bend) } else { (from_x + BOX_WIDTH, bend) };
        let (end, end_bend) = if to_x > from_x { (to_x, -bend) } else { (to_x + BOX_WIDTH, bend) };
        format!(
            "<path class=\"{class}\" marker-end=\"url(#{class})\" d=\"M{start} {from_y} C{} {from_y} {} {to_y} {end} {to_y}\"/>\n",
            start + start_bend,
            end + end_bend,
        )
    }
}

/// How many calls follow on each other at most, from this service on. Manifests have no cycles.
fn height(name: &str, calls: &BTreeMap<&str, BTreeSet<&str>>) -> usize {
    let callees = calls.get(name).into_iter().flatten();
    callees.map(|callee| height(callee, calls) + 1).max().unwrap_or_default()
}

/// Moves services to the rows around which their neighbours in other columns are, so that few lines cross.
fn sort_rows(columns: &mut [Vec<&str>], calls: &BTreeMap<&str, BTreeSet<&str>>) {
    for _ in 0..SWEEPS {
        for index in 0..columns.len() {
            let rows: BTreeMap<&str, f64> = columns
                .iter()
                .flat_map(|column| {
                    let middle = number(column.len()) / 2.0;
                    column.iter().enumerate().map(move |(row, name)| (*name, number(row) - middle))
                })
                .collect();
            let wanted = |name: &str| {
                let neighbours: Vec<f64> = calls
                    .iter()
                    .flat_map(|(caller, callees)| callees.iter().map(move |callee| (*caller, *callee)))
                    .filter_map(|(caller, callee)| match () {
                        () if caller == name => rows.get(callee).copied(),
                        () if callee == name => rows.get(caller).copied(),
                        () => None,
                    })
                    .collect();
                match neighbours.is_empty() {
                    true => f64::MAX, // below those with neighbours
                    false => neighbours.iter().sum::<f64>() / number(neighbours.len()),
                }
            };
            columns[index].sort_by(|left, right| wanted(left).total_cmp(&wanted(right)));
        }
    }
}

/// Coordinates are far below what an `f64` holds exactly.
fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, calls: &[&str], consumes_from: Option<&str>) -> Entry {
        Entry {
            name: name.to_owned(),
            is_gateway: name == "gateway",
            about: Vec::new(),
            methods: Vec::new(),
            calls: calls.iter().map(ToString::to_string).collect(),
            publishes: BTreeMap::new(),
            consumes: consumes_from.map(|from| ("evt.x.v1".to_owned(), Some(from.to_owned()))).into_iter().collect(),
            buckets: BTreeSet::new(),
            caches: BTreeSet::new(),
        }
    }

    #[test]
    fn callers_are_to_the_left_of_what_they_call() {
        let services = [service("a", &["b", "c"], None), service("b", &["c"], None), service("c", &[], None)];
        let layout = Layout::new(&services.iter().collect::<Vec<_>>());
        let columns = ["a", "b", "c"].map(|name| layout.places[name].0);
        assert_eq!(columns, [0, 1, 2]);
    }

    #[test]
    fn services_have_places_of_their_own() {
        let services: Vec<Entry> = ["a", "b", "c", "d", "e"].map(|name| service(name, &[], None)).into();
        let layout = Layout::new(&services.iter().collect::<Vec<_>>());
        let places: BTreeSet<(usize, usize)> = layout.places.values().copied().collect();
        assert_eq!(places.len(), services.len());
    }

    #[test]
    fn calls_and_events_are_lines_and_the_gateway_is_not_drawn() {
        let picture =
            svg(&[service("a", &["b"], None), service("b", &[], Some("a")), service("gateway", &["a", "b"], None)]);
        let count = |part: &str| picture.matches(part).count();
        assert_eq!((count("d=\"M220 "), count(">gateway<")), (2, 0), "{picture}");
    }
}
