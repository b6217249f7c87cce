output "project" {
  description = "Prefix of names on AWS."
  value       = local.fleet.project
}

output "region" {
  description = "Region of the environment."
  value       = local.environment.region
}

output "account" {
  description = "The account that the environment's manifest names, or null."
  value       = try(local.environment.account, null)
}

output "handover" {
  description = "Name of the parameter that natsctl reads."
  value       = local.environment.handover
}

output "nats" {
  description = "Number of NATS nodes, and size of the file store of JetStream on each."
  value = {
    nodes             = local.environment.nats.nodes
    max_file_store_gb = local.max_file_store_gb
  }
}

output "services" {
  description = "The services by name, including the gateway, with what Terraform needs of each."
  value       = local.services

  precondition {
    condition     = length(local.unknown_keys) == 0
    error_message = "Unknown keys: ${join(", ", local.unknown_keys)}. `natsctl validate` says where they are and suggests the right ones."
  }

  precondition {
    condition     = length(local.unknown_services) == 0
    error_message = "The environment's manifest names services that have no manifest: ${join(", ", local.unknown_services)}."
  }

  precondition {
    condition     = length(local.misnamed) == 0
    error_message = "A service's file has the `name` of the service. Misnamed: ${join(", ", local.misnamed)}."
  }
}
