# A row of the table is an alarm for every service.

locals {
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
  }

  # A service that is not deployed has no metrics, which is no alarm. The topic is notified when the metrics of running tasks stop.
  alarms = merge([
    for name, service in var.services : {
      for kind, alarm in local.service_alarms : "${var.name}-${name}-${kind}" => merge(alarm, {
        kind                     = "service-${kind}"
        description              = "${name}: ${format(alarm.description, service.thresholds[alarm.threshold])}"
        metric                   = merge(alarm.metric, { dimensions = { ClusterName = var.cluster, ServiceName = service.ecs_name } })
        threshold                = service.thresholds[alarm.threshold]
        notify_insufficient_data = kind == "tasks"
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
