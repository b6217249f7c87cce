output "names" {
  description = "Names of the alarms by kind."
  value       = { for name, alarm in aws_cloudwatch_metric_alarm.this : var.alarms[name].kind => alarm.alarm_name... }
}

output "arns" {
  description = "ARNs of the alarms by name."
  value       = { for name, alarm in aws_cloudwatch_metric_alarm.this : name => alarm.arn }
}
