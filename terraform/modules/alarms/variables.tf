variable "alerting" {
  description = "The SNS topic that alarms notify, and the URL of the runbooks they link to; module `alerts` has both."
  type        = object({ topic_arn = string, runbook_url = string })
}

variable "alarms" {
  description = "The alarms by name. `kind` is the name of the runbook. An alarm watches the metric `metric.name`, or the `formula` of `expression` over several `metrics`, which are names by id."
  type = map(object({
    kind        = string
    description = string
    metric = object({
      namespace      = string
      name           = optional(string)
      statistic      = string
      dimensions     = map(string)
      period_seconds = number
    })
    expression               = optional(object({ label = string, formula = string, metrics = map(string) }))
    comparison               = optional(string, "GreaterThanThreshold")
    threshold                = number
    periods                  = number
    missing_data             = optional(string, "missing")
    notify_insufficient_data = optional(bool, false)
    tags                     = optional(map(string), {})
  }))

  validation {
    condition     = alltrue([for alarm in values(var.alarms) : (alarm.metric.name == null) != (alarm.expression == null)])
    error_message = "An alarm has either `metric.name` or `expression`."
  }

  validation {
    condition     = alltrue([for alarm in values(var.alarms) : contains(["GreaterThanThreshold", "LessThanThreshold"], alarm.comparison)])
    error_message = "`comparison` is one of `GreaterThanThreshold` and `LessThanThreshold`."
  }

  validation {
    condition     = alltrue([for alarm in values(var.alarms) : contains(["breaching", "ignore", "missing", "notBreaching"], alarm.missing_data)])
    error_message = "`missing_data` is one of `breaching`, `ignore`, `missing` and `notBreaching`."
  }
}

variable "runbooks_folder" {
  description = "Folder of the runbooks; docs/runbooks of this repository if absent."
  type        = string
  default     = null
}
