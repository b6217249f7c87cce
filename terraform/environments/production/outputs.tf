output "handover" {
  description = "Name of the parameter that natsctl reads."
  value       = module.system.handover
}

output "url" {
  description = "URL for HTTP clients."
  value       = module.system.url
}

output "alarm_names" {
  description = "Names of all alarms by kind."
  value       = module.system.alarm_names
}
