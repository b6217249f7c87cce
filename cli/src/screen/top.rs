//! What services do now, as a table.

use super::layout::{Size, cut};
use super::status::{Space, shorten};
use super::table;
use crate::model::task::short;
use crate::model::top::{ServiceLoad, Top};
use crate::problem::counted;

/// The environment in one line, the tasks that do not answer, and a table of the services, the busiest first.
pub(crate) fn top(top: &Top, space: Space) -> String {
    let mut silent: Vec<String> = top.services.iter().flat_map(silent).collect();
    let table = rows(top);
    let mut rows: Vec<String> = table.lines().map(str::to_owned).collect();
    let header = rows.remove(0);
    let mut lines = vec![summary(top)];
    if let Space::Window(Size { rows: place, .. }) = space {
        // Beside the summary, the empty line, the header, and the cursor's line.
        let excess = |silent: &[String], rows: &[String]| (silent.len() + rows.len() + 4).saturating_sub(place);
        let over = excess(&silent, &rows);
        shorten(&mut rows, over, "services");
        let over = excess(&silent, &rows);
        shorten(&mut silent, over, "that do not answer");
    }
    lines.append(&mut silent);
    lines.extend([String::new(), header]);
    lines.append(&mut rows);
    let columns = match space {
        Space::Unlimited => return lines.join("\n"),
        Space::Columns(columns) | Space::Window(Size { columns, .. }) => columns,
    };
    lines.iter().map(|line| cut(line, columns)).collect::<Vec<_>>().join("\n")
}

fn summary(top: &Top) -> String {
    let services = counted(top.services.len(), "service");
    let measured = top.services.iter().filter_map(|service| service.requests);
    let sums = measured.map(|one| (one.requests_per_second, one.errors_per_second));
    let sums = sums.reduce(|(requests, errors), (more, wrong)| (requests + more, errors + wrong));
    let environment = &top.environment;
    match sums {
        Some((requests, errors)) => {
            let (requests, errors) = (rate(requests), rate(errors));
            format!("environment {environment}: {services}, {requests} requests/s, {errors} errors/s")
        }
        None => format!("environment {environment}: {services}, nothing is measured yet"),
    }
}

fn silent(service: &ServiceLoad) -> impl Iterator<Item = String> {
    let line = |task: &str, reason: &str| format!("  {}/{} does not answer: {reason}", service.name, short(task));
    service.silent.iter().map(move |one| line(&one.task, &one.reason))
}

/// What matters most is on the left, where a narrow window shows it.
fn rows(top: &Top) -> String {
    let header = ["service", "req/s", "err/s", "err %", "p50", "p99", "tasks", "memory", "mean", "in flight"];
    // At first there is no interval of which tasks could be left out.
    let is_first = top.seconds == 0.0;
    let rows = top.services.iter().map(|service| {
        let unknown = || "-".to_owned();
        let requests = |value: fn(f64, f64) -> f64| {
            service.requests.map_or_else(unknown, |one| rate(value(one.requests_per_second, one.errors_per_second)))
        };
        let answers = service.requests.and_then(|one| one.answers);
        let time = |microseconds: Option<u64>| microseconds.map_or_else(unknown, self::time);
        let tasks = match service.measured {
            all if is_first || all == service.tasks => service.tasks.to_string(),
            some => format!("{some}/{}", service.tasks),
        };
        vec![
            service.name.clone(),
            requests(|requests, _| requests),
            requests(|_, errors| errors),
            answers.map_or_else(unknown, |one| rate(one.error_percent)),
            time(answers.map(|one| one.p50_us)),
            time(answers.map(|one| one.p99_us)),
            tasks,
            service.memory_mib.map_or_else(unknown, |memory| format!("{memory} MiB")),
            time(answers.map(|one| one.mean_us)),
            service.in_flight.map_or_else(unknown, |count| count.to_string()),
        ]
    });
    table(&header, rows)
}

/// `0`, `0.3`, `12`.
fn rate(value: f64) -> String {
    if value == 0.0 || value >= 9.95 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// `250 µs`, `1.2 ms`, `12 ms`, `1.2 s`.
fn time(microseconds: u64) -> String {
    let scaled = |unit: u64, name: &str| format!("{} {name}", rate(microseconds as f64 / unit as f64));
    match microseconds {
        0..1_000 => format!("{microseconds} µs"),
        1_000..1_000_000 => scaled(1_000, "ms"),
        _ => scaled(1_000_000, "s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::top::{Answers, Requests, SilentTask};

    fn service(name: &str, requests_per_second: f64) -> ServiceLoad {
        let answers = Answers { error_percent: 2.5, mean_us: 1_234, p50_us: 250, p99_us: 12_345 };
        let requests = Requests { requests_per_second, errors_per_second: 0.3, answers: Some(answers) };
        ServiceLoad {
            name: name.to_owned(),
            tasks: 2,
            measured: 2,
            requests: Some(requests),
            in_flight: Some(3),
            memory_mib: Some(24),
            silent: Vec::new(),
        }
    }

    fn silent_service() -> ServiceLoad {
        let silent = SilentTask { task: "734c01ab".to_owned(), reason: "`/metrics` failed".to_owned() };
        ServiceLoad { name: "auth".to_owned(), tasks: 1, silent: vec![silent], ..ServiceLoad::default() }
    }

    fn shown(services: Vec<ServiceLoad>, space: Space) -> String {
        top(&Top { environment: "test".to_owned(), seconds: 2.0, services }, space)
    }

    #[test]
    fn a_table_has_what_is_measured_and_names_the_tasks_that_do_not_answer() {
        let text = shown(vec![service("quest-system", 12.34), silent_service()], Space::Unlimited);
        let expected = "\
environment test: 2 services, 12 requests/s, 0.3 errors/s
  auth/734c01ab does not answer: `/metrics` failed

SERVICE       REQ/S  ERR/S  ERR %  P50     P99    TASKS  MEMORY  MEAN    IN FLIGHT
quest-system  12     0.3    2.5    250 µs  12 ms  2      24 MiB  1.2 ms  3
auth          -      -      -      -       -      0/1    -       -       -";
        assert_eq!(text, expected);
        assert_eq!(
            shown(vec![silent_service()], Space::Unlimited).lines().next(),
            Some("environment test: 1 service, nothing is measured yet")
        );
    }

    #[test]
    fn a_window_shows_the_busiest_services_and_how_many_more_there_are() {
        let services: Vec<ServiceLoad> = (0..30).map(|index| service(&format!("service-{index}"), 9.0)).collect();
        let text = shown(services, Space::Window(Size { columns: 30, rows: 10 }));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[8]), (9, "… 25 more services"), "{text}");
        assert_eq!((lines[3], lines[0]), ("service-0   9.0    0.3    2.5…", "environment test: 30 services…"));
    }

    #[test]
    fn rates_and_times_are_short() {
        assert_eq!([0.0, 0.04, 9.94, 9.96, 1234.5].map(rate), ["0", "0.0", "9.9", "10", "1234"]);
        assert_eq!([0, 999, 1_000, 12_000, 2_500_000].map(time), ["0 µs", "999 µs", "1.0 ms", "12 ms", "2.5 s"]);
    }
}
