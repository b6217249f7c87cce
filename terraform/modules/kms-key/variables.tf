variable "description" {
  description = "What is encrypted with the key."
  type        = string
}

variable "alias" {
  description = "The key's alias, without `alias/`."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9/_-]{1,250}$", var.alias)) && !startswith(var.alias, "aws/")
    error_message = "An alias has up to 250 letters, digits, `/`, `_` and `-`, and does not begin with `aws/`."
  }
}

variable "log_groups" {
  description = "Names of the log groups that CloudWatch Logs encrypts with the key."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for name in var.log_groups : can(regex("^[A-Za-z0-9/_.#-]{1,512}$", name))])
    error_message = "A log group's name has up to 512 letters, digits, `/`, `_`, `.`, `#` and `-`: no wildcards."
  }
}

variable "publishers" {
  description = "AWS services that publish to encrypted topics on behalf of this account, for example `cloudwatch.amazonaws.com`."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for service in var.publishers : can(regex("^[a-z0-9-]+\\.amazonaws\\.com$", service))])
    error_message = "A service principal is `<service>.amazonaws.com`."
  }
}

variable "deletion_window_days" {
  description = "How long a deleted key can be restored."
  type        = number
  default     = 30

  validation {
    condition     = var.deletion_window_days >= 7 && var.deletion_window_days <= 30 && floor(var.deletion_window_days) == var.deletion_window_days
    error_message = "A whole number of days from 7 to 30."
  }
}
