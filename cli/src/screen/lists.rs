//! Lists of tasks and revisions, and how revisions differ, for people.

use super::table;
use crate::model::listed::{Compared, ListedTask, Revision, Use};
use crate::model::task::short;

/// The tasks of services. Columns that only one platform fills are shown where they are filled.
pub(crate) fn tasks(tasks: &[ListedTask]) -> String {
    if tasks.is_empty() {
        return "no tasks".to_owned();
    }
    let row = |task: &ListedTask| {
        let code = task.exit_code.map(|code| format!("exit code {code}"));
        let reason: Vec<String> = code.into_iter().chain(task.reason.clone()).collect();
        let time = task.stopped.or(task.started).map(|time| format!("{time:.0}"));
        vec![
            short(&task.id).to_owned(),
            task.service.clone().unwrap_or_else(|| "-".to_owned()),
            task.revision.to_string(),
            task.status.clone(),
            task.health.clone(),
            task.zone.clone().unwrap_or_default(),
            task.address.clone().unwrap_or_default(),
            time.unwrap_or_default(),
            task.restarts.map(|restarts| restarts.to_string()).unwrap_or_default(),
            task.memory_mib.map(|memory| format!("{memory} MiB")).unwrap_or_default(),
            reason.join(": "),
        ]
    };
    let header =
        ["task", "service", "revision", "status", "health", "zone", "address", "since", "restarts", "memory", ""];
    let mut rows: Vec<Vec<String>> = tasks.iter().map(row).collect();
    let is_filled = |column: &usize| rows.iter().any(|row| !row[*column].is_empty());
    let optional = |column: &usize| !matches!(header[*column], "zone" | "restarts" | "memory");
    let shown: Vec<usize> = (0..header.len()).filter(|column| optional(column) || is_filled(column)).collect();
    for row in &mut rows {
        *row = shown.iter().map(|column| std::mem::take(&mut row[*column])).collect();
    }
    table(&shown.iter().map(|column| header[*column]).collect::<Vec<_>>(), rows)
}

/// The revisions of a service.
pub(crate) fn revisions(name: &str, revisions: &[Revision]) -> String {
    if revisions.is_empty() {
        return format!("`{name}` has no active revision");
    }
    let has_commits = revisions.iter().any(|one| one.commit.is_some());
    let rows = revisions.iter().map(|one| {
        let uses = one.uses.iter().copied().map(Use::text).collect::<Vec<_>>().join(", ");
        let registered = one.registered.map(|at| format!("{at:.0}")).unwrap_or_default();
        let by = one.registered_by.rsplit('/').next().unwrap_or_default().to_owned();
        let commit = has_commits.then(|| one.commit.as_deref().map(short).unwrap_or_default().to_owned());
        let cells = [one.revision.to_string(), registered, by, one.image.clone()];
        cells.into_iter().chain(commit).chain([uses]).collect()
    });
    match has_commits {
        true => table(&["revision", "registered", "by", "image", "commit", ""], rows),
        false => table(&["revision", "registered", "by", "image", ""], rows),
    }
}

/// How revisions differ, service by service.
pub(crate) fn compared(compared: &[Compared]) -> String {
    let one = |Compared { service, from, to, changes }: &Compared| {
        let mut lines = match changes.len() {
            0 => vec![format!("{service}: {from} and {to} say the same")],
            _ => vec![format!("~ {service}: from {from} to {to}")],
        };
        lines.extend(changes.iter().map(|change| format!("    {change}")));
        lines.join("\n")
    };
    compared.iter().map(one).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::step::FieldChange;

    fn task() -> ListedTask {
        ListedTask {
            id: "734c01ab".to_owned(),
            service: Some("auth".to_owned()),
            revision: 7,
            status: "RUNNING".to_owned(),
            health: "HEALTHY".to_owned(),
            started: Some("2026-11-30T17:00:10.5Z".parse().unwrap()),
            ..ListedTask::default()
        }
    }

    #[test]
    fn columns_that_one_platform_fills_are_shown_where_they_are_filled() {
        let on_aws = ListedTask { zone: Some("us-east-1a".to_owned()), ..task() };
        let shown = tasks(&[on_aws]);
        assert!(shown.contains("ZONE") && !shown.contains("RESTARTS"), "{shown}");
        let here = ListedTask { restarts: Some(0), memory_mib: Some(12), ..task() };
        let shown = tasks(&[here]);
        assert!(!shown.contains("ZONE") && shown.contains("RESTARTS") && shown.contains("12 MiB"), "{shown}");
    }

    #[test]
    fn revisions_that_say_the_same_are_said_to() {
        let of =
            |changes| Compared { service: "auth".to_owned(), from: "a:1".to_owned(), to: "a:2".to_owned(), changes };
        assert_eq!(compared(&[of(Vec::new())]), "auth: a:1 and a:2 say the same");
        let change = FieldChange { field: "cpu".to_owned(), from: Some(1.into()), to: Some(2.into()) };
        let changed = compared(&[of(vec![change.clone()])]);
        assert_eq!(changed, format!("~ auth: from a:1 to a:2\n    {change}"));
    }
}
