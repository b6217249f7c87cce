variable "account" {
  description = "Number of the account, 12 digits; with credentials of another one nothing is done. Only needed if the environment's manifest does not name it."
  type        = string
  default     = null

  validation {
    condition     = var.account == null || can(regex("^[0-9]{12}$", var.account))
    error_message = "The number of an account has 12 digits."
  }

  validation {
    condition     = (var.account == null) != (module.manifests.account == null)
    error_message = "Say which account: by this variable (`TF_VAR_account`), or by `account` in the environment's manifest, not by both."
  }
}

variable "subscriptions" {
  description = "Who is told of alarms, by name: `email` or `https`, and where."
  type        = map(object({ protocol = string, endpoint = string }))
  default     = {}
}

variable "runbook_url" {
  description = "Where the runbooks are read, without the name of one: the `https://` address of docs/runbooks at your forge."
  type        = string

  validation {
    condition     = can(regex("^https://.*[^/]$", var.runbook_url))
    error_message = "A URL that begins with `https://` and does not end with `/`."
  }
}

variable "gateway" {
  description = "Where HTTP clients come in. With a certificate in public, without it from the VPC or from the networks that are named."
  type = object({
    certificate_arn    = optional(string)
    domain             = optional(string)
    client_cidrs       = optional(map(string))
    access_logs_bucket = optional(string)
  })
  default = {}
}

variable "leaf_cidrs" {
  description = "Networks that NATS leaf nodes may connect from, by name."
  type        = map(string)
  default     = {}
}

variable "manifests_folder" {
  description = "Folder of the manifests; that of this repository if absent."
  type        = string
  default     = null
}
