variable "name" {
  description = "Prefix of names, for example `gaming-system-production`."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,26}$", var.name))
    error_message = "A name has 2 to 27 lower-case letters, digits and `-`, a letter first: a load balancer's name has room for no more."
  }
}

variable "nodes" {
  description = "Number of nodes: an odd number, as JetStream needs a majority."
  type        = number
  default     = 5

  validation {
    condition     = contains([3, 5, 7, 9], var.nodes)
    error_message = "`nodes` is one of 3, 5, 7 and 9."
  }
}

variable "vpc_id" {
  description = "Id of the VPC."
  type        = string
}

variable "subnets" {
  description = "Private subnets by zone, each with a route table of its own or shared, but associated explicitly. Nodes are placed in the zones in turn."
  type        = map(object({ id = string, cidr = string }))

  validation {
    condition     = length(var.subnets) >= 2 && length(var.subnets) <= 6
    error_message = "Nodes are in 2 to 6 zones: in a single one, all of them would be lost together."
  }

  validation {
    condition     = alltrue([for subnet in values(var.subnets) : try(tonumber(split("/", subnet.cidr)[1]) <= 26, false)])
    error_message = "A subnet has addresses such as `10.0.0.0/20`, /26 at least: 16 of them are reserved for nodes."
  }
}

variable "instance_type" {
  description = "Type of the nodes. A new type takes effect node by node, as each is replaced."
  type        = string
  default     = "m6i.large"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", var.instance_type))
    error_message = "A type has a family and a size, for example `m6i.large`."
  }

  validation {
    condition     = !can(regex("^(a1|c1|c3|c4|cc2|d2|f1|g2|g3|h1|i2|i3|m1|m2|m3|m4|p2|p3|r3|r4|t1|t2|x1|x1e)\\.", var.instance_type))
    error_message = "The volume is found by its NVMe name, which only types on Nitro have: t3, m5, c5, r5 or newer."
  }
}

variable "volume_gb" {
  description = "Size of each node's data volume. It can grow, never shrink."
  type        = number
  default     = 500

  validation {
    condition     = var.volume_gb >= 20 && var.volume_gb <= 16384 && floor(var.volume_gb) == var.volume_gb
    error_message = "A gp3 volume for data has from 20 to 16384 GB."
  }
}

variable "client_security_group_ids" {
  description = "Security groups by name that may connect on port 4222."
  type        = map(string)
}

variable "leaf_cidrs" {
  description = "Networks by name whose leaf nodes may connect on port 7422."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for cidr in values(var.leaf_cidrs) : can(cidrnetmask(cidr)) && try(tonumber(split("/", cidr)[1]) >= 8, false)])
    error_message = "A network is a range of IPv4 addresses, /8 at most, for example `192.168.0.0/24`."
  }
}

variable "secret_prefix" {
  description = "Prefix of the names of secrets, for example `gaming-system/production`. A node reads `<prefix>/nats/<node>` only."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$", var.secret_prefix))
    error_message = "A prefix has parts of letters, digits, `_`, `.` and `-` with `/` between, for example `gaming-system/production`."
  }
}

variable "dns_zone_name" {
  description = "The private zone to create; clients connect to `nats.<zone>`."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]+$", var.dns_zone_name))
    error_message = "A zone is a domain in lower case, for example `gaming-system.internal`."
  }
}

variable "alerting" {
  description = "What alarms notify and link to; module `alerts` has both."
  type        = object({ topic_arn = string, runbook_url = string })
}

variable "log_retention_days" {
  description = "How long the logs of the servers are kept."
  type        = number
  default     = 30

  validation {
    condition     = contains([7, 14, 30, 60, 90, 180, 365, 400], var.log_retention_days)
    error_message = "One of 7, 14, 30, 60, 90, 180, 365 and 400, which CloudWatch Logs accepts."
  }
}

variable "deletion_protection" {
  description = "Whether Terraform refuses to destroy or replace volumes and addresses, and AWS to terminate nodes and the load balancer."
  type        = bool
}
