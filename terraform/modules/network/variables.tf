variable "name" {
  description = "Prefix of names, for example `gaming-system-production`."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,39}$", var.name))
    error_message = "A name has 2 to 40 lower-case letters, digits and `-`, a letter first."
  }
}

variable "cidr" {
  description = "CIDR block of the new network, /16 to /20. Absent with `existing`."
  type        = string
  default     = null

  validation {
    condition     = (var.cidr == null) != (var.existing == null)
    error_message = "Give either `cidr`, for a new network, or `existing`."
  }

  validation {
    condition     = var.cidr == null || can(cidrnetmask(var.cidr))
    error_message = "`cidr` is a range of IPv4 addresses, for example `10.0.0.0/16`."
  }

  validation {
    condition     = !can(cidrnetmask(var.cidr)) || try(contains(range(16, 21), tonumber(split("/", var.cidr)[1])), false)
    error_message = "`cidr` is from /16, the largest that AWS accepts, to /20: a smaller one has no room for tasks in every zone."
  }

  validation {
    condition     = !can(cidrnetmask(var.cidr)) || try(cidrhost(var.cidr, 0) == split("/", var.cidr)[0], false)
    error_message = "`cidr` begins at its first address: ${try(cidrhost(var.cidr, 0), "10.0.0.0")}/${try(split("/", var.cidr)[1], "16")}."
  }
}

variable "apart_from" {
  description = "Networks by name that this one is or will be connected with, and must not overlap."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for cidr in values(var.apart_from) : can(cidrnetmask(cidr))])
    error_message = "A network is a range of IPv4 addresses, for example `10.1.0.0/16`."
  }

  # Two ranges overlap if they are equal when cut to the shorter of their prefixes.
  validation {
    condition = !can(cidrnetmask(var.cidr)) || alltrue([
      for other in values(var.apart_from) : try(
        cidrsubnet("${split("/", other)[0]}/${min(split("/", var.cidr)[1], split("/", other)[1])}", 0, 0)
        != cidrsubnet("${split("/", var.cidr)[0]}/${min(split("/", var.cidr)[1], split("/", other)[1])}", 0, 0),
        true,
      )
    ])
    error_message = "`cidr` overlaps one of ${join(", ", [for name, cidr in var.apart_from : "${name} (${cidr})"])}."
  }
}

variable "zones" {
  description = "Availability zones, for example `us-east-1a`. The subnets of a zone follow from its letter, so zones may be added and removed. Absent with `existing`."
  type        = list(string)
  default     = []

  validation {
    condition     = var.existing != null || (length(var.zones) >= 2 && length(var.zones) <= 6)
    error_message = "A network has 2 to 6 zones."
  }

  validation {
    condition     = length(distinct(var.zones)) == length(var.zones)
    error_message = "A zone is named twice."
  }

  validation {
    condition     = alltrue([for zone in var.zones : can(regex("^[a-z]{2}(-[a-z]+)+-[0-9][a-h]$", zone))])
    error_message = "A zone is a region and a letter, for example `us-east-1a`."
  }
}

variable "nat" {
  description = "NAT gateways: `one` is cheaper, with `per_zone` the loss of a zone does not cut off the others."
  type        = string
  default     = "per_zone"

  validation {
    condition     = contains(["one", "per_zone"], var.nat)
    error_message = "`nat` is one of `one` and `per_zone`."
  }
}

variable "endpoints" {
  description = "AWS services with a VPC endpoint. All but `s3` cost something per hour and zone."
  type        = set(string)
  default     = ["ec2messages", "ecr.api", "ecr.dkr", "logs", "s3", "secretsmanager", "ssm", "ssmmessages"]

  validation {
    condition = alltrue([for service in var.endpoints : contains(
      ["ec2messages", "ecr.api", "ecr.dkr", "kms", "logs", "monitoring", "s3", "secretsmanager", "ssm", "ssmmessages", "sts"], service
    )])
    error_message = "`endpoints` are some of ec2messages, ecr.api, ecr.dkr, kms, logs, monitoring, s3, secretsmanager, ssm, ssmmessages and sts."
  }
}

variable "flow_logs" {
  description = "Which connections are recorded (`ACCEPT`, `REJECT` or `ALL`), and how long they are kept."
  type = object({
    traffic        = optional(string, "ALL")
    retention_days = optional(number, 30)
  })
  default  = {}
  nullable = false

  validation {
    condition     = contains(["ACCEPT", "REJECT", "ALL"], var.flow_logs.traffic)
    error_message = "`traffic` is one of `ACCEPT`, `REJECT` and `ALL`."
  }

  validation {
    condition     = contains([7, 14, 30, 60, 90, 180, 365, 400], var.flow_logs.retention_days)
    error_message = "`retention_days` is one of 7, 14, 30, 60, 90, 180, 365 and 400, which CloudWatch Logs accepts."
  }
}

variable "existing" {
  description = "An existing network: nothing is created, and the outputs are those of this network. One private subnet per zone, and one public at most."
  type = object({
    vpc_id             = string
    private_subnet_ids = set(string)
    public_subnet_ids  = optional(set(string), [])
  })
  default = null

  validation {
    condition     = var.existing == null || try(length(var.existing.private_subnet_ids) >= 2, false)
    error_message = "An existing network needs two private subnets at least, in different zones."
  }

  validation {
    condition     = var.existing == null || try(length(setintersection(var.existing.private_subnet_ids, var.existing.public_subnet_ids)) == 0, false)
    error_message = "A subnet is either private or public."
  }
}
