# Plans only: protected resources could not be destroyed after a test.

mock_provider "aws" {
  source = "./tests/mocks"

  override_during = plan

  mock_resource "aws_s3_bucket" {
    defaults = { id = "test-state", arn = "arn:aws:s3:::test-state" }
  }

  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:us-east-1:123456789012:key/state" }
  }
}

variables {
  bucket = "test-state"
}

run "every_version_is_kept_encrypted_and_private" {
  command = plan

  assert {
    condition     = aws_s3_bucket_versioning.state.versioning_configuration[0].status == "Enabled"
    error_message = "Every version is kept."
  }

  assert {
    condition = alltrue([
      for rule in aws_s3_bucket_server_side_encryption_configuration.state.rule :
      rule.apply_server_side_encryption_by_default[0].sse_algorithm == "aws:kms" && rule.apply_server_side_encryption_by_default[0].kms_master_key_id == module.key.arn
    ])
    error_message = "States are encrypted, with their own key."
  }

  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.state.block_public_acls, aws_s3_bucket_public_access_block.state.block_public_policy,
      aws_s3_bucket_public_access_block.state.ignore_public_acls, aws_s3_bucket_public_access_block.state.restrict_public_buckets,
    ])
    error_message = "Nothing in it can be made public."
  }
}

run "requests_without_tls_are_refused" {
  command = plan

  assert {
    condition = length([
      for statement in data.aws_iam_policy_document.bucket.statement : statement
      if statement.effect == "Deny" && statement.actions == toset(["s3:*"]) && one(statement.condition).variable == "aws:SecureTransport"
    ]) == 1
    error_message = "The bucket denies what comes without TLS."
  }
}

run "environments_lock_by_a_file_in_s3" {
  command = plan

  assert {
    condition     = strcontains(output.backend_config, "use_lockfile = true") && strcontains(output.backend_config, "encrypt      = true")
    error_message = "The backend's settings lock and encrypt."
  }
}

run "the_newest_replaced_states_are_kept_regardless_of_their_age" {
  command = plan

  assert {
    condition     = aws_s3_bucket_lifecycle_configuration.state.rule[0].noncurrent_version_expiration[0].newer_noncurrent_versions == 10
    error_message = "Ten are kept."
  }
}

run "a_name_that_s3_does_not_accept_is_refused" {
  command = plan
  variables {
    bucket = "Test_State"
  }
  expect_failures = [var.bucket]
}

run "a_day_for_replaced_states_is_refused" {
  command = plan
  variables {
    kept_days = 1
  }
  expect_failures = [var.kept_days]
}
