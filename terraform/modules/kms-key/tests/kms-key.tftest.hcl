mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_region" {
    defaults = { name = "us-east-1" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
}

variables {
  description = "Logs of arcade"
  alias       = "arcade-logs"
}

run "the_key_rotates_and_can_be_restored_for_a_month" {
  command = plan

  assert {
    condition     = aws_kms_key.this.enable_key_rotation && aws_kms_key.this.deletion_window_in_days == 30 && aws_kms_alias.this.name == "alias/arcade-logs"
    error_message = "Rotation, deletion window or alias is wrong."
  }
}

run "iam_of_the_account_decides_and_no_service_uses_the_key_by_itself" {
  command = plan

  assert {
    condition = jsondecode(aws_kms_key.this.policy).Statement == [{
      Sid       = "Account"
      Effect    = "Allow"
      Action    = "kms:*"
      Resource  = "*"
      Principal = { AWS = "arn:aws:iam::123456789012:root" }
    }]
    error_message = "The policy allows more than IAM of the account."
  }
}

run "cloudwatch_logs_uses_the_key_for_the_named_log_groups_only" {
  command = plan

  variables {
    log_groups = ["/ecs/arcade", "/ecs/arcade/sessions"]
  }

  assert {
    condition = [
      for statement in jsondecode(aws_kms_key.this.policy).Statement : jsonencode([statement.Principal, statement.Condition]) if statement.Sid != "Account"
      ] == [
      jsonencode([
        { Service = "logs.us-east-1.amazonaws.com" },
        { ArnEquals = { "kms:EncryptionContext:aws:logs:arn" = [
          "arn:aws:logs:us-east-1:123456789012:log-group:/ecs/arcade",
          "arn:aws:logs:us-east-1:123456789012:log-group:/ecs/arcade/sessions",
        ] } },
      ])
    ]
    error_message = "CloudWatch Logs may use the key for other log groups, or not for these."
  }
}

run "publishers_use_the_key_on_behalf_of_this_account_only" {
  command = plan

  variables {
    publishers = ["cloudwatch.amazonaws.com"]
  }

  assert {
    condition = [
      for statement in jsondecode(aws_kms_key.this.policy).Statement : jsonencode([statement.Action, statement.Principal, statement.Condition]) if statement.Sid != "Account"
      ] == [
      jsonencode([
        ["kms:Decrypt", "kms:GenerateDataKey*"],
        { Service = ["cloudwatch.amazonaws.com"] },
        { StringEquals = { "aws:SourceAccount" = "123456789012" } },
      ])
    ]
    error_message = "CloudWatch may not encrypt messages, or may for other accounts."
  }
}

run "an_alias_of_aws_itself_is_refused" {
  command = plan

  variables {
    alias = "aws/logs"
  }

  expect_failures = [var.alias]
}

run "a_log_group_with_a_wildcard_is_refused" {
  command = plan

  variables {
    log_groups = ["/ecs/*"]
  }

  expect_failures = [var.log_groups]
}

run "a_publisher_that_is_no_aws_service_is_refused" {
  command = plan

  variables {
    publishers = ["arn:aws:iam::123456789012:root"]
  }

  expect_failures = [var.publishers]
}

run "a_deletion_window_that_kms_does_not_take_is_refused" {
  command = plan

  variables {
    deletion_window_days = 5
  }

  expect_failures = [var.deletion_window_days]
}
