variable "account" {
  description = "Id of the account, 12 digits; Terraform refuses credentials of another one. Only needed if the environment's manifest does not set it."
  type        = string
  default     = null

  validation {
    condition     = var.account == null || can(regex("^[0-9]{12}$", var.account))
    error_message = "The id of an account has 12 digits."
  }

  validation {
    condition     = (var.account == null) != (module.manifests.account == null)
    error_message = "Set the account either by this variable (`TF_VAR_account`) or by `account` in the environment's manifest."
  }
}

variable "alerting" {
  description = "URL of the runbooks that alarms link to, and who is notified, by name: `email` or `https`, and the address."
  type = object({
    runbook_url   = string
    subscriptions = optional(map(object({ protocol = string, endpoint = string })), {})
  })
}

variable "gateway" {
  description = "The load balancer for HTTP clients: public with a certificate, without one for the VPC or the named networks only."
  type = object({
    certificate_arn    = optional(string)
    domain             = optional(string)
    client_cidrs       = optional(map(string))
    access_logs_bucket = optional(string)
  })
  default = {}
}

variable "leaf_cidrs" {
  description = "Networks by name that NATS leaf nodes may connect from."
  type        = map(string)
  default     = {}
}

variable "manifests_folder" {
  description = "Folder of the manifests; that of this repository if absent."
  type        = string
  default     = null
}
