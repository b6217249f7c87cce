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
  mock_resource "aws_iam_policy" {
    defaults = { arn = "arn:aws:iam::123456789012:policy/secrets" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:us-east-1:123456789012:log-group:sessions" }
  }
}

variables {
  name    = "arcade-production"
  cluster = "arcade-cluster"
  network = { vpc_id = "vpc-1", vpc_cidr = "10.0.0.0/16" }
  services = {
    auth = {}
    payment = {
      execute_command = true
      grants          = [{ actions = ["s3:GetObject"], resources = ["arn:aws:s3:::receipts/*"] }]
    }
  }
  repositories_arn    = "arn:aws:ecr:us-east-1:123456789012:repository/arcade/*"
  secrets             = { "nats/auth" = "arn:aws:secretsmanager:us-east-1:123456789012:secret:arcade/production/nats/auth-AbCdEf" }
  secrets_kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/22222222-2222-2222-2222-222222222222"
  log_group_arn       = "arn:aws:logs:us-east-1:123456789012:log-group:/ecs/arcade"
}

run "what_manifests_name_besides_is_readable_when_tasks_start" {
  command = plan

  variables {
    services = {
      shop = {
        secret_arns = ["arn:aws:secretsmanager:eu-west-1:999999999999:secret:shared/token"]
        parameters  = ["/shop/token", "arn:aws:ssm:eu-west-1:999999999999:parameter/x"]
      }
    }
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.named[0].policy).Statement[0].Resource == [
      "arn:aws:secretsmanager:eu-west-1:999999999999:secret:shared/token",
      "arn:aws:secretsmanager:eu-west-1:999999999999:secret:shared/token-??????",
    ]
    error_message = "A secret that a manifest names by its ARN cannot be read."
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.named[0].policy).Statement[1].Resource == [
      "arn:aws:ssm:eu-west-1:999999999999:parameter/x", "arn:aws:ssm:us-east-1:123456789012:parameter/shop/token",
    ]
    error_message = "A parameter that a manifest names cannot be read."
  }
}

run "the_cluster_has_insights_and_encrypted_sessions" {
  command = plan

  assert {
    condition     = one([for setting in aws_ecs_cluster.this.setting : setting.value]) == "enabled"
    error_message = "The alarm on running tasks needs Container Insights."
  }

  assert {
    condition     = aws_ecs_cluster.this.configuration[0].execute_command_configuration[0].kms_key_id == module.sessions_key.arn
    error_message = "Sessions are not encrypted."
  }

  assert {
    condition     = aws_cloudwatch_log_group.sessions.kms_key_id == module.sessions_key.arn
    error_message = "The log of sessions is not encrypted."
  }
}

run "every_service_has_a_role_of_its_own_and_no_more_rights_than_its_manifest_names" {
  command = plan

  assert {
    condition     = { for name, role in aws_iam_role.task : name => role.name } == { auth = "arcade-production-auth", payment = "arcade-production-payment" }
    error_message = "The handover has other names."
  }

  assert {
    condition = keys(aws_iam_role_policy.task) == ["payment"] && jsondecode(aws_iam_role_policy.task["payment"].policy).Statement == [
      { Effect = "Allow", Action = ["s3:GetObject"], Resource = ["arn:aws:s3:::receipts/*"] }
    ]
    error_message = "Rights that no manifest names, or not those that it names."
  }

  assert {
    condition     = keys(aws_iam_role_policy.sessions) == ["payment"]
    error_message = "Sessions may be opened where no manifest allows it."
  }

  assert {
    condition     = output.task_role_arn_template == "arn:aws:iam::123456789012:role/arcade-production-{service}"
    error_message = "The template does not give the roles' ARNs."
  }
}

run "tasks_start_with_exactly_these_secrets" {
  command = plan

  assert {
    condition     = toset(jsondecode(aws_iam_policy.secrets["0"].policy).Statement[0].Resource) == toset(values(var.secrets))
    error_message = "The execution role reads other secrets."
  }
}

run "many_secrets_are_spread_over_policies" {
  command = plan

  variables {
    secrets = { for index in range(90) : format("nats/service-%03d", index) => "arn:aws:secretsmanager:us-east-1:123456789012:secret:${index}" }
  }

  assert {
    condition     = [for policy in aws_iam_policy.secrets : length(jsondecode(policy.policy).Statement[0].Resource)] == [40, 40, 10]
    error_message = "A policy has more secrets than fit."
  }
}

