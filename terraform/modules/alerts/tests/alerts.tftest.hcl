mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name = "test-alerts"
  subscriptions = {
    oncall = { protocol = "email", endpoint = "oncall@example.com" }
    pager  = { protocol = "https", endpoint = "https://events.example.com/alarms" }
  }
}

run "everybody_who_is_named_is_subscribed" {
  assert {
    condition     = aws_sns_topic_subscription.this["oncall"].protocol == "email" && aws_sns_topic_subscription.this["pager"].endpoint == "https://events.example.com/alarms" && length(aws_sns_topic_subscription.this) == 2
    error_message = "One subscription each."
  }
}

run "the_topic_is_encrypted_with_a_key_that_rotates" {
  assert {
    condition     = aws_sns_topic.this.kms_master_key_id == aws_kms_key.this.arn && aws_kms_key.this.enable_key_rotation
    error_message = "The topic has a key of its own."
  }
}

run "cloudwatch_of_this_account_may_publish_and_encrypt_and_nobody_else" {
  assert {
    condition = alltrue([
      for document in [data.aws_iam_policy_document.topic, data.aws_iam_policy_document.key] : length([
        for statement in document.statement : statement
        if statement.sid == "Alarms" && join(" ", one(statement.principals).identifiers) == "cloudwatch.amazonaws.com"
        && try(one(statement.condition).variable == "aws:SourceAccount" && join(" ", one(statement.condition).values) == "123456789012", false)
      ]) == 1
    ])
    error_message = "Both policies allow CloudWatch, on behalf of this account."
  }

  assert {
    condition = alltrue([
      for statement in data.aws_iam_policy_document.topic.statement : statement.effect == "Deny" || statement.sid == "Alarms"
    ])
    error_message = "The topic allows nothing else."
  }
}

run "without_tls_nothing_is_published" {
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
