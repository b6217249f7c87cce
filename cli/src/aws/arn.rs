//! Parts of ARNs.

/// The number at the end of a task definition's ARN: its revision.
pub(crate) fn revision(task_definition: &str) -> u64 {
    task_definition.rsplit(':').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The family of a task definition's ARN, or of `family:revision`.
pub(crate) fn family(task_definition: &str) -> &str {
    let name = short(task_definition);
    name.rsplit_once(':').map_or(name, |(family, _)| family)
}

/// What is behind the last `/`: `family:revision` of a task definition, the id of a task, the name of a service.
pub(crate) fn short(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}
