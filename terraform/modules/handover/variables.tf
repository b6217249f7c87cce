variable "parameter" {
  description = "Name of the parameter, for example `/gaming-system/production/natsctl`."
  type        = string

  validation {
    condition     = can(regex("^(/[a-zA-Z0-9_.-]+)+$", var.parameter))
    error_message = "The full name of a parameter begins with `/`, for example `/gaming-system/production/natsctl`."
  }
}

variable "project" {
  description = "Name of the project, as in fleet.yaml."
  type        = string
}

variable "environment" {
  description = "Name of the environment's manifest."
  type        = string
}

variable "account" {
  description = "Number of the account."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account))
    error_message = "The number of an account has 12 digits."
  }
}

variable "region" {
  description = "Region, for example `us-east-1`."
  type        = string
}

variable "cluster" {
  description = "Name of the ECS cluster."
  type        = string
}

variable "network" {
  description = "Network of the tasks: the VPC, private subnets and security groups."
  type = object({
    vpc             = string
    subnets         = list(string)
    security_groups = list(string)
  })

  validation {
    condition     = length(var.network.subnets) > 0 && length(var.network.security_groups) > 0
    error_message = "Tasks need at least one subnet and one security group."
  }
}

variable "execution_role" {
  description = "ARN of the execution role."
  type        = string
}

variable "log_group" {
  description = "Name of the log group of all services."
  type        = string
}

variable "alerts_topic" {
  description = "ARN of the topic that alarms notify."
  type        = string
}

variable "registry" {
  description = "Host of the registry."
  type        = string
}

variable "names" {
  description = "Names of the resources of a service: templates with `{service}`, `{ecs_name}`, `{kind}` or `{name}`."
  type = object({
    repository  = string
    task_family = optional(string, "{ecs_name}")
    task_role   = string
    secret      = string
    nats_secret = string
    alarm       = string
  })

  validation {
    condition = alltrue([
      strcontains(var.names.repository, "{ecs_name}"), strcontains(var.names.task_family, "{ecs_name}"),
      strcontains(var.names.task_role, "{service}"),
      strcontains(var.names.secret, "{name}"), strcontains(var.names.nats_secret, "{service}"),
      strcontains(var.names.alarm, "{service}"), strcontains(var.names.alarm, "{kind}"),
    ])
    error_message = "`repository` and `task_family` need `{ecs_name}`, `task_role` and `nats_secret` need `{service}`, `secret` needs `{name}`, `alarm` needs `{service}` and `{kind}`."
  }
}

variable "nats" {
  description = "The NATS cluster: host and port for clients, its nodes by name, and the load balancer's target group."
  type = object({
    host            = string
    port            = number
    nodes           = map(object({ instance = string, address = string, zone = string }))
    target_group    = string
    operator_secret = string
  })
}

variable "redis" {
  description = "The cache, if there is one."
  type        = object({ host = string, port = number, auth_secret = string })
  default     = null
}

variable "gateway" {
  description = "Target group and URL of the gateway, if there is a load balancer."
  type        = object({ target_group = string, url = string })
  default     = null
}

variable "kms_key_arn" {
  description = "The key that the table is encrypted with."
  type        = string
}

variable "deletion_protection" {
  description = "Whether AWS refuses to delete the table."
  type        = bool
  default     = true
}
