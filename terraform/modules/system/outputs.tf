output "handover" {
  description = "Name of the parameter that natsctl reads."
  value       = module.handover.parameter
}

output "handover_json" {
  description = "Value of this parameter."
  value       = module.handover.json
}

output "url" {
  description = "URL for HTTP clients."
  value       = module.gateway.url
}

output "alarm_names" {
  description = "Names of all alarms by kind."
  value       = merge(module.fleet.alarm_names, module.gateway.alarm_names, module.nats.alarm_names, module.redis.alarm_names)
}

output "dashboards" {
  description = "Names of the dashboards."
  value       = module.fleet.dashboards
}
