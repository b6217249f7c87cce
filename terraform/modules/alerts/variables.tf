variable "name" {
  description = "Name of the topic, for example `gaming-system-alerts`."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,256}$", var.name))
    error_message = "A topic's name has up to 256 letters, digits, `-` and `_`."
  }
}

variable "subscriptions" {
  description = "Who is notified, by a name of your own: `protocol` is `email` or `https`."
  type = map(object({
    protocol = string
    endpoint = string
  }))
  default = {}

  validation {
    condition     = alltrue([for subscription in values(var.subscriptions) : contains(["email", "https"], subscription.protocol)])
    error_message = "`protocol` is one of `email` and `https`."
  }

  validation {
    condition = alltrue([
      for subscription in values(var.subscriptions) : can(regex(
        subscription.protocol == "https" ? "^https://[^/@]+(/|$)" : "^[^@[:space:]]+@[^@[:space:]]+\\.[^@[:space:]]+$", subscription.endpoint
      ))
    ])
    error_message = "`endpoint` is an address such as `oncall@example.com` for `email`, and begins with `https://` and has no credentials for `https`."
  }
}

variable "runbook_url" {
  description = "URL of the runbooks; alarms add `/<kind>.md`."
  type        = string

  validation {
    condition     = can(regex("^https://.*[^/]$", var.runbook_url))
    error_message = "A URL that begins with `https://` and does not end with `/`."
  }
}
