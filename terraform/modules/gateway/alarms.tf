locals {
  runbooks = coalesce(var.runbooks_folder, "${path.module}/../../../docs/runbooks")
}

# Of all answers, whether the gateway or the load balancer gave them. Below one request per second a single failure is no alarm.
resource "aws_cloudwatch_metric_alarm" "errors" {
  alarm_name          = "${var.name}-5xx"
  alarm_description   = "gateway: more than ${var.error_percent} % of the answers are 5xx, for 5 minutes. Runbook: ${var.runbook_url}/gateway-5xx.md"
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.error_percent
  evaluation_periods  = 5
  datapoints_to_alarm = 5
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.alerts_topic_arn]
  ok_actions          = [var.alerts_topic_arn]
  tags                = { kind = "gateway-5xx" }

  metric_query {
    id          = "percent"
    label       = "5xx, %"
    expression  = "IF(requests > 60, 100 * (FILL(targets, 0) + FILL(balancer, 0)) / requests, 0)"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { requests = "RequestCount", targets = "HTTPCode_Target_5XX_Count", balancer = "HTTPCode_ELB_5XX_Count" }

    content {
      id = metric_query.key

      metric {
        namespace   = "AWS/ApplicationELB"
        metric_name = metric_query.value
        stat        = "Sum"
        period      = 60
        dimensions  = { LoadBalancer = aws_lb.this.arn_suffix }
      }
    }
  }

  lifecycle {
    precondition {
      condition     = fileexists("${local.runbooks}/gateway-5xx.md")
      error_message = "An alarm needs a runbook: write docs/runbooks/gateway-5xx.md."
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "unhealthy_targets" {
  alarm_name          = "${var.name}-unhealthy-targets"
  alarm_description   = "gateway: the load balancer finds tasks unhealthy, for 3 minutes. Runbook: ${var.runbook_url}/gateway-unhealthy-targets.md"
  namespace           = "AWS/ApplicationELB"
  metric_name         = "UnHealthyHostCount"
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 60
  evaluation_periods  = 3
  treat_missing_data  = "notBreaching"
  dimensions          = { LoadBalancer = aws_lb.this.arn_suffix, TargetGroup = aws_lb_target_group.this.arn_suffix }
  alarm_actions       = [var.alerts_topic_arn]
  ok_actions          = [var.alerts_topic_arn]
  tags                = { kind = "gateway-unhealthy-targets" }

  lifecycle {
    precondition {
      condition     = fileexists("${local.runbooks}/gateway-unhealthy-targets.md")
      error_message = "An alarm needs a runbook: write docs/runbooks/gateway-unhealthy-targets.md."
    }
  }
}
