# One table times the nodes gives their alarms: a new row is an alarm for all of them.

locals {
  kinds = merge(
    {
      redis-cpu = {
        metric    = { name = "EngineCPUUtilization", statistic = "Average" }
        threshold = 80
        lasting   = { periods = 2, period_seconds = 300 }
        says      = "the engine's CPU is above 80 % for 10 minutes"
      }
      redis-memory = {
        metric    = { name = "DatabaseMemoryUsagePercentage", statistic = "Maximum" }
        threshold = 80
        lasting   = { periods = 2, period_seconds = 300 }
        says      = "memory is above 80 % for 10 minutes"
      }
      redis-evictions = {
        metric    = { name = "Evictions", statistic = "Sum" }
        threshold = 100
        lasting   = { periods = 3, period_seconds = 300 }
        says      = "more than 100 keys are evicted in 5 minutes, for 15 minutes"
      }
      redis-auth-failures = {
        metric    = { name = "AuthenticationFailures", statistic = "Sum" }
        threshold = 0
        lasting   = { periods = 2, period_seconds = 300 }
        says      = "clients are refused, for 10 minutes"
      }
    },
    var.replicas == 0 ? {} : {
      redis-replication-lag = {
        metric    = { name = "ReplicationLag", statistic = "Maximum" }
        threshold = 5
        lasting   = { periods = 3, period_seconds = 60 }
        says      = "a replica is more than 5 seconds behind, for 3 minutes"
      }
    },
  )

  # ElastiCache calls the nodes by cluster, shard and number.
  nodes = [
    for pair in setproduct(range(1, var.shards + 1), range(1, var.replicas + 2)) : format("%s-%04d-%03d", var.name, pair...)
  ]

  alarms = merge([
    for node in local.nodes : {
      for kind, alarm in local.kinds : "${node}-${kind}" => merge(alarm, { node = node, kind = kind })
    }
  ]...)

  runbooks = coalesce(var.runbooks_folder, "${path.module}/../../../docs/runbooks")
}

resource "aws_cloudwatch_metric_alarm" "node" {
  for_each = local.alarms

  alarm_name          = each.key
  alarm_description   = "${each.value.node}: ${each.value.says}. Runbook: ${var.runbook_url}/${each.value.kind}.md"
  namespace           = "AWS/ElastiCache"
  metric_name         = each.value.metric.name
  statistic           = each.value.metric.statistic
  dimensions          = { CacheClusterId = each.value.node }
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  period              = each.value.lasting.period_seconds
  evaluation_periods  = each.value.lasting.periods
  treat_missing_data  = "missing"
  alarm_actions       = [var.alerts_topic_arn]
  ok_actions          = [var.alerts_topic_arn]
  tags                = { node = each.value.node, kind = each.value.kind }

  lifecycle {
    precondition {
      condition     = fileexists("${local.runbooks}/${each.value.kind}.md")
      error_message = "An alarm needs a runbook: write docs/runbooks/${each.value.kind}.md."
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "rotation" {
  alarm_name          = "${var.name}-redis-rotation"
  alarm_description   = "Redis: the services' password could not be changed. Runbook: ${var.runbook_url}/redis-rotation.md"
  namespace           = "AWS/Lambda"
  metric_name         = "Errors"
  statistic           = "Sum"
  dimensions          = { FunctionName = aws_lambda_function.rotation.function_name }
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 300
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.alerts_topic_arn]
  ok_actions          = [var.alerts_topic_arn]
  tags                = { kind = "redis-rotation" }

  lifecycle {
    precondition {
      condition     = fileexists("${local.runbooks}/redis-rotation.md")
      error_message = "An alarm needs a runbook: write docs/runbooks/redis-rotation.md."
    }
  }
}
