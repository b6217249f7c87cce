variable "name" {
  description = "Prefix of names, and the cluster's own name, for example `gaming-system-production`."
  type        = string

  validation {
    condition     = can(regex("^[a-z]([a-z0-9]|-[a-z0-9]){1,30}$", var.name)) && length(var.name) <= 31
    error_message = "A name has 2 to 31 lower-case letters, digits and single `-`, a letter first, no `-` at the end: the user's name adds `-services`, and has 40 characters at most."
  }
}

variable "vpc_id" {
  description = "Id of the VPC."
  type        = string
}

variable "subnet_ids" {
  description = "Ids of private subnets in different zones."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "A cache has subnets in two zones at least."
  }
}

variable "client_security_group_ids" {
  description = "Security groups by name that may connect on port 6379."
  type        = map(string)
}

variable "node_type" {
  description = "Type of the cache's nodes."
  type        = string
  default     = "cache.r7g.large"

  validation {
    condition     = can(regex("^cache\\.[a-z0-9]+\\.[a-z0-9]+$", var.node_type))
    error_message = "A type of node begins with `cache.`, for example `cache.r7g.large`."
  }
}

variable "shards" {
  description = "Number of shards."
  type        = number
  default     = 3

  validation {
    condition     = var.shards >= 1 && var.shards <= 90 && floor(var.shards) == var.shards
    error_message = "`shards` is a whole number from 1 to 90."
  }
}

variable "replicas" {
  description = "Number of replicas of each shard, in other zones than its primary."
  type        = number
  default     = 1

  validation {
    condition     = var.replicas >= 0 && var.replicas <= 5 && floor(var.replicas) == var.replicas
    error_message = "`replicas` is a whole number from 0 to 5."
  }

  validation {
    condition     = var.replicas >= 1 || !var.deletion_protection
    error_message = "A cache with deletion protection has a replica at least: without one, the loss of a zone loses data."
  }

  validation {
    condition     = var.shards * (var.replicas + 1) <= 90
    error_message = "A cache has 90 nodes at most: shards times one more than replicas."
  }
}

variable "snapshot_days" {
  description = "How long the daily snapshots are kept; 0 for none."
  type        = number
  default     = 7

  validation {
    condition     = var.snapshot_days >= 0 && var.snapshot_days <= 35 && floor(var.snapshot_days) == var.snapshot_days
    error_message = "`snapshot_days` is a whole number from 0 to 35."
  }

  validation {
    condition     = var.snapshot_days >= 1 || !var.deletion_protection
    error_message = "A cache with deletion protection has snapshots."
  }
}

variable "rotation_days" {
  description = "After how many days the services' password changes. Tasks older than two rotations cannot open new connections."
  type        = number
  default     = 30

  validation {
    condition     = var.rotation_days >= 7 && var.rotation_days <= 365 && floor(var.rotation_days) == var.rotation_days
    error_message = "`rotation_days` is a whole number from 7 to 365."
  }
}

variable "secret_prefix" {
  description = "Prefix of the names of secrets, for example `gaming-system/production`: the credentials are in `<prefix>/redis/auth`."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$", var.secret_prefix))
    error_message = "A prefix has parts of letters, digits, `_`, `.` and `-` with `/` between, for example `gaming-system/production`."
  }
}

variable "secrets_kms_key_arn" {
  description = "The key that the services' secrets are encrypted with."
  type        = string
}

variable "alerting" {
  description = "What alarms notify and link to; module `alerts` has both."
  type        = object({ topic_arn = string, runbook_url = string })
}

variable "log_retention_days" {
  description = "How long the logs of the cache and of the rotation are kept."
  type        = number
  default     = 30

  validation {
    condition     = contains([7, 14, 30, 60, 90, 180, 365, 400], var.log_retention_days)
    error_message = "One of 7, 14, 30, 60, 90, 180, 365 and 400, which CloudWatch Logs accepts."
  }
}

variable "deletion_protection" {
  description = "Whether Terraform refuses to destroy or replace the cache, and takes a last snapshot when that is done on purpose."
  type        = bool
}
