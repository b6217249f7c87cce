module "alarms" {
  source = "../alarms"

  alerting = var.alerting
  alarms = {
    # Responses of the gateway and of the load balancer itself. Below one request per second, single failures do not count.
    "${var.name}-5xx" = {
      kind        = "gateway-5xx"
      description = "gateway: more than ${var.error_percent} % of the responses are 5xx, for 5 minutes"
      metric = {
        namespace      = "AWS/ApplicationELB"
        statistic      = "Sum"
        period_seconds = 60
        dimensions     = { LoadBalancer = aws_lb.this.arn_suffix }
      }
      expression = {
        label   = "5xx, %"
        formula = "IF(requests > 60, 100 * (FILL(targets, 0) + FILL(balancer, 0)) / requests, 0)"
        metrics = { requests = "RequestCount", targets = "HTTPCode_Target_5XX_Count", balancer = "HTTPCode_ELB_5XX_Count" }
      }
      threshold    = var.error_percent
      periods      = 5
      missing_data = "notBreaching"
    }

    "${var.name}-unhealthy-targets" = {
      kind        = "gateway-unhealthy-targets"
      description = "gateway: tasks do not pass the load balancer's health check, for 3 minutes"
      metric = {
        namespace      = "AWS/ApplicationELB"
        name           = "UnHealthyHostCount"
        statistic      = "Maximum"
        period_seconds = 60
        dimensions     = { LoadBalancer = aws_lb.this.arn_suffix, TargetGroup = aws_lb_target_group.this.arn_suffix }
      }
      threshold    = 0
      periods      = 3
      missing_data = "notBreaching"
    }
  }
}
