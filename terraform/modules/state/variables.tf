variable "bucket" {
  description = "Name of the bucket. Names are unique among all AWS accounts, so add something of your own."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "A bucket's name has 3 to 63 lower-case letters, digits and `-`, and begins and ends with a letter or digit."
  }
}

variable "kept_days" {
  description = "How long replaced states are kept. The ten newest of them are kept regardless of their age."
  type        = number
  default     = 365

  validation {
    condition     = var.kept_days >= 30 && var.kept_days <= 3650 && floor(var.kept_days) == var.kept_days
    error_message = "A whole number of days from 30 to 3650."
  }
}
