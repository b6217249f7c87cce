# One table times the services gives every alarm: a new row is an alarm for all of them.

locals {
  kinds = {
    cpu = {
      metric     = { namespace = "AWS/ECS", name = "CPUUtilization", statistic = "Average" }
      comparison = "GreaterThanThreshold"
      threshold  = "cpu_percent"
      lasting    = { periods = 2, period_seconds = 300 }
      says       = "CPU above %d %% for 10 minutes"
    }
    memory = {
      metric     = { namespace = "AWS/ECS", name = "MemoryUtilization", statistic = "Average" }
      comparison = "GreaterThanThreshold"
      threshold  = "memory_percent"
      lasting    = { periods = 2, period_seconds = 300 }
      says       = "memory above %d %% for 10 minutes"
    }
    tasks = {
      metric     = { namespace = "ECS/ContainerInsights", name = "RunningTaskCount", statistic = "Minimum" }
      comparison = "LessThanThreshold"
      threshold  = "tasks"
      lasting    = { periods = 3, period_seconds = 60 }
      says       = "fewer than %d tasks run, for 3 minutes"
    }
  }

  alarms = merge([
    for name, service in var.services : {
      for kind, alarm in local.kinds : "${name}-${kind}" => merge(alarm, {
        kind      = kind
        service   = name
        ecs_name  = service.ecs_name
        threshold = service.thresholds[alarm.threshold]
      })
    }
  ]...)

  runbooks = coalesce(var.runbooks_folder, "${path.module}/../../../docs/runbooks")
}

# No figures: there is no such service (yet, or any more). That is no alarm; somebody is told when figures cease.
resource "aws_cloudwatch_metric_alarm" "service" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "${each.value.service}: ${format(each.value.says, each.value.threshold)}. Runbook: ${var.runbook_url}/service-${each.value.kind}.md"
  namespace           = each.value.metric.namespace
  metric_name         = each.value.metric.name
  statistic           = each.value.metric.statistic
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  period              = each.value.lasting.period_seconds
  evaluation_periods  = each.value.lasting.periods
  treat_missing_data  = "missing"
  dimensions          = { ClusterName = var.cluster, ServiceName = each.value.ecs_name }

  alarm_actions             = [var.alerts_topic_arn]
  ok_actions                = [var.alerts_topic_arn]
  insufficient_data_actions = each.value.kind == "tasks" ? [var.alerts_topic_arn] : []
  tags                      = { service = each.value.service, kind = "service-${each.value.kind}" }

  lifecycle {
    precondition {
      condition     = fileexists("${local.runbooks}/service-${each.value.kind}.md")
      error_message = "An alarm needs a runbook: write docs/runbooks/service-${each.value.kind}.md."
    }
  }
}
