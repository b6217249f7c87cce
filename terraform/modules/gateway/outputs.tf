output "target_group_arn" {
  description = "Where natsctl registers the gateway's tasks. Known when the listener is there: ECS refuses it before."
  value       = aws_lb_target_group.this.arn
  depends_on  = [aws_lb_listener.http, aws_lb_listener.https]
}

output "url" {
  description = "For clients."
  value       = "${local.is_internal ? "http" : "https"}://${coalesce(var.domain, aws_lb.this.dns_name)}"
}

output "security_group_id" {
  description = "The security group of the load balancer."
  value       = aws_security_group.this.id
}

output "alarm_names" {
  description = "Names of the alarms by kind."
  value = {
    gateway-5xx               = [aws_cloudwatch_metric_alarm.errors.alarm_name]
    gateway-unhealthy-targets = [aws_cloudwatch_metric_alarm.unhealthy_targets.alarm_name]
  }
}
