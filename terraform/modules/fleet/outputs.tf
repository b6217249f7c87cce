output "repositories" {
  description = "URLs of the repositories by service."
  value       = { for name, repository in aws_ecr_repository.service : name => repository.repository_url }
}

output "repositories_arn" {
  description = "ARN of all repositories, with a wildcard."
  value       = "arn:${local.partition}:ecr:${local.region}:${local.account}:repository/${var.repository_namespace}/*"
}

output "task_secrets" {
  description = "The secrets that tasks start with: ARNs by name, without those of the authority and the operator."
  value = merge(
    { for name, secret in aws_secretsmanager_secret.this : name => secret.arn if !contains(local.not_for_tasks, name) },
    var.existing_secrets,
  )
}

output "operator_secret" {
  description = "Name of the secret with natsctl's own identity on NATS."
  value       = aws_secretsmanager_secret.this["nats/operator"].name
}

output "log_group" {
  description = "Name of the log group of all services."
  value       = aws_cloudwatch_log_group.services.name
}

output "log_group_arn" {
  description = "ARN of the log group of all services."
  value       = aws_cloudwatch_log_group.services.arn
}

output "kms_key_arn" {
  description = "The key of images, logs and secrets."
  value       = module.key.arn
}

output "alarm_names" {
  description = "Names of the alarms by kind."
  value       = module.alarms.names
}

output "dashboards" {
  description = "Names of the dashboards."
  value       = [for dashboard in [aws_cloudwatch_dashboard.fleet, aws_cloudwatch_dashboard.nats] : dashboard.dashboard_name]
}
