# A row of the table is an alarm for every node.

locals {
  node_alarms = {
    status-check = {
      description  = "the instance fails its status checks, or is gone"
      metric       = { namespace = "AWS/EC2", name = "StatusCheckFailed", statistic = "Maximum", period_seconds = 60, dimensions = "instance" }
      threshold    = 0
      periods      = 2
      missing_data = "breaching"
    }
    cpu = {
      description  = "CPU above 80 % for 10 minutes"
      metric       = { namespace = "AWS/EC2", name = "CPUUtilization", statistic = "Average", period_seconds = 300, dimensions = "instance" }
      threshold    = 80
      periods      = 2
      missing_data = "missing"
    }
    memory = {
      description  = "memory above 85 % for 10 minutes"
      metric       = { namespace = local.metrics_namespace, name = "mem_used_percent", statistic = "Average", period_seconds = 300, dimensions = "node" }
      threshold    = 85
      periods      = 2
      missing_data = "missing"
    }
    disk = {
      description  = "the data volume is more than 70 % full, or not mounted, for 15 minutes"
      metric       = { namespace = local.metrics_namespace, name = "disk_used_percent", statistic = "Maximum", period_seconds = 300, dimensions = "volume" }
      threshold    = 70
      periods      = 3
      missing_data = "breaching"
    }
  }

  dimensions = { for node in keys(local.nodes) : node => {
    instance = { InstanceId = aws_instance.node[node].id }
    node     = { node = node }
    volume   = { node = node, path = "/var/lib/nats", fstype = "xfs" }
  } }

  alarms = merge([
    for node in keys(local.nodes) : {
      for kind, alarm in local.node_alarms : "${var.name}-${node}-${kind}" => merge(alarm, {
        kind        = "nats-${kind}"
        description = "${node}: ${alarm.description}"
        metric      = merge(alarm.metric, { dimensions = local.dimensions[node][alarm.metric.dimensions] })
        tags        = { node = node }
      })
    }
  ]...)
}

module "alarms" {
  source = "../alarms"

  alerting = var.alerting
  alarms = merge(local.alarms, {
    # A node that runs does not always serve clients: the load balancer's health check shows it.
    "${var.name}-nats-unhealthy-targets" = {
      kind        = "nats-unhealthy-targets"
      description = "NATS: a node does not pass the load balancer's health check for 3 minutes"
      metric = {
        namespace      = "AWS/NetworkELB"
        name           = "UnHealthyHostCount"
        statistic      = "Maximum"
        period_seconds = 60
        dimensions     = { LoadBalancer = aws_lb.this.arn_suffix, TargetGroup = aws_lb_target_group.clients.arn_suffix }
      }
      threshold    = 0
      periods      = 3
      missing_data = "notBreaching"
    }
  })
}
