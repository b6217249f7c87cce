# A search by cluster includes new services, so the widgets do not grow with them.

locals {
  searched = {
    cpu    = { title = "CPU, %", search = "{AWS/ECS,ClusterName,ServiceName} MetricName=\"CPUUtilization\"", statistic = "Average", period = 300 }
    memory = { title = "Memory, %", search = "{AWS/ECS,ClusterName,ServiceName} MetricName=\"MemoryUtilization\"", statistic = "Average", period = 300 }
    tasks  = { title = "Running tasks", search = "{ECS/ContainerInsights,ClusterName,ServiceName} MetricName=\"RunningTaskCount\"", statistic = "Minimum", period = 60 }
    desired = {
      title = "Desired tasks", search = "{ECS/ContainerInsights,ClusterName,ServiceName} MetricName=\"DesiredTaskCount\"", statistic = "Maximum", period = 60
    }
  }

  # A widget shows 100 alarms.
  alarm_arns = chunklist(values(module.alarms.arns), 100)

  fleet_widgets = concat(
    [
      for index, arns in local.alarm_arns : {
        type       = "alarm", x = 0, y = index * 6, width = 24, height = 6
        properties = { title = index == 0 ? "Alarms" : "Alarms (${index + 1})", alarms = arns, sortBy = "stateUpdatedTimestamp" }
      }
    ],
    [
      for index, name in ["cpu", "memory", "tasks", "desired"] : {
        type = "metric", width = 12, height = 8
        x    = index % 2 * 12
        y    = length(local.alarm_arns) * 6 + floor(index / 2) * 8
        properties = {
          title  = local.searched[name].title
          region = local.region
          view   = "timeSeries"
          metrics = [[{
            expression = "SEARCH('${local.searched[name].search} ClusterName=\"${var.cluster}\"', '${local.searched[name].statistic}', ${local.searched[name].period})"
            label      = ""
          }]]
        }
      }
    ],
    [{
      type = "log", width = 24, height = 8, x = 0, y = length(local.alarm_arns) * 6 + 16
      properties = {
        title  = "Errors in the logs"
        region = local.region
        view   = "table"
        query  = "SOURCE '${var.log_group}' | fields @timestamp, @logStream, message | filter level = 'ERROR' | sort @timestamp desc | limit 50"
      }
    }],
  )

  target_group = element(split(":", var.nats.target_group_arn), 5)

  # Metrics of each instance; and searches for those of the load balancer and of the CloudWatch agents.
  nats_metrics = {
    "CPU, %"                     = { name = "CPUUtilization", statistic = "Maximum" }
    "Failed status checks"       = { name = "StatusCheckFailed", statistic = "Maximum" }
    "Network in, bytes/minute"   = { name = "NetworkIn", statistic = "Sum" }
    "Network out, bytes/minute"  = { name = "NetworkOut", statistic = "Sum" }
    "Written to EBS, bytes/min." = { name = "EBSWriteBytes", statistic = "Sum" }
    "Read from EBS, bytes/min."  = { name = "EBSReadBytes", statistic = "Sum" }
  }
  nats_searched = {
    "Disk used, %"      = { search = "{\"${var.nats.metrics_namespace}\",node,path,fstype} MetricName=\"disk_used_percent\"", statistic = "Maximum" }
    "Memory used, %"    = { search = "{\"${var.nats.metrics_namespace}\",node} MetricName=\"mem_used_percent\"", statistic = "Maximum" }
    "Healthy targets"   = { search = "${local.balancer} MetricName=\"HealthyHostCount\"", statistic = "Minimum" }
    "Unhealthy targets" = { search = "${local.balancer} MetricName=\"UnHealthyHostCount\"", statistic = "Maximum" }
  }
  balancer = "{AWS/NetworkELB,LoadBalancer,TargetGroup} TargetGroup=\"${local.target_group}\""

  nats_panels = concat(
    [for title, metric in local.nats_metrics : {
      title = title
      metrics = [
        for node, instance in var.nats.instances :
        jsonencode(["AWS/EC2", metric.name, "InstanceId", instance, { label = node, stat = metric.statistic, period = 60 }])
      ]
    }],
    [for title, metric in local.nats_searched : {
      title   = title
      metrics = [jsonencode([{ expression = "SEARCH('${metric.search}', '${metric.statistic}', 60)", label = "" }])]
    }],
  )

  nats_widgets = [for index, panel in local.nats_panels : {
    type = "metric", width = 12, height = 6, x = index % 2 * 12, y = floor(index / 2) * 6
    properties = {
      title   = panel.title
      region  = local.region
      view    = "timeSeries"
      metrics = [for metric in panel.metrics : jsondecode(metric)]
    }
  }]
}

resource "aws_cloudwatch_dashboard" "fleet" {
  dashboard_name = "${var.name}-fleet"
  dashboard_body = jsonencode({ widgets = local.fleet_widgets })
}

resource "aws_cloudwatch_dashboard" "nats" {
  dashboard_name = "${var.name}-nats"
  dashboard_body = jsonencode({ widgets = local.nats_widgets })
}
