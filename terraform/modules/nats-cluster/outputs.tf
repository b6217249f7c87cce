output "nodes" {
  description = "The nodes by name: id of the machine, address, zone. Known when their volumes are attached, too."
  value = { for name, node in local.nodes : name => {
    instance = aws_instance.node[name].id
    address  = node.address
    zone     = node.zone
  } }
  depends_on = [aws_volume_attachment.data]
}

output "host" {
  description = "The name that clients connect to."
  value       = aws_route53_record.clients.name
}

output "port" {
  description = "The port that clients connect to."
  value       = aws_lb_listener.clients.port
}

output "target_group_arn" {
  description = "The load balancer's target group."
  value       = aws_lb_target_group.clients.arn
}

output "security_group_id" {
  description = "The security group of the nodes."
  value       = aws_security_group.nodes.id
}

output "kms_key_arn" {
  description = "The key of volumes, secrets and logs of the nodes."
  value       = aws_kms_key.this.arn
}

output "alarm_names" {
  description = "Names of alarms by kind."
  value = merge(
    { for kind in keys(local.kinds) : kind => [for key, alarm in local.alarms : aws_cloudwatch_metric_alarm.node[key].alarm_name if alarm.kind == kind] },
    { nats-unhealthy-targets = [aws_cloudwatch_metric_alarm.unhealthy_targets.alarm_name] },
  )
}

output "log_group" {
  description = "Log group of the nodes; a stream for each, and one for how it was prepared."
  value       = aws_cloudwatch_log_group.this.name
}

output "metrics_namespace" {
  description = "Where the nodes' memory and disk are told: `mem_used_percent` by `node`, `disk_used_percent` by `node`, `path` and `fstype`."
  value       = local.metrics_namespace
}
