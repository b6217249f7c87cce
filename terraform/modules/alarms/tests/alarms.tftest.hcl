mock_provider "aws" {
  override_during = plan
}

variables {
  alerting = { topic_arn = "arn:aws:sns:us-east-1:123456789012:arcade-alerts", runbook_url = "https://example.com/runbooks" }
  alarms = {
    arcade-auth-tasks = {
      kind                     = "service-tasks"
      description              = "auth: fewer than 2 tasks run, for 3 minutes"
      metric                   = { namespace = "ECS/ContainerInsights", name = "RunningTaskCount", statistic = "Minimum", dimensions = { ServiceName = "auth" }, period_seconds = 60 }
      comparison               = "LessThanThreshold"
      threshold                = 2
      periods                  = 3
      notify_insufficient_data = true
      tags                     = { service = "auth" }
    }
    arcade-gw-5xx = {
      kind         = "gateway-5xx"
      description  = "gateway: more than 1 % of the responses are 5xx, for 5 minutes"
      metric       = { namespace = "AWS/ApplicationELB", statistic = "Sum", dimensions = { LoadBalancer = "app/gw/1" }, period_seconds = 60 }
      expression   = { label = "5xx, %", formula = "100 * errors / requests", metrics = { errors = "HTTPCode_Target_5XX_Count", requests = "RequestCount" } }
      threshold    = 1
      periods      = 5
      missing_data = "notBreaching"
    }
  }
}

run "an_alarm_notifies_the_topic_when_it_fires_and_when_it_is_resolved" {
  command = plan

  assert {
    condition = alltrue([
      for alarm in aws_cloudwatch_metric_alarm.this :
      alarm.alarm_actions == toset([var.alerting.topic_arn]) && alarm.ok_actions == toset([var.alerting.topic_arn])
    ])
    error_message = "An alarm does not notify the topic."
  }

  assert {
    condition = (
      aws_cloudwatch_metric_alarm.this["arcade-auth-tasks"].insufficient_data_actions == toset([var.alerting.topic_arn])
      && length(aws_cloudwatch_metric_alarm.this["arcade-gw-5xx"].insufficient_data_actions) == 0
    )
    error_message = "Missing data notifies for other alarms than those that ask for it."
  }
}

run "an_alarm_links_to_its_runbook" {
  command = plan

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["arcade-auth-tasks"].alarm_description == "auth: fewer than 2 tasks run, for 3 minutes. Runbook: https://example.com/runbooks/service-tasks.md"
    error_message = "The description does not end with the runbook's URL."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["arcade-auth-tasks"].tags == tomap({ kind = "service-tasks", service = "auth" })
    error_message = "The kind is missing among the tags."
  }
}

run "an_alarm_watches_one_metric" {
  command = plan

  assert {
    condition = (
      aws_cloudwatch_metric_alarm.this["arcade-auth-tasks"].namespace == "ECS/ContainerInsights"
      && aws_cloudwatch_metric_alarm.this["arcade-auth-tasks"].metric_name == "RunningTaskCount"
      && aws_cloudwatch_metric_alarm.this["arcade-auth-tasks"].statistic == "Minimum"
      && aws_cloudwatch_metric_alarm.this["arcade-auth-tasks"].dimensions == tomap({ ServiceName = "auth" })
      && aws_cloudwatch_metric_alarm.this["arcade-auth-tasks"].comparison_operator == "LessThanThreshold"
      && aws_cloudwatch_metric_alarm.this["arcade-auth-tasks"].threshold == 2
      && aws_cloudwatch_metric_alarm.this["arcade-auth-tasks"].evaluation_periods == 3
      && aws_cloudwatch_metric_alarm.this["arcade-auth-tasks"].period == 60
      && aws_cloudwatch_metric_alarm.this["arcade-auth-tasks"].treat_missing_data == "missing"
      && length(aws_cloudwatch_metric_alarm.this["arcade-auth-tasks"].metric_query) == 0
    )
    error_message = "The alarm watches something else."
  }
}

run "an_alarm_watches_an_expression_over_several_metrics" {
  command = plan

  assert {
    condition = { for query in aws_cloudwatch_metric_alarm.this["arcade-gw-5xx"].metric_query : query.id => coalesce(query.expression, try(join(" ", [query.metric[0].namespace, query.metric[0].metric_name, query.metric[0].stat, query.metric[0].period, query.metric[0].dimensions.LoadBalancer]), "-")) } == {
      value    = "100 * errors / requests"
      errors   = "AWS/ApplicationELB HTTPCode_Target_5XX_Count Sum 60 app/gw/1"
      requests = "AWS/ApplicationELB RequestCount Sum 60 app/gw/1"
    }
    error_message = "The expression is over other metrics."
  }

  assert {
    condition     = [for query in aws_cloudwatch_metric_alarm.this["arcade-gw-5xx"].metric_query : query.id if query.return_data == true] == ["value"]
    error_message = "The alarm does not watch the expression."
  }
}

run "names_are_grouped_by_kind" {
  command = plan

  assert {
    condition     = output.names == { gateway-5xx = ["arcade-gw-5xx"], service-tasks = ["arcade-auth-tasks"] }
    error_message = "The names are not those of the alarms."
  }

  assert {
    condition     = keys(output.arns) == ["arcade-auth-tasks", "arcade-gw-5xx"]
    error_message = "There are ARNs of other alarms."
  }
}

run "an_alarm_without_a_runbook_is_refused" {
  command = plan

  variables {
    runbooks_folder = "tests"
  }

  expect_failures = [aws_cloudwatch_metric_alarm.this]
}

run "an_alarm_that_watches_nothing_is_refused" {
  command = plan

  variables {
    alarms = { nothing = {
      kind        = "service-tasks"
      description = "nothing"
      metric      = { namespace = "AWS/ECS", statistic = "Sum", dimensions = {}, period_seconds = 60 }
      threshold   = 1
      periods     = 1
    } }
  }

  expect_failures = [var.alarms]
}

run "an_unknown_comparison_is_refused" {
  command = plan

  variables {
    alarms = { odd = {
      kind        = "service-tasks"
      description = "odd"
      metric      = { namespace = "AWS/ECS", name = "CPUUtilization", statistic = "Sum", dimensions = {}, period_seconds = 60 }
      comparison  = "EqualToThreshold"
      threshold   = 1
      periods     = 1
    } }
  }

  expect_failures = [var.alarms]
}

run "an_unknown_treatment_of_missing_data_is_refused" {
  command = plan

  variables {
    alarms = { odd = {
      kind         = "service-tasks"
      description  = "odd"
      metric       = { namespace = "AWS/ECS", name = "CPUUtilization", statistic = "Sum", dimensions = {}, period_seconds = 60 }
      threshold    = 1
      periods      = 1
      missing_data = "fine"
    } }
  }

  expect_failures = [var.alarms]
}
