//! Parts of ARNs.

/// The number at the end of a task definition's ARN: its revision.
pub(crate) fn revision(task_definition: &str) -> u64 {
    task_definition.rsplit(':').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// What is behind the last `/`: `family:revision` of a task definition, the id of a task, the name of a service.
pub(crate) fn short(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}
