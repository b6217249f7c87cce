//! The status of an environment as text: the verdict first and last, what is wrong before what is not.

mod nats;
mod picture;

use jiff::Timestamp;

pub(crate) use self::nats::{Streams, cluster};
use self::picture::Picture;
pub(super) use self::picture::shorten;
use super::layout::Size;
use super::table;
use crate::model::status::{Flag, ServiceStatus, State, Status};

/// How much place there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// As much as it takes.
    Unlimited,
    /// As many lines as it takes; tables are so wide.
    Columns(usize),
    /// No more than a window shows.
    Window(Size),
}

/// The whole environment.
pub(crate) fn environment(status: &Status, now: Timestamp, space: Space) -> String {
    let verdict = verdict(status);
    let mut picture = Picture { head: vec![verdict.clone()], foot: verdict, ..Picture::default() };
    if let Some(deploying) = &status.deploying {
        let who = short_name(&deploying.who);
        picture.head.push(format!("DEPLOYING by {who} since {:.0}: {}", deploying.since, deploying.command));
    }
    let services = sorted(&status.services);
    let reasons = services.iter().filter_map(|service| Some(format!("{}: {}", service.name, service.reason.as_ref()?)));
    let lines = status.problems.iter().cloned().chain(reasons).chain(status.notes.iter().cloned());
    picture.problems = lines.flat_map(|text| indented(&text)).collect();
    let unwell = services.iter().filter(|service| service.state != State::Healthy).count();
    let mut rows: Vec<String> = rows(&services, now).lines().map(str::to_owned).collect();
    if !services.is_empty() {
        picture.services.healthy = rows.split_off(unwell + 1);
        picture.services.unwell = rows.split_off(1);
        picture.services.header = rows.pop();
    }
    if let Some(nats) = status.nats.as_ref().filter(|nats| !nats.nodes.is_empty()) {
        picture.nats = cluster(nats, Streams::Unhealthy).lines().map(str::to_owned).collect();
        picture.nats_in_short = nats::in_short(nats);
    }
    picture.gateway = status.gateway.url.as_ref().map(|url| format!("gateway: {url}"));
    picture.text(space)
}

/// In one line, how the environment is, and what is worst.
fn verdict(status: &Status) -> String {
    let environment = &status.environment;
    if status.healthy {
        return format!("environment {environment}: healthy");
    }
    let unwell = sorted(&status.services).into_iter().filter(|service| service.reason.is_some());
    let services = unwell.map(|service| format!("{}: {}", service.name, service.state.text()));
    let mut wrong = services.chain(status.problems.iter().cloned());
    let Some(worst) = wrong.next() else { return format!("environment {environment}: NOT healthy: see NATS below") };
    let more = match wrong.count() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    format!("environment {environment}: NOT healthy{more}: {worst}")
}

/// The worst first.
fn sorted(services: &[ServiceStatus]) -> Vec<&ServiceStatus> {
    let mut services: Vec<&ServiceStatus> = services.iter().collect();
    services.sort_by_key(|service| service.state);
    services
}

fn rows(services: &[&ServiceStatus], now: Timestamp) -> String {
    let rows = services.iter().map(|service| {
        let age = service.started.map(|started| age(started, now)).unwrap_or_default();
        let flags: Vec<&str> = service.flags.iter().copied().map(Flag::text).collect();
        vec![
            service.name.clone(),
            service.state.text().to_owned(),
            service.tasks(),
            format!("r{}", service.revision),
            age,
            service.restarts.to_string(),
            flags.join(", "),
            service.version.clone(),
            service.last_exit.clone().unwrap_or_default(),
        ]
    });
    table(&["service", "state", "tasks", "rev", "age", "restarts", "", "version", "last exit"], rows)
}

/// A text of several lines under the verdict.
fn indented(text: &str) -> Vec<String> {
    let mut lines = text.lines();
    let first = lines.next().map(|line| format!("  {line}"));
    first.into_iter().chain(lines.map(|line| format!("    {line}"))).collect()
}

/// `arn:aws:sts::123456789012:assumed-role/deploy/ann` is `deploy/ann`.
fn short_name(who: &str) -> &str {
    who.split_once('/').map_or(who, |(_, name)| name)
}

/// How long ago, in the largest unit of which there is one: `42 s`, `3 min`, `5 h`, `2 d`.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> String {
    match now.duration_since(since).as_secs().max(0) {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..86_400 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// That it is not known how an environment is, and how it was before: when, and the text.
pub(crate) fn unknown(
    environment: &str,
    error: &str,
    before: Option<(Timestamp, impl Fn(Space) -> String)>,
    space: Space,
) -> String {
    let verdict = format!("environment {environment}: UNKNOWN: {error}");
    let Some((at, text)) = before else { return verdict };
    let space = match space {
        Space::Window(size) => Space::Window(Size { rows: size.rows.saturating_sub(2), ..size }),
        space => space,
    };
    format!("{verdict}\nas it was at {at:.0}:\n{}", text(space))
}

#[cfg(test)]
mod tests;
