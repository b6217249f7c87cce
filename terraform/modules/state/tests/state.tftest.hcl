# Plans alone: what is protected from being destroyed cannot be cleaned up after a test.

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
      for rule in aws_s3_bucket_server_side_encryption_configuration.state.rule : rule.apply_server_side_encryption_by_default[0].sse_algorithm == "aws:kms"
    ]) && aws_kms_key.state.enable_key_rotation
    error_message = "States are encrypted, with a key that rotates."
  }

  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.state.block_public_acls, aws_s3_bucket_public_access_block.state.block_public_policy,
      aws_s3_bucket_public_access_block.state.ignore_public_acls, aws_s3_bucket_public_access_block.state.restrict_public_buckets,
    ])
    error_message = "Nothing in it can be made public."
  }
}

run "without_tls_nothing_is_answered" {
  command = plan

  assert {
    condition = length([
      for statement in data.aws_iam_policy_document.bucket.statement : statement
      if statement.effect == "Deny" && statement.actions == toset(["s3:*"]) && one(statement.condition).variable == "aws:SecureTransport"
    ]) == 1
    error_message = "The bucket denies what comes without TLS."
  }
}

run "environments_lock_by_the_file_of_s3" {
  command = plan

  assert {
    condition     = strcontains(output.backend_config, "use_lockfile = true") && strcontains(output.backend_config, "encrypt      = true")
    error_message = "The backend's settings lock and encrypt."
  }
}

run "the_newest_old_states_are_kept_whatever_their_age" {
  command = plan

  assert {
    condition     = aws_s3_bucket_lifecycle_configuration.state.rule[0].noncurrent_version_expiration[0].newer_noncurrent_versions == 10
    error_message = "Ten are kept."
  }
}

run "a_name_that_s3_does_not_take_is_refused" {
  command = plan
  variables {
    bucket = "Test_State"
  }
  expect_failures = [var.bucket]
}

run "throwing_old_states_away_at_once_is_refused" {
  command = plan
  variables {
    kept_days = 1
  }
  expect_failures = [var.kept_days]
}
