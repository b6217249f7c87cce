mock_provider "aws" {
  source = "./tests/mocks"

  override_during = plan
}

variables {
  name        = "test-alerts"
  runbook_url = "https://example.com/runbooks"
  subscriptions = {
    oncall = { protocol = "email", endpoint = "oncall@example.com" }
    pager  = { protocol = "https", endpoint = "https://events.example.com/alarms" }
  }
}

run "every_named_subscription_is_made" {
  command = plan

  assert {
    condition     = aws_sns_topic_subscription.this["oncall"].protocol == "email" && aws_sns_topic_subscription.this["pager"].endpoint == "https://events.example.com/alarms" && length(aws_sns_topic_subscription.this) == 2
    error_message = "One subscription each."
  }
}

run "the_topic_is_encrypted_with_its_own_key" {
  command = plan

  assert {
    condition     = aws_sns_topic.this.kms_master_key_id == module.key.arn
    error_message = "The topic has a key of its own."
  }
}

run "only_cloudwatch_of_this_account_may_publish_and_encrypt" {
  command = plan

  assert {
    condition = length([
      for statement in data.aws_iam_policy_document.topic.statement : statement
      if statement.sid == "Alarms" && join(" ", one(statement.principals).identifiers) == "cloudwatch.amazonaws.com"
      && try(one(statement.condition).variable == "aws:SourceAccount" && join(" ", one(statement.condition).values) == "123456789012", false)
    ]) == 1
    error_message = "The topic allows CloudWatch, on behalf of this account."
  }

  assert {
    condition = [
      for statement in jsondecode(module.key.policy).Statement : "${join(" ", statement.Principal.Service)} ${statement.Condition.StringEquals["aws:SourceAccount"]}"
      if statement.Sid == "Publishers"
    ] == ["cloudwatch.amazonaws.com 123456789012"]
    error_message = "The key allows CloudWatch, on behalf of this account."
  }

  assert {
    condition = alltrue([
      for statement in data.aws_iam_policy_document.topic.statement : statement.effect == "Deny" || statement.sid == "Alarms"
    ])
    error_message = "The topic allows nothing else."
  }
}

run "alarms_get_the_topic_and_the_runbooks_in_one_object" {
  command = plan

  assert {
    condition     = output.alerting == { topic_arn = aws_sns_topic_policy.this.arn, runbook_url = "https://example.com/runbooks" }
    error_message = "Topic and runbooks go together."
  }
}

run "without_tls_nothing_is_published" {
  command = plan

  assert {
    condition = length([
      for statement in data.aws_iam_policy_document.topic.statement : statement
      if statement.effect == "Deny" && one(statement.condition).variable == "aws:SecureTransport"
    ]) == 1
    error_message = "The topic denies what comes without TLS."
  }
}

run "a_name_that_aws_does_not_take_is_refused" {
  command = plan
  variables {
    name = "test alerts"
  }
  expect_failures = [var.name]
}

run "an_unknown_protocol_is_refused" {
  command = plan
  variables {
    subscriptions = { phone = { protocol = "sms", endpoint = "+1555" } }
  }
  expect_failures = [var.subscriptions]
}

run "an_address_that_is_none_is_refused" {
  command = plan
  variables {
    subscriptions = { oncall = { protocol = "email", endpoint = "oncall" } }
  }
  expect_failures = [var.subscriptions]
}

run "an_endpoint_without_tls_is_refused" {
  command = plan
  variables {
    subscriptions = { pager = { protocol = "https", endpoint = "http://events.example.com" } }
  }
  expect_failures = [var.subscriptions]
}

run "credentials_in_an_endpoint_are_refused" {
  command = plan
  variables {
    subscriptions = { pager = { protocol = "https", endpoint = "https://user:secret@events.example.com" } }
  }
  expect_failures = [var.subscriptions]
}

run "a_runbook_url_without_tls_is_refused" {
  command = plan
  variables {
    runbook_url = "http://example.com/runbooks"
  }
  expect_failures = [var.runbook_url]
}

run "a_runbook_url_that_ends_with_a_slash_is_refused" {
  command = plan
  variables {
    runbook_url = "https://example.com/"
  }
  expect_failures = [var.runbook_url]
}

run "a_runbook_url_that_is_a_path_is_refused" {
  command = plan
  variables {
    runbook_url = "docs/runbooks"
  }
  expect_failures = [var.runbook_url]
}
