# One table times the nodes gives their alarms: a new row is an alarm for all of them.

locals {
  kinds = {
    nats-status-check = {
      metric    = { namespace = "AWS/EC2", name = "StatusCheckFailed", statistic = "Maximum", dimensions = "machine" }
      threshold = 0
      lasting   = { periods = 2, period_seconds = 60 }
      missing   = "breaching"
      says      = "the machine fails its status checks, or is gone"
    }
    nats-cpu = {
      metric    = { namespace = "AWS/EC2", name = "CPUUtilization", statistic = "Average", dimensions = "machine" }
      threshold = 80
      lasting   = { periods = 2, period_seconds = 300 }
      missing   = "missing"
      says      = "CPU above 80 % for 10 minutes"
    }
    nats-memory = {
      metric    = { namespace = local.metrics_namespace, name = "mem_used_percent", statistic = "Average", dimensions = "node" }
      threshold = 85
      lasting   = { periods = 2, period_seconds = 300 }
      missing   = "missing"
      says      = "memory above 85 % for 10 minutes"
    }
    nats-disk = {
      metric    = { namespace = local.metrics_namespace, name = "disk_used_percent", statistic = "Maximum", dimensions = "volume" }
      threshold = 70
      lasting   = { periods = 3, period_seconds = 300 }
      missing   = "breaching"
      says      = "the data volume is more than 70 % full, or not mounted, for 15 minutes"
    }
  }

  alarms = merge([
    for node in keys(local.nodes) : {
      for kind, alarm in local.kinds : "${node}-${trimprefix(kind, "nats-")}" => merge(alarm, { node = node, kind = kind })
    }
  ]...)

  dimensions = { for node in keys(local.nodes) : node => {
    machine = { InstanceId = aws_instance.node[node].id }
    node    = { node = node }
    volume  = { node = node, path = "/var/lib/nats", fstype = "xfs" }
  } }

  runbooks = coalesce(var.runbooks_folder, "${path.module}/../../../docs/runbooks")
}

resource "aws_cloudwatch_metric_alarm" "node" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "${each.value.node}: ${each.value.says}. Runbook: ${var.runbook_url}/${each.value.kind}.md"
  namespace           = each.value.metric.namespace
  metric_name         = each.value.metric.name
  statistic           = each.value.metric.statistic
  dimensions          = local.dimensions[each.value.node][each.value.metric.dimensions]
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  period              = each.value.lasting.period_seconds
  evaluation_periods  = each.value.lasting.periods
  treat_missing_data  = each.value.missing
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

# What the load balancer sees: a node that runs may still not serve.
resource "aws_cloudwatch_metric_alarm" "unhealthy_targets" {
  alarm_name          = "${var.name}-nats-unhealthy-targets"
  alarm_description   = "NATS: a node does not pass the load balancer's health check for 3 minutes. Runbook: ${var.runbook_url}/nats-unhealthy-targets.md"
  namespace           = "AWS/NetworkELB"
  metric_name         = "UnHealthyHostCount"
  statistic           = "Maximum"
  dimensions          = { LoadBalancer = aws_lb.this.arn_suffix, TargetGroup = aws_lb_target_group.clients.arn_suffix }
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 60
  evaluation_periods  = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.alerts_topic_arn]
  ok_actions          = [var.alerts_topic_arn]
  tags                = { kind = "nats-unhealthy-targets" }

  lifecycle {
    precondition {
      condition     = fileexists("${local.runbooks}/nats-unhealthy-targets.md")
      error_message = "An alarm needs a runbook: write docs/runbooks/nats-unhealthy-targets.md."
    }
  }
}
