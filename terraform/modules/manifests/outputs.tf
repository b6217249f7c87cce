output "project" {
  description = "What names on AWS start with."
  value       = local.fleet.project
}

output "region" {
  description = "Where the environment is."
  value       = local.place.region
}

output "account" {
  description = "The account that the environment's manifest names, or null."
  value       = try(local.place.account, null)
}

output "handover" {
  description = "Name of the parameter that natsctl reads."
  value       = local.place.handover
}

output "nats" {
  description = "How many NATS servers there are, and how much JetStream may store on each."
  value = {
    nodes             = local.place.nats.nodes
    max_file_store_gb = local.max_file_store_gb
  }
}

output "services" {
  description = "The services by name, the gateway among them, with what Terraform needs of each."
  value       = local.services

  precondition {
    condition     = length(local.unknown_keys) == 0
    error_message = "Nobody knows these keys: ${join(", ", local.unknown_keys)}. `natsctl validate` says where they are and what was meant."
  }

  precondition {
    condition     = length(local.misnamed) == 0
    error_message = "A service's file is called after its `name`, which is not so for: ${join(", ", local.misnamed)}."
  }
}
