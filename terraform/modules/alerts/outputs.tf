output "topic_arn" {
  description = "ARN of the topic. Known when alarms may write to it, too."
  value       = aws_sns_topic_policy.this.arn
}
