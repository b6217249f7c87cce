variable "name" {
  description = "Project and environment, for example `gaming-system-production`. Prefix of the names of roles."
  type        = string
}

variable "cluster" {
  description = "Name of the ECS cluster."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9_-]{0,254}$", var.cluster))
    error_message = "A cluster's name has up to 255 letters, digits, `-` and `_`, a letter first."
  }
}

variable "network" {
  description = "The VPC of the tasks, and the ports by name that they may connect to inside it."
  type = object({
    vpc_id         = string
    vpc_cidr       = string
    internal_ports = optional(map(number), { nats = 4222, redis = 6379 })
  })

  validation {
    condition     = can(cidrnetmask(var.network.vpc_cidr))
    error_message = "`vpc_cidr` is a range of IPv4 addresses, for example `10.0.0.0/16`."
  }

  validation {
    condition     = alltrue([for port in values(var.network.internal_ports) : port >= 1 && port <= 65535])
    error_message = "A port is a number from 1 to 65535."
  }
}

variable "services" {
  description = "The services by name: whether `natsctl exec` may open sessions in their tasks, what tasks may do on AWS, and what they start with besides `secrets`: secrets by their ARNs, and parameters of Systems Manager."
  type = map(object({
    secret_arns     = optional(set(string), [])
    parameters      = optional(set(string), [])
    execute_command = optional(bool, false)
    grants          = optional(list(object({ actions = set(string), resources = set(string) })), [])
  }))

  validation {
    condition     = alltrue([for name in keys(var.services) : length("${var.name}-${name}") <= 64])
    error_message = "A role's name has up to 64 characters. Too long: ${join(", ", [for name in keys(var.services) : "${var.name}-${name}" if length("${var.name}-${name}") > 64])}."
  }

  validation {
    condition     = !contains(keys(var.services), "execution")
    error_message = "A service called `execution` would share the execution role."
  }

  validation {
    condition = alltrue(flatten([
      for service in values(var.services) : [
        for grant in service.grants : [for action in grant.actions : can(regex("^[a-z0-9-]+:[A-Za-z]+\\*?$", action))]
      ]
    ]))
    error_message = "An action is `service:Action`, `service:Prefix*` at most: never all actions of a service."
  }

  validation {
    condition = alltrue(flatten([
      for service in values(var.services) : [
        for grant in service.grants : [for resource in grant.resources : can(regex("^arn:[^:]+:[^:]+:", resource))]
      ]
    ]))
    error_message = "A resource is an ARN, for example `arn:aws:s3:::bucket/*`."
  }
}

variable "repositories_arn" {
  description = "ARN of the repositories, with a wildcard, that images are pulled from."
  type        = string
}

variable "secrets" {
  description = "The secrets that tasks start with: ARNs by name."
  type        = map(string)

  validation {
    condition     = length(var.secrets) <= 400
    error_message = "A role has room for 400 secrets: ten policies of 40."
  }
}

variable "secrets_kms_key_arn" {
  description = "The key that these secrets are encrypted with."
  type        = string
}

variable "log_group_arn" {
  description = "ARN of the log group that tasks write to."
  type        = string
}

variable "spot_percent" {
  description = "Percentage of the tasks on Fargate Spot, beyond the first of each service. Spot tasks are cheaper and may be stopped with two minutes' notice."
  type        = number
  default     = 0

  validation {
    condition     = var.spot_percent >= 0 && var.spot_percent <= 100 && floor(var.spot_percent) == var.spot_percent
    error_message = "A whole number from 0 to 100."
  }
}

variable "sessions_retention_days" {
  description = "How long the log of sessions in tasks is kept."
  type        = number
  default     = 400

  validation {
    condition     = contains([30, 60, 90, 180, 365, 400, 731, 1096], var.sessions_retention_days)
    error_message = "One of 30, 60, 90, 180, 365, 400, 731 and 1096, which CloudWatch Logs accepts."
  }
}
