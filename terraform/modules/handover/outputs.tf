output "parameter" {
  description = "Name of the parameter."
  value       = aws_ssm_parameter.handover.name
}

output "json" {
  description = "Value of the parameter."
  value       = jsonencode(local.handover)
}

output "ledger" {
  description = "Name of the table."
  value       = aws_dynamodb_table.ledger.name
}
