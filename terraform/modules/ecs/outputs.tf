output "cluster" {
  description = "Name of the cluster. Available when its capacity providers are attached."
  value       = aws_ecs_cluster_capacity_providers.this.cluster_name
}

output "execution_role_arn" {
  description = "ARN of the execution role."
  value       = aws_iam_role.execution.arn
}

output "task_role_arn_template" {
  description = "ARN of a task role, with `{service}` for the service's name."
  value       = "arn:${local.partition}:iam::${local.account}:role/${var.name}-{service}"
}

output "security_group_id" {
  description = "The security group of tasks."
  value       = aws_security_group.tasks.id
}
