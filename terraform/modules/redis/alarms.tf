# A row of the table is an alarm for every node.

locals {
  node_alarms = merge(
    {
      redis-cpu = {
        description = "CPU of the engine is above 80 % for 10 minutes"
        metric      = { name = "EngineCPUUtilization", statistic = "Average", period_seconds = 300 }
        threshold   = 80
        periods     = 2
      }
      redis-memory = {
        description = "memory is above 80 % for 10 minutes"
        metric      = { name = "DatabaseMemoryUsagePercentage", statistic = "Maximum", period_seconds = 300 }
        threshold   = 80
        periods     = 2
      }
      redis-evictions = {
        description = "more than 100 keys are evicted in 5 minutes, for 15 minutes"
        metric      = { name = "Evictions", statistic = "Sum", period_seconds = 300 }
        threshold   = 100
        periods     = 3
      }
      redis-auth-failures = {
        description = "clients are refused, for 10 minutes"
        metric      = { name = "AuthenticationFailures", statistic = "Sum", period_seconds = 300 }
        threshold   = 0
        periods     = 2
      }
    },
    var.replicas == 0 ? {} : {
      redis-replication-lag = {
        description = "a replica is more than 5 seconds behind, for 3 minutes"
        metric      = { name = "ReplicationLag", statistic = "Maximum", period_seconds = 60 }
        threshold   = 5
        periods     = 3
      }
    },
  )

  # ElastiCache names the nodes after cluster, shard and number.
  nodes = [
    for pair in setproduct(range(1, var.shards + 1), range(1, var.replicas + 2)) : format("%s-%04d-%03d", var.name, pair...)
  ]

  alarms = merge([
    for node in local.nodes : {
      for kind, alarm in local.node_alarms : "${node}-${kind}" => merge(alarm, {
        kind        = kind
        description = "${node}: ${alarm.description}"
        metric      = merge(alarm.metric, { namespace = "AWS/ElastiCache", dimensions = { CacheClusterId = node } })
        tags        = { node = node }
      })
    }
  ]...)
}

module "alarms" {
  source = "../alarms"

  alerting = var.alerting
  alarms = merge(local.alarms, {
    (local.rotation) = {
      kind        = "redis-rotation"
      description = "Redis: the services' password could not be changed"
      metric = {
        namespace      = "AWS/Lambda"
        name           = "Errors"
        statistic      = "Sum"
        period_seconds = 300
        dimensions     = { FunctionName = aws_lambda_function.rotation.function_name }
      }
      threshold    = 0
      periods      = 1
      missing_data = "notBreaching"
    }
  })
}
