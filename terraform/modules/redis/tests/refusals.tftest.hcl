mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name                      = "test"
  vpc_id                    = "vpc-1"
  subnet_ids                = ["subnet-a", "subnet-b", "subnet-c"]
  client_security_group_ids = { tasks = "sg-tasks" }
  secret_prefix             = "test/one"
  secrets_kms_key_arn       = "arn:aws:kms:us-east-1:123456789012:key/secrets"
  alerting                  = { topic_arn = "arn:aws:sns:us-east-1:123456789012:alerts", runbook_url = "https://example.com/runbooks" }
  deletion_protection       = false
}

run "a_name_with_two_dashes_is_refused" {
  command = plan
  variables {
    name = "test--one"
  }
  expect_failures = [var.name]
}

run "a_name_too_long_for_its_users_is_refused" {
  command = plan
  variables {
    name = "gaming-system-production-in-the-east"
  }
  expect_failures = [var.name]
}

run "a_single_subnet_is_refused" {
  command = plan
  variables {
    subnet_ids = ["subnet-a"]
  }
  expect_failures = [var.subnet_ids]
}

run "a_type_of_ec2_is_refused" {
  command = plan
  variables {
    node_type = "r7g.large"
  }
  expect_failures = [var.node_type]
}

run "no_shard_is_refused" {
  command = plan
  variables {
    shards = 0
  }
  expect_failures = [var.shards]
}

run "too_many_replicas_is_refused" {
  command = plan
  variables {
    replicas = 6
  }
  expect_failures = [var.replicas]
}

run "too_many_nodes_is_refused" {
  command = plan
  variables {
    shards = 50
  }
  expect_failures = [var.replicas]
}

run "protection_without_a_replica_is_refused" {
  command = plan
  variables {
    deletion_protection = true
    replicas            = 0
  }
  expect_failures = [var.replicas]
}

run "protection_without_snapshots_is_refused" {
  command = plan
  variables {
    deletion_protection = true
    snapshot_days       = 0
  }
  expect_failures = [var.snapshot_days]
}

run "too_many_snapshots_is_refused" {
  command = plan
  variables {
    snapshot_days = 40
  }
  expect_failures = [var.snapshot_days]
}

run "a_daily_rotation_is_refused" {
  command = plan
  variables {
    rotation_days = 1
  }
  expect_failures = [var.rotation_days]
}

run "a_prefix_that_begins_with_a_slash_is_refused" {
  command = plan
  variables {
    secret_prefix = "/test"
  }
  expect_failures = [var.secret_prefix]
}

run "a_retention_that_cloudwatch_does_not_accept_is_refused" {
  command = plan
  variables {
    log_retention_days = 45
  }
  expect_failures = [var.log_retention_days]
}
