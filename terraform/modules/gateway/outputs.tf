output "target_group_arn" {
  description = "The target group that natsctl registers the gateway's tasks with. Available when the listener exists, as ECS requires."
  value       = aws_lb_target_group.this.arn
  depends_on  = [aws_lb_listener.http, aws_lb_listener.https]
}

output "url" {
  description = "URL for clients."
  value       = "${local.is_internal ? "http" : "https"}://${coalesce(var.domain, aws_lb.this.dns_name)}"
}

output "security_group_id" {
  description = "The security group of the load balancer."
  value       = aws_security_group.this.id
}

output "alarm_names" {
  description = "Names of the alarms by kind."
  value       = module.alarms.names
}
