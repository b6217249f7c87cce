output "nodes" {
  description = "The nodes by name: id of the instance, address and zone. Available when the volumes are attached."
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
  value       = module.key.arn
}

output "alarm_names" {
  description = "Names of the alarms by kind."
  value       = module.alarms.names
}

output "log_group" {
  description = "Log group of the nodes; a stream for the server of each, and one for its user data."
  value       = aws_cloudwatch_log_group.this.name
}

output "metrics_namespace" {
  description = "Namespace of the nodes' metrics for memory and disk: `mem_used_percent` by `node`, `disk_used_percent` by `node`, `path` and `fstype`."
  value       = local.metrics_namespace
}