run "tasks_only_connect_to_the_named_ports" {
  command = plan

  assert {
    condition     = { for name, rule in aws_vpc_security_group_egress_rule.internal : name => "${rule.cidr_ipv4}:${rule.to_port}" } == { nats = "10.0.0.0/16:4222", redis = "10.0.0.0/16:6379" }
    error_message = "Tasks may connect to other ports."
  }

  assert {
    condition     = aws_vpc_security_group_egress_rule.https.from_port == 443 && aws_vpc_security_group_egress_rule.https.to_port == 443
    error_message = "Tasks may connect to more than HTTPS outside."
  }

  assert {
    condition     = can(regex("^[A-Za-z0-9 ._:/()#,@+=&;{}!$*-]+$", aws_security_group.tasks.description))
    error_message = "EC2 refuses other characters, for example apostrophes."
  }
}

run "without_spot_all_tasks_are_on_fargate" {
  command = plan

  assert {
    condition     = [for part in aws_ecs_cluster_capacity_providers.this.default_capacity_provider_strategy : part.capacity_provider] == ["FARGATE"]
    error_message = "There is a share of Spot."
  }
}

run "with_spot_the_first_task_is_not_on_it" {
  command = plan

  variables {
    spot_percent = 80
  }

  assert {
    condition = {
      for part in aws_ecs_cluster_capacity_providers.this.default_capacity_provider_strategy : part.capacity_provider => "${coalesce(part.base, 0)}+${part.weight}%"
    } == { FARGATE = "1+20%", FARGATE_SPOT = "0+80%" }
    error_message = "The shares are wrong."
  }
}

run "a_role_with_a_name_too_long_for_iam_is_refused" {
  command = plan

  variables {
    services = { "a-service-whose-name-is-longer-than-iam-would-take" = {} }
  }

  expect_failures = [var.services]
}

run "a_service_that_would_share_the_execution_role_is_refused" {
  command = plan

  variables {
    services = { execution = {} }
  }

  expect_failures = [var.services]
}

run "all_actions_of_an_aws_service_are_refused" {
  command = plan

  variables {
    services = { auth = { grants = [{ actions = ["s3:*"], resources = ["arn:aws:s3:::receipts/*"] }] } }
  }

  expect_failures = [var.services]
}

run "rights_on_everything_are_refused" {
  command = plan

  variables {
    services = { auth = { grants = [{ actions = ["s3:GetObject"], resources = ["*"] }] } }
  }

  expect_failures = [var.services]
}

run "a_cluster_with_an_impossible_name_is_refused" {
  command = plan

  variables {
    cluster = "1 cluster"
  }

  expect_failures = [var.cluster]
}

run "a_network_that_is_no_range_is_refused" {
  command = plan

  variables {
    network = { vpc_id = "vpc-1", vpc_cidr = "10.0.0.0" }
  }

  expect_failures = [var.network]
}

run "a_port_that_does_not_exist_is_refused" {
  command = plan

  variables {
    network = { vpc_id = "vpc-1", vpc_cidr = "10.0.0.0/16", internal_ports = { nats = 70000 } }
  }

  expect_failures = [var.network]
}

run "more_secrets_than_fit_a_role_are_refused" {
  command = plan

  variables {
    secrets = { for index in range(401) : "s${index}" => "arn:aws:secretsmanager:us-east-1:123456789012:secret:${index}" }
  }

  expect_failures = [var.secrets]
}

run "names_of_secrets_too_long_for_a_policy_are_refused" {
  command = plan

  variables {
    secrets = {
      for index in range(40) : format("%0100d", index) => "arn:aws:secretsmanager:us-east-1:123456789012:secret:${index}"
    }
  }

  expect_failures = [aws_iam_policy.secrets]
}

run "a_share_of_spot_above_100_percent_is_refused" {
  command = plan

  variables {
    spot_percent = 101
  }

  expect_failures = [var.spot_percent]
}

run "a_retention_that_cloudwatch_does_not_accept_is_refused" {
  command = plan

  variables {
    sessions_retention_days = 31
  }

  expect_failures = [var.sessions_retention_days]
}
