output "handover" {
  description = "Name of the parameter that natsctl reads."
  value       = module.system.handover
}

output "url" {
  description = "Where HTTP clients come in."
  value       = module.system.url
}

output "alarm_names" {
  description = "Names of all alarms by kind."
  value       = module.system.alarm_names
}
