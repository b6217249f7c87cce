output "host" {
  description = "The configuration endpoint, which clients in cluster mode connect to first."
  value       = aws_elasticache_replication_group.this.configuration_endpoint_address
}

output "port" {
  description = "The port, TLS only."
  value       = aws_elasticache_replication_group.this.port
}

output "auth_secret_name" {
  description = "Name of the secret with the services' credentials: JSON with `username` and `password`."
  value       = aws_secretsmanager_secret.auth.name
}

output "auth_secret_arn" {
  description = "ARN of the same secret."
  value       = aws_secretsmanager_secret.auth.arn
}

output "security_group_id" {
  description = "The security group of the cache."
  value       = aws_security_group.this.id
}

output "kms_key_arn" {
  description = "The key of the cache and its logs."
  value       = module.key.arn
}

output "alarm_names" {
  description = "Names of the alarms by kind."
  value       = module.alarms.names
}
