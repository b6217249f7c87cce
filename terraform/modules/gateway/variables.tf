variable "name" {
  description = "Name of the load balancer, for example `gaming-system-production-gw`."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9-]{0,30}[A-Za-z0-9]$", var.name)) && !startswith(var.name, "internal-")
    error_message = "A load balancer's name has 2 to 32 letters, digits and `-`, no `-` at either end, and does not begin with `internal-`."
  }
}

variable "vpc_id" {
  description = "Id of the VPC."
  type        = string
}

variable "certificate_arn" {
  description = "Certificate for HTTPS. With it the load balancer is public; without it, it is internal and uses HTTP."
  type        = string
  default     = null

  validation {
    condition     = var.certificate_arn == null || can(regex("^arn:[^:]+:acm:", var.certificate_arn))
    error_message = "The ARN of a certificate of ACM."
  }
}

variable "domain" {
  description = "Domain of the certificate, whose record points to the load balancer; the load balancer's own name if absent."
  type        = string
  default     = null
}

variable "subnet_ids" {
  description = "Public subnets with a certificate, private ones without; in two zones at least."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "A load balancer needs subnets in two zones at least."
  }
}

variable "client_cidrs" {
  description = "Networks by name that may connect."
  type        = map(string)

  validation {
    condition     = alltrue([for cidr in values(var.client_cidrs) : can(cidrnetmask(cidr))])
    error_message = "Ranges of IPv4 addresses, for example `10.0.0.0/8`."
  }

  validation {
    condition     = var.certificate_arn != null || !contains(values(var.client_cidrs), "0.0.0.0/0")
    error_message = "Without a certificate the load balancer uses HTTP, which must not be open to the Internet. Name the networks, or a certificate."
  }
}

variable "tasks_security_group_id" {
  description = "The security group of tasks."
  type        = string
}

variable "error_percent" {
  description = "The alarm fires when a larger part of the responses is 5xx."
  type        = number
  default     = 1

  validation {
    condition     = var.error_percent > 0 && var.error_percent <= 100
    error_message = "Above 0 and up to 100."
  }
}

variable "alerting" {
  description = "What alarms notify and link to; module `alerts` has both."
  type        = object({ topic_arn = string, runbook_url = string })
}

variable "access_logs_bucket" {
  description = "Bucket for access logs; none if absent. Its policy must allow load balancers to write."
  type        = string
  default     = null
}

variable "deletion_protection" {
  description = "Whether AWS refuses to delete the load balancer."
  type        = bool
  default     = true
}
