mock_provider "aws" {
  override_during = plan

  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_region" {
    defaults = { name = "us-east-1" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:us-east-1:123456789012:key/11111111-1111-1111-1111-111111111111" }
  }
  mock_resource "aws_cloudwatch_metric_alarm" {
    defaults = { arn = "arn:aws:cloudwatch:us-east-1:123456789012:alarm:some" }
  }
}

variables {
  name    = "arcade-production"
  cluster = "arcade-cluster"
  services = {
    auth = { ecs_name = "auth-nats", thresholds = { cpu_percent = 80, memory_percent = 80, tasks = 2 } }
    payment = {
      ecs_name   = "till"
      secrets    = ["bank/key", "redis/auth"]
      thresholds = { cpu_percent = 60, memory_percent = 70, tasks = 3 }
    }
    gateway = { ecs_name = "http-nats-gateway", secrets = ["bank/key"], thresholds = { cpu_percent = 80, memory_percent = 80, tasks = 2 } }
  }
  repository_namespace = "arcade"
  secret_prefix        = "arcade/production"
  existing_secrets     = { "redis/auth" = "arn:aws:secretsmanager:us-east-1:123456789012:secret:arcade/production/redis/auth-AbCdEf" }
  log_group            = "/ecs/arcade"
  alerting             = { topic_arn = "arn:aws:sns:us-east-1:123456789012:arcade-alerts", runbook_url = "https://example.com/runbooks" }
  nats                 = { instances = { nats-1 = "i-1" }, metrics_namespace = "arcade-production/nats", target_group_arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/nats/0123456789abcdef" }
}

run "every_service_has_four_alarms" {
  command = plan

  assert {
    condition     = length(flatten(values(output.alarm_names))) == 5 * length(var.services)
    error_message = "There are more or fewer alarms than five for each service."
  }

  assert {
    condition     = { for kind, names in output.alarm_names : kind => length(names) } == { service-circuit = 3, service-cpu = 3, service-dead-letters = 3, service-memory = 3, service-tasks = 3 }
    error_message = "The alarms are of other kinds."
  }
}

run "alarms_have_the_thresholds_of_their_manifests_and_the_agreed_periods" {
  command = plan

  assert {
    condition = [
      for name in ["auth-circuit", "auth-cpu", "auth-dead-letters", "auth-memory", "auth-tasks", "payment-cpu", "payment-memory", "payment-tasks"] : join(" ", [
        local.alarms["arcade-production-${name}"].metric.name,
        local.alarms["arcade-production-${name}"].comparison,
        local.alarms["arcade-production-${name}"].threshold,
        "${local.alarms["arcade-production-${name}"].periods}x${local.alarms["arcade-production-${name}"].metric.period_seconds}s",
      ])
      ] == [
      "CircuitOpenSeconds GreaterThanThreshold 60 1x120s",
      "CPUUtilization GreaterThanThreshold 80 2x300s",
      "DeadLetters GreaterThanThreshold 0 1x300s",
      "MemoryUtilization GreaterThanThreshold 80 2x300s",
      "RunningTaskCount LessThanThreshold 2 3x60s",
      "CPUUtilization GreaterThanThreshold 60 2x300s",
      "MemoryUtilization GreaterThanThreshold 70 2x300s",
      "RunningTaskCount LessThanThreshold 3 3x60s",
    ]
    error_message = "The table of alarms has changed."
  }

  assert {
    condition     = local.alarms["arcade-production-payment-tasks"].metric.dimensions == { ClusterName = "arcade-cluster", ServiceName = "till" }
    error_message = "The alarm watches another service."
  }

  assert {
    condition     = [for name, alarm in local.alarms : name if alarm.notify_insufficient_data] == [for name in ["auth", "gateway", "payment"] : "arcade-production-${name}-tasks"]
    error_message = "The topic is not notified when the metrics of running tasks stop."
  }
}

run "alarms_watch_what_the_logs_say" {
  command = plan

  assert {
    condition = {
      for kind, filter in aws_cloudwatch_log_metric_filter.services : kind => "${filter.log_group_name} ${filter.pattern}"
      } == {
      circuit      = "/ecs/arcade { $.open_seconds >= 0 }"
      dead-letters = "/ecs/arcade { $.dead_letters >= 1 }"
    }
    error_message = "The metrics are made of other lines."
  }

  assert {
    condition = flatten([
      for filter in aws_cloudwatch_log_metric_filter.services : [
        for metric in filter.metric_transformation : "${metric.namespace} ${metric.name} ${metric.value} ${metric.dimensions.Service}"
      ]
      ]) == [
      "arcade-production/services CircuitOpenSeconds $.open_seconds $.service",
      "arcade-production/services DeadLetters $.dead_letters $.service",
    ]
    error_message = "The metrics have other names, values or dimensions."
  }

  assert {
    condition = alltrue([
      for kind in ["circuit", "dead-letters"] : alltrue([
        local.alarms["arcade-production-payment-${kind}"].metric.namespace == "arcade-production/services",
        local.alarms["arcade-production-payment-${kind}"].metric.dimensions == { Service = "payment" },
        local.alarms["arcade-production-payment-${kind}"].missing_data == "notBreaching",
        local.alarms["arcade-production-payment-${kind}"].kind == "service-${kind}",
      ])
    ])
    error_message = "The alarms watch other metrics, stay when the lines stop, or link to other runbooks."
  }
}

run "alarms_have_the_names_in_the_handover" {
  command = plan

  assert {
    condition     = contains(output.alarm_names["service-cpu"], "arcade-production-gateway-cpu")
    error_message = "The handover has other names."
  }
}

run "images_cannot_be_replaced_and_are_scanned_and_encrypted" {
  command = plan

  assert {
    condition = alltrue([
      for repository in aws_ecr_repository.service : repository.image_tag_mutability == "IMMUTABLE"
      && repository.image_scanning_configuration[0].scan_on_push
      && repository.encryption_configuration[0].encryption_type == "KMS"
      && !repository.force_delete
    ])
    error_message = "A repository is mutable, not scanned or not encrypted."
  }

  assert {
    condition     = aws_ecr_repository.service["payment"].name == "arcade/till" && aws_ecr_repository.service["natsctl"].name == "arcade/natsctl"
    error_message = "The handover has other names."
  }
}

run "each_service_has_an_identity_and_each_named_secret_exists_once" {
  command = plan

  assert {
    condition     = toset(keys(aws_secretsmanager_secret.this)) == toset(["nats/auth", "nats/payment", "nats/gateway", "nats/authority", "nats/errand", "nats/operator", "bank/key"])
    error_message = "There are other secrets than those needed."
  }

  assert {
    condition     = aws_secretsmanager_secret.this["bank/key"].name == "arcade/production/bank/key"
    error_message = "The handover has other names."
  }
}

run "tasks_do_not_start_with_the_authority_or_the_operators_identity" {
  command = plan

  assert {
    condition     = toset(keys(output.task_secrets)) == toset(["nats/auth", "nats/payment", "nats/gateway", "nats/errand", "bank/key", "redis/auth"])
    error_message = "Tasks may start with other secrets than theirs."
  }

  assert {
    condition     = output.operator_secret == "arcade/production/nats/operator"
    error_message = "The secret of natsctl has another name."
  }
}

run "logs_are_encrypted_and_kept_for_30_days" {
  command = plan

  assert {
    condition     = aws_cloudwatch_log_group.services.retention_in_days == 30 && aws_cloudwatch_log_group.services.kms_key_id == module.key.arn
    error_message = "The log group is kept for another time, or not encrypted."
  }
}

run "the_dashboards_show_every_alarm_and_every_node" {
  command = plan

  assert {
    condition     = length(flatten([for widget in jsondecode(aws_cloudwatch_dashboard.fleet.dashboard_body).widgets : widget.properties.alarms if widget.type == "alarm"])) == 15
    error_message = "The dashboard does not show all alarms."
  }

  assert {
    condition     = strcontains(aws_cloudwatch_dashboard.nats.dashboard_body, "i-1") && strcontains(aws_cloudwatch_dashboard.nats.dashboard_body, "targetgroup/nats/0123456789abcdef")
    error_message = "The dashboard does not show the nodes or the load balancer."
  }
}

run "without_deletion_protection_everything_can_be_deleted" {
  command = plan

  variables {
    deletion_protection = false
  }

  assert {
    condition     = aws_ecr_repository.service["auth"].force_delete && aws_secretsmanager_secret.this["nats/auth"].recovery_window_in_days == 0
    error_message = "Something cannot be deleted at once."
  }
}

run "a_name_that_ecr_does_not_accept_is_refused" {
  command = plan

  variables {
    services = { auth = { ecs_name = "auth--nats", thresholds = { cpu_percent = 80, memory_percent = 80, tasks = 2 } } }
  }

  expect_failures = [var.services]
}

run "a_repository_with_too_long_a_name_is_refused" {
  command = plan

  variables {
    repository_namespace = join("/", [for index in range(50) : "arcade"])
  }

  expect_failures = [var.repository_namespace]
}

run "a_namespace_that_ecr_does_not_accept_is_refused" {
  command = plan

  variables {
    repository_namespace = "Arcade"
  }

  expect_failures = [var.repository_namespace]
}

run "two_services_with_one_name_are_refused" {
  command = plan

  variables {
    services = {
      auth  = { ecs_name = "auth-nats", thresholds = { cpu_percent = 80, memory_percent = 80, tasks = 2 } }
      oauth = { ecs_name = "auth-nats", thresholds = { cpu_percent = 80, memory_percent = 80, tasks = 2 } }
    }
  }

  expect_failures = [var.services]
}

run "a_service_that_would_share_natsctls_identity_is_refused" {
  command = plan

  variables {
    services = { operator = { ecs_name = "operator-nats", thresholds = { cpu_percent = 80, memory_percent = 80, tasks = 2 } } }
  }

  expect_failures = [var.services]
}

run "a_manifest_that_names_the_identity_of_another_service_is_refused" {
  command = plan

  variables {
    services = { auth = { ecs_name = "auth-nats", secrets = ["nats/payment"], thresholds = { cpu_percent = 80, memory_percent = 80, tasks = 2 } } }
  }

  expect_failures = [var.services]
}

run "a_threshold_above_100_percent_is_refused" {
  command = plan

  variables {
    services = { auth = { ecs_name = "auth-nats", thresholds = { cpu_percent = 101, memory_percent = 80, tasks = 2 } } }
  }

  expect_failures = [var.services]
}

run "a_service_that_is_to_have_no_tasks_may_have_no_metrics" {
  command = plan

  variables {
    services = { auth = { ecs_name = "auth-nats", thresholds = { cpu_percent = 80, memory_percent = 80, tasks = 0 } } }
  }

  assert {
    condition     = local.alarms["arcade-production-auth-tasks"].threshold == 0 && alltrue([for alarm in values(local.alarms) : !alarm.notify_insufficient_data])
    error_message = "The topic is notified of a service that is not to run."
  }
}

run "a_threshold_of_more_tasks_than_a_service_may_have_is_refused" {
  command = plan

  variables {
    services = { auth = { ecs_name = "auth-nats", thresholds = { cpu_percent = 80, memory_percent = 80, tasks = 101 } } }
  }

  expect_failures = [var.services]
}

run "a_retention_that_cloudwatch_does_not_accept_is_refused" {
  command = plan

  variables {
    log_retention_days = 31
  }

  expect_failures = [var.log_retention_days]
}

run "so_few_images_that_a_running_one_could_be_deleted_are_refused" {
  command = plan

  variables {
    images_kept = 5
  }

  expect_failures = [var.images_kept]
}
