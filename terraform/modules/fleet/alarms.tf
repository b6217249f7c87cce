# A row of the table is an alarm for every service.

locals {
  # Metrics that are made of the logs.
  metrics_namespace = "${var.name}/services"

  service_alarms = {
    cpu = {
      description = "CPU above %d %% for 10 minutes"
      metric      = { namespace = "AWS/ECS", name = "CPUUtilization", statistic = "Average", period_seconds = 300 }
      comparison  = "GreaterThanThreshold"
      threshold   = "cpu_percent"
      periods     = 2
    }
    memory = {
      description = "memory above %d %% for 10 minutes"
      metric      = { namespace = "AWS/ECS", name = "MemoryUtilization", statistic = "Average", period_seconds = 300 }
      comparison  = "GreaterThanThreshold"
      threshold   = "memory_percent"
      periods     = 2
    }
    tasks = {
      description = "fewer than %d tasks run, for 3 minutes"
      metric      = { namespace = "ECS/ContainerInsights", name = "RunningTaskCount", statistic = "Minimum", period_seconds = 60 }
      comparison  = "LessThanThreshold"
      threshold   = "tasks"
      periods     = 3
    }
    # Workers log for how long a circuit has been open, when it opens and then about every minute while calls are tried.
    circuit = {
      description  = "calls to another service are rejected for more than %d seconds, because it does not answer"
      metric       = { namespace = local.metrics_namespace, name = "CircuitOpenSeconds", statistic = "Maximum", period_seconds = 120 }
      comparison   = "GreaterThanThreshold"
      threshold    = "circuit_seconds"
      periods      = 1
      missing_data = "notBreaching"
    }
    # Workers log each event that they could not handle and stored as a dead letter.
    dead-letters = {
      description  = "more than %d events could not be handled within 5 minutes and are dead letters"
      metric       = { namespace = local.metrics_namespace, name = "DeadLetters", statistic = "Sum", period_seconds = 300 }
      comparison   = "GreaterThanThreshold"
      threshold    = "dead_letters"
      periods      = 1
      missing_data = "notBreaching"
    }
  }

  # What the metrics of the logs are made of: by kind of alarm the number in a line.
  log_metrics = {
    circuit      = { filter = "circuits", field = "$.open_seconds", least = 0, unit = "Seconds" }
    dead-letters = { filter = "dead-letters", field = "$.dead_letters", least = 1, unit = "Count" }
  }

  # By service. A deployment is not judged by what is made of the logs: rolling back the caller does not bring back what it calls, and the
  # event that cannot be handled may be older than the deployment.
  thresholds = { for name, service in var.services : name => merge(service.thresholds, { circuit_seconds = 60, dead_letters = 0 }) }

  dimensions = {
    ecs = { for name, service in var.services : name => { ClusterName = var.cluster, ServiceName = service.ecs_name } }
    log = { for name, service in var.services : name => { Service = name } }
  }

  # A service that is not deployed has no metrics, which is no alarm. The topic is notified when the metrics of running tasks stop, but
  # not of a service that is to have no tasks.
  alarms = merge([
    for name, service in var.services : {
      for kind, alarm in local.service_alarms : "${var.name}-${name}-${kind}" => merge(alarm, {
        kind                     = "service-${kind}"
        description              = "${name}: ${format(alarm.description, local.thresholds[name][alarm.threshold])}"
        metric                   = merge(alarm.metric, { dimensions = local.dimensions[contains(keys(local.log_metrics), kind) ? "log" : "ecs"][name] })
        threshold                = local.thresholds[name][alarm.threshold]
        notify_insufficient_data = kind == "tasks" && service.thresholds.tasks > 0
        tags                     = { service = name }
      })
    }
  ]...)
}

module "alarms" {
  source = "../alarms"

  alerting = var.alerting
  alarms   = local.alarms
}

# One metric of all services, by the name that a service gives itself.
resource "aws_cloudwatch_log_metric_filter" "services" {
  for_each = local.log_metrics

  name           = "${var.name}-${each.value.filter}"
  log_group_name = aws_cloudwatch_log_group.services.name
  pattern        = "{ ${each.value.field} >= ${each.value.least} }"

  metric_transformation {
    namespace  = local.metrics_namespace
    name       = local.service_alarms[each.key].metric.name
    value      = each.value.field
    unit       = each.value.unit
    dimensions = { Service = "$.service" }
  }
}

moved {
  from = aws_cloudwatch_log_metric_filter.circuits
  to   = aws_cloudwatch_log_metric_filter.services["circuit"]
}
