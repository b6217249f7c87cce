output "alerting" {
  description = "What alarms need: ARN of the topic, known when alarms may publish to it, and URL of the runbooks."
  value = {
    topic_arn   = aws_sns_topic_policy.this.arn
    runbook_url = var.runbook_url
  }
}
