variable "name" {
  description = "Project and environment, for example `gaming-system-production`. Prefix of the names of alarms."
  type        = string
}

variable "cluster" {
  description = "Name of the ECS cluster."
  type        = string
}

variable "services" {
  description = "The services by name: their names on ECS, the secrets that their manifests name, and the thresholds of their alarms."
  type = map(object({
    ecs_name   = string
    is_built   = optional(bool, true)
    secrets    = optional(set(string), [])
    thresholds = object({ cpu_percent = number, memory_percent = number, tasks = number })
  }))

  validation {
    condition     = alltrue([for service in values(var.services) : can(regex("^[a-z0-9]+(-[a-z0-9]+)*$", service.ecs_name)) if service.is_built])
    error_message = "ECR accepts names of lower-case letters and digits, with single `-` between: ${join(", ", [for service in values(var.services) : service.ecs_name if service.is_built && !can(regex("^[a-z0-9]+(-[a-z0-9]+)*$", service.ecs_name))])}."
  }

  validation {
    condition     = length(distinct([for service in values(var.services) : service.ecs_name])) == length(var.services)
    error_message = "Two services have the same name on ECS."
  }

  validation {
    condition     = length(setintersection(keys(var.services), ["authority", "errand", "natsctl", "operator"])) == 0
    error_message = "`authority`, `errand`, `natsctl` and `operator` are natsctl's own names: no service has one of them."
  }

  validation {
    condition = alltrue(flatten([
      for service in values(var.services) : [for secret in service.secrets : !startswith(secret, "nats/")]
    ]))
    error_message = "Secrets below `nats/` are identities: each service has its own, and no manifest names one."
  }

  validation {
    condition = alltrue(flatten([
      for service in values(var.services) : [
        for percent in [service.thresholds.cpu_percent, service.thresholds.memory_percent] : percent >= 1 && percent <= 100
      ]
    ]))
    error_message = "A threshold of CPU or memory is from 1 to 100 percent."
  }

  validation {
    condition     = alltrue([for service in values(var.services) : service.thresholds.tasks >= 0 && service.thresholds.tasks <= 100])
    error_message = "A threshold of tasks is from 0 to 100."
  }
}

variable "repository_namespace" {
  description = "Prefix of the names of repositories, for example `bodybroker-services`."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)*$", var.repository_namespace))
    error_message = "ECR accepts lower-case letters and digits, with single `.`, `_`, `-` or `/` between."
  }

  validation {
    condition     = alltrue([for service in values(var.services) : length("${var.repository_namespace}/${service.ecs_name}") <= 256])
    error_message = "A repository's name has up to 256 characters."
  }
}

variable "secret_prefix" {
  description = "Prefix of the names of secrets, for example `gaming-system/production`."
  type        = string
}

variable "existing_secrets" {
  description = "Secrets of another module that manifests may name: ARNs by name."
  type        = map(string)
  default     = {}
}

variable "log_group" {
  description = "Name of the log group of all services."
  type        = string
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
  default     = 30

  validation {
    condition     = contains([7, 14, 30, 60, 90, 180, 365, 400], var.log_retention_days)
    error_message = "One of 7, 14, 30, 60, 90, 180, 365 and 400, which CloudWatch Logs accepts."
  }
}

variable "images_kept" {
  description = "Number of images of each service that are kept. Running images must be among them."
  type        = number
  default     = 100

  validation {
    condition     = var.images_kept >= 20 && var.images_kept <= 1000 && floor(var.images_kept) == var.images_kept
    error_message = "A whole number from 20 to 1000: fewer than 20 could delete an image that runs or that a rollback needs."
  }
}

variable "alerting" {
  description = "What alarms notify and link to; module `alerts` has both."
  type        = object({ topic_arn = string, runbook_url = string })
}

variable "nats" {
  description = "The NATS nodes, for their dashboard: instances by name, the namespace of their metrics, and the load balancer's target group."
  type = object({
    instances         = map(string)
    metrics_namespace = string
    target_group_arn  = string
  })
}

variable "deletion_protection" {
  description = "Whether ECR refuses to delete repositories with images, and deleted secrets can be restored for 30 days."
  type        = bool
  default     = true
}
