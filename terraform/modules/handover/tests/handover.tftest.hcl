mock_provider "aws" {
  override_during = plan
}

variables {
  parameter      = "/arcade/production/natsctl"
  project        = "arcade"
  environment    = "production"
  account        = "123456789012"
  region         = "us-east-1"
  cluster        = "arcade-cluster"
  network        = { vpc = "vpc-1", subnets = ["subnet-1"], security_groups = ["sg-1"] }
  execution_role = "arn:aws:iam::123456789012:role/arcade-production-execution"
  log_group      = "/ecs/arcade"
  alerts_topic   = "arn:aws:sns:us-east-1:123456789012:arcade-alerts"
  registry       = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
  names = {
    repository  = "arcade/{ecs_name}"
    task_role   = "arn:aws:iam::123456789012:role/arcade-production-{service}"
    secret      = "arcade/production/{name}"
    nats_secret = "arcade/production/nats/{service}"
    alarm       = "arcade-production-{service}-{kind}"
  }
  nats = {
    host            = "nats.arcade.internal"
    port            = 4222
    nodes           = { nats-1 = { instance = "i-1", address = "10.0.1.10", zone = "us-east-1a" } }
    target_group    = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/nats/1"
    operator_secret = "arcade/production/nats/operator"
  }
  kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/11111111-1111-1111-1111-111111111111"
}

# Required keys are read from the schema, so that none is forgotten here.
run "every_key_that_natsctl_requires_is_there_and_no_unknown_one" {
  command = plan

  assert {
    condition     = length(setsubtract(jsondecode(file("../../../manifests/schema/handover.schema.json")).required, keys(jsondecode(aws_ssm_parameter.handover.value)))) == 0
    error_message = "natsctl would miss a key."
  }

  assert {
    condition     = length(setsubtract(keys(jsondecode(aws_ssm_parameter.handover.value)), keys(jsondecode(file("../../../manifests/schema/handover.schema.json")).properties))) == 0
    error_message = "natsctl would refuse a key."
  }

  assert {
    condition     = aws_ssm_parameter.handover.name == "/arcade/production/natsctl" && jsondecode(aws_ssm_parameter.handover.value).ledger == "arcade-production-natsctl"
    error_message = "The parameter or the table has another name."
  }
}

run "absent_parts_are_left_out" {
  command = plan

  assert {
    condition     = !contains(keys(jsondecode(aws_ssm_parameter.handover.value)), "redis") && !contains(keys(jsondecode(aws_ssm_parameter.handover.value)), "gateway")
    error_message = "There is a key for an absent part."
  }
}

run "redis_and_gateway_are_in_the_handover" {
  command = plan

  variables {
    redis   = { host = "cache.arcade.internal", port = 6379, auth_secret = "arcade/production/redis/auth" }
    gateway = { target_group = "arn:tg", url = "https://arcade.example" }
  }

  assert {
    condition     = jsondecode(aws_ssm_parameter.handover.value).redis.port == 6379 && jsondecode(aws_ssm_parameter.handover.value).gateway.url == "https://arcade.example"
    error_message = "The cache or the gateway is missing."
  }
}

run "the_ledger_is_protected" {
  command = plan

  assert {
    condition = alltrue([
      aws_dynamodb_table.ledger.hash_key == "pk", aws_dynamodb_table.ledger.range_key == "sk",
      aws_dynamodb_table.ledger.ttl[0].attribute_name == "expires",
      aws_dynamodb_table.ledger.point_in_time_recovery[0].enabled,
      aws_dynamodb_table.ledger.server_side_encryption[0].enabled,
      aws_dynamodb_table.ledger.deletion_protection_enabled,
    ])
    error_message = "The table has other keys than natsctl needs, or can be lost."
  }
}

run "a_handover_too_large_for_a_standard_parameter_is_refused" {
  command = plan

  variables {
    network = { vpc = "vpc-1", subnets = [for index in range(200) : "subnet-0123456789abcdef0"], security_groups = ["sg-1"] }
  }

  expect_failures = [aws_ssm_parameter.handover]
}

run "a_parameter_without_a_full_name_is_refused" {
  command = plan

  variables {
    parameter = "natsctl"
  }

  expect_failures = [var.parameter]
}

run "an_account_without_12_digits_is_refused" {
  command = plan

  variables {
    account = "12345"
  }

  expect_failures = [var.account]
}

run "a_network_without_subnets_is_refused" {
  command = plan

  variables {
    network = { vpc = "vpc-1", subnets = [], security_groups = ["sg-1"] }
  }

  expect_failures = [var.network]
}

run "a_template_without_the_services_name_is_refused" {
  command = plan

  variables {
    names = {
      repository  = "arcade"
      task_role   = "arn:aws:iam::123456789012:role/arcade-production-{service}"
      secret      = "arcade/production/{name}"
      nats_secret = "arcade/production/nats/{service}"
      alarm       = "arcade-production-{service}-{kind}"
    }
  }

  expect_failures = [var.names]
}
