variable "name" {
  description = "Name of the load balancer, for example `gaming-system-production-gw`."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9-]{0,30}[A-Za-z0-9]$", var.name)) && !startswith(var.name, "internal-")
    error_message = "A load balancer's name has 2 to 32 letters, digits and `-`, the latter not at an end, and does not begin with `internal-`."
  }
}

variable "vpc_id" {
  description = "Where it is."
  type        = string
}

variable "certificate_arn" {
  description = "Certificate for HTTPS. With it the load balancer is public; without it is internal and speaks HTTP."
  type        = string
  default     = null

  validation {
    condition     = var.certificate_arn == null || can(regex("^arn:[^:]+:acm:", var.certificate_arn))
    error_message = "The ARN of a certificate of ACM."
  }
}

variable "domain" {
  description = "Name that the certificate is for, and whose record points to the load balancer; the load balancer's own if absent."
  type        = string
  default     = null
}

variable "subnet_ids" {
  description = "Public subnets with a certificate, private ones without; of two zones at least."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "A load balancer needs subnets in two zones at least."
  }
}

variable "client_cidrs" {
  description = "Networks that may come in, by name."
  type        = map(string)

  validation {
    condition     = alltrue([for cidr in values(var.client_cidrs) : can(cidrnetmask(cidr))])
    error_message = "Ranges of IPv4 addresses, for example `10.0.0.0/8`."
  }

  validation {
    condition     = var.certificate_arn != null || !contains(values(var.client_cidrs), "0.0.0.0/0")
    error_message = "Without a certificate it speaks HTTP: not to everybody. Name the networks, or a certificate."
  }
}

variable "tasks_security_group_id" {
  description = "The security group of tasks."
  type        = string
}

variable "error_percent" {
  description = "Somebody is told when more of the answers are 5xx."
  type        = number
  default     = 1

  validation {
    condition     = var.error_percent > 0 && var.error_percent <= 100
    error_message = "Above 0 and up to 100."
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

variable "access_logs_bucket" {
  description = "Bucket for access logs, if they are wanted. Its policy must let load balancers write."
  type        = string
  default     = null
}

variable "deletion_protection" {
  description = "Whether AWS refuses to delete the load balancer."
  type        = bool
  default     = true
}
