# CloudWatch alarms that notify one SNS topic when they fire and when they are resolved. Each links to its runbook.

locals {
  runbooks = coalesce(var.runbooks_folder, "${path.module}/../../../docs/runbooks")
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = var.alarms

  alarm_name          = each.key
  alarm_description   = "${each.value.description}. Runbook: ${var.alerting.runbook_url}/${each.value.kind}.md"
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  evaluation_periods  = each.value.periods
  treat_missing_data  = each.value.missing_data
  tags                = merge(each.value.tags, { kind = each.value.kind })

  alarm_actions             = [var.alerting.topic_arn]
  ok_actions                = [var.alerting.topic_arn]
  insufficient_data_actions = each.value.notify_insufficient_data ? [var.alerting.topic_arn] : []

  # CloudWatch takes these four here for a single metric, and in `metric_query` for an expression.
  namespace   = each.value.expression == null ? each.value.metric.namespace : null
  metric_name = each.value.metric.name
  statistic   = each.value.expression == null ? each.value.metric.statistic : null
  period      = each.value.expression == null ? each.value.metric.period_seconds : null
  dimensions  = each.value.expression == null ? each.value.metric.dimensions : null

  dynamic "metric_query" {
    for_each = each.value.expression[*]

    content {
      id          = "value"
      label       = metric_query.value.label
      expression  = metric_query.value.formula
      return_data = true
    }
  }

  dynamic "metric_query" {
    for_each = try(each.value.expression.metrics, {})

    content {
      id = metric_query.key

      metric {
        namespace   = each.value.metric.namespace
        metric_name = metric_query.value
        stat        = each.value.metric.statistic
        period      = each.value.metric.period_seconds
        dimensions  = each.value.metric.dimensions
      }
    }
  }

  lifecycle {
    precondition {
      condition     = fileexists("${local.runbooks}/${each.value.kind}.md")
      error_message = "An alarm needs a runbook: write docs/runbooks/${each.value.kind}.md."
    }
  }
}
