mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_region" {
    defaults = { name = "us-east-1" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
  mock_data "aws_route_table" {
    defaults = { routes = [] }
  }
}

variables {
  account  = "123456789012"
  alerting = { runbook_url = "https://example.com/runbooks" }
}

run "every_manifest_has_its_five_alarms" {
  command = plan

  assert {
    condition = alltrue([
      for kind in ["service-circuit", "service-cpu", "service-dead-letters", "service-memory", "service-tasks"] :
      length(output.alarm_names[kind]) == length(fileset("../../../manifests/services", "*.yaml"))
    ])
    error_message = "There are manifests without alarms."
  }

  assert {
    condition     = output.alarm_names["gateway-5xx"] == ["gaming-system-production-gw-5xx"]
    error_message = "The alarms of the gateway are missing, or have other names."
  }
}

run "an_account_without_12_digits_is_refused" {
  command = plan

  variables {
    account = "12345"
  }

  expect_failures = [var.account]
}

run "no_account_at_all_is_refused" {
  command = plan

  variables {
    account = null
  }

  expect_failures = [var.account]
}
