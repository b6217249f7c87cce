variable "name" {
  description = "Project and environment, for example `gaming-system-production`. Names of alarms start with it."
  type        = string
}

variable "cluster" {
  description = "Name of the ECS cluster."
  type        = string
}

variable "services" {
  description = "The services by name: what ECS calls them, the secrets that their manifests name, and when somebody is told."
  type = map(object({
    ecs_name   = string
    secrets    = optional(set(string), [])
    thresholds = object({ cpu_percent = number, memory_percent = number, tasks = number })
  }))

  validation {
    condition     = alltrue([for service in values(var.services) : can(regex("^[a-z0-9]+(-[a-z0-9]+)*$", service.ecs_name))])
    error_message = "ECR takes names of lower-case letters and digits, with single `-` between: ${join(", ", [for service in values(var.services) : service.ecs_name if !can(regex("^[a-z0-9]+(-[a-z0-9]+)*$", service.ecs_name))])}."
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
    condition     = alltrue([for service in values(var.services) : service.thresholds.tasks >= 1 && service.thresholds.tasks <= 100])
    error_message = "A threshold of tasks is from 1 to 100."
  }
}

variable "repository_namespace" {
  description = "What names of repositories start with, for example `bodybroker-services`."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)*$", var.repository_namespace))
    error_message = "ECR takes lower-case letters and digits, with single `.`, `_`, `-` or `/` between."
  }

  validation {
    condition     = alltrue([for service in values(var.services) : length("${var.repository_namespace}/${service.ecs_name}") <= 256])
    error_message = "A repository's name has up to 256 characters."
  }
}

variable "secret_prefix" {
  description = "What names of secrets start with, for example `gaming-system/production`."
  type        = string
}

variable "existing_secrets" {
  description = "Secrets of another module that tasks may be started with, and manifests name: ARNs by name."
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
    error_message = "One of 7, 14, 30, 60, 90, 180, 365 and 400, which CloudWatch Logs knows."
  }
}

variable "images_kept" {
  description = "How many images of each service are kept. What runs must be among them."
  type        = number
  default     = 100

  validation {
    condition     = var.images_kept >= 20 && var.images_kept <= 1000 && floor(var.images_kept) == var.images_kept
    error_message = "A whole number from 20 to 1000: fewer than 20 could remove what runs or what a rollback goes to."
  }
}

variable "alerts_topic_arn" {
  description = "Where alarms are told."
  type        = string
}

variable "runbook_url" {
  description = "Where the runbooks are read; `/<kind>.md` is added."
  type        = string

  validation {
    condition     = can(regex("^https://.*[^/]$", var.runbook_url))
    error_message = "A URL that begins with `https://` and does not end with `/`."
  }
}

variable "runbooks_folder" {
  description = "Where the runbooks are kept; docs/runbooks of this repository if absent."
  type        = string
  default     = null
}

variable "nats" {
  description = "The NATS nodes, for their dashboard: instances by name, where their disks are told of, and the load balancer's target group."
  type = object({
    instances         = map(string)
    metrics_namespace = string
    target_group_arn  = string
  })
}

variable "deletion_protection" {
  description = "Whether repositories with images stay, and secrets can be restored for 30 days, when they are deleted."
  type        = bool
  default     = true
}
