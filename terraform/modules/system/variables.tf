variable "project" {
  description = "Prefix of names on AWS."
  type        = string
}

variable "environment" {
  description = "Name of the environment's manifest."
  type        = string
}

variable "handover" {
  description = "Name of the parameter that natsctl reads."
  type        = string
}

variable "services" {
  description = "The services by name, including the gateway; module `manifests` reads them."
  type = map(object({
    ecs_name        = string
    execute_command = bool
    is_built        = optional(bool, true)
    secrets         = set(string)
    secret_arns     = optional(set(string), [])
    parameters      = optional(set(string), [])
    grants          = list(object({ actions = set(string), resources = set(string) }))
    thresholds      = object({ cpu_percent = number, memory_percent = number, tasks = number })
  }))
}

variable "network" {
  description = "As in module `network`, with zones by their letters: a new network, or an existing one."
  type = object({
    cidr       = optional(string)
    apart_from = optional(map(string), {})
    zones      = optional(list(string), [])
    nat        = optional(string, "per_zone")
    endpoints  = optional(set(string), ["ec2messages", "ecr.api", "ecr.dkr", "logs", "s3", "secretsmanager", "ssm", "ssmmessages"])
    flow_logs  = optional(object({ traffic = optional(string), retention_days = optional(number) }), {})
    existing = optional(object({
      vpc_id             = string
      private_subnet_ids = set(string)
      public_subnet_ids  = optional(set(string), [])
    }))
  })

  validation {
    condition     = var.environment != "production" || try(length(var.network.existing.private_subnet_ids), length(var.network.zones)) >= 3
    error_message = "Production is in three zones at least: the loss of one must leave a majority of the NATS nodes."
  }
}

variable "nats" {
  description = "The NATS cluster: number, type and volumes of its nodes, size of the file store of JetStream, and networks by name that leaf nodes may connect from."
  type = object({
    nodes             = number
    instance_type     = string
    volume_gb         = number
    max_file_store_gb = number
    leaf_cidrs        = optional(map(string), {})
  })

  validation {
    condition     = var.nats.volume_gb >= var.nats.max_file_store_gb * 1.1
    error_message = "JetStream may store ${var.nats.max_file_store_gb} GB (`nats.max_file_store` in fleet.yaml): a volume must have 10 % more."
  }
}

variable "redis" {
  description = "The cache: type of its nodes, number of shards, and replicas of each."
  type = object({
    node_type = string
    shards    = number
    replicas  = number
  })
}

variable "gateway" {
  description = "The load balancer for HTTP clients: public with a certificate, without one for the VPC or the named networks only."
  type = object({
    certificate_arn    = optional(string)
    domain             = optional(string)
    client_cidrs       = optional(map(string))
    access_logs_bucket = optional(string)
  })
  default = {}
}

variable "alerting" {
  description = "URL of the runbooks that alarms link to, and who is notified, by name: `email` or `https`, and the address."
  type = object({
    runbook_url   = string
    subscriptions = optional(map(object({ protocol = string, endpoint = string })), {})
  })
}

variable "repository_namespace" {
  description = "Prefix of the names of repositories."
  type        = string
  default     = "bodybroker-services"
}

variable "log_retention_days" {
  description = "How long logs of services are kept."
  type        = number
  default     = 30
}

variable "spot_percent" {
  description = "Percentage of the tasks on Fargate Spot, beyond the first of each service."
  type        = number
  default     = 0
}

variable "deletion_protection" {
  description = "Whether resources with data are protected from deletion."
  type        = bool

  validation {
    condition     = var.environment != "production" || var.deletion_protection
    error_message = "Production has deletion protection."
  }
}
