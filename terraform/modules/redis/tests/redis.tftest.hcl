mock_provider "aws" {
  source = "./tests/mocks"

  override_during = plan
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

run "three_shards_with_a_replica_each_in_several_zones" {
  command = plan

  assert {
    condition = (aws_elasticache_replication_group.this.num_node_groups == 3 && aws_elasticache_replication_group.this.replicas_per_node_group == 1
    && aws_elasticache_replication_group.this.multi_az_enabled && aws_elasticache_replication_group.this.automatic_failover_enabled)
    error_message = "3 shards, 1 replica, Multi-AZ, automatic failover."
  }

  assert {
    condition = { for parameter in aws_elasticache_parameter_group.this.parameter : parameter.name => parameter.value } == {
      cluster-enabled = "yes", maxmemory-policy = "allkeys-lru", slowlog-log-slower-than = "10000"
    }
    error_message = "Cluster mode; the least recently used keys are evicted first."
  }
}

run "it_is_encrypted_at_rest_and_in_transit" {
  command = plan

  assert {
    condition = (aws_elasticache_replication_group.this.at_rest_encryption_enabled == "true" && aws_elasticache_replication_group.this.kms_key_id == module.key.arn
    && aws_elasticache_replication_group.this.transit_encryption_enabled && aws_elasticache_replication_group.this.transit_encryption_mode == "required")
    error_message = "Its own key, and nothing without TLS."
  }
}

run "no_user_has_rights_until_the_rotation_has_set_a_password" {
  command = plan

  assert {
    condition = alltrue([
      for user in [aws_elasticache_user.services, aws_elasticache_user.default] : startswith(user.access_string, "off ") && endswith(user.access_string, "-@all")
    ])
    error_message = "Both users start without rights."
  }

  assert {
    condition     = aws_elasticache_replication_group.this.auth_token == null && aws_elasticache_user.services.passwords == null
    error_message = "No password is in the state."
  }

  assert {
    condition     = aws_secretsmanager_secret_rotation.auth.rotation_lambda_arn == aws_lambda_function.rotation.arn && aws_secretsmanager_secret_rotation.auth.rotate_immediately && aws_secretsmanager_secret_rotation.auth.rotation_rules[0].automatically_after_days == 30
    error_message = "The password is set at once, and again after 30 days."
  }
}

run "the_archive_is_made_of_the_source" {
  command = plan

  assert {
    condition = strcontains(
      filebase64(aws_lambda_function.rotation.filename),
      substr(filebase64("rotation/rotations.py"), 0, length(filebase64("rotation/rotations.py")) - 4),
    )
    error_message = "rotation.zip is not up to date: run `python3 rotation/pack.py`."
  }
}

run "the_function_may_change_one_user_and_one_secret" {
  command = plan

  assert {
    condition = alltrue([
      for statement in data.aws_iam_policy_document.rotation.statement :
      !contains(["Secret", "User"], statement.sid) || !contains(statement.resources, "*")
    ]) && aws_lambda_permission.rotation.principal == "secretsmanager.amazonaws.com" && aws_lambda_permission.rotation.source_arn == aws_secretsmanager_secret.auth.arn
    error_message = "One user, one secret, called by Secrets Manager for that secret."
  }
}

run "clients_are_tasks_and_the_rotation_on_6379" {
  command = plan

  assert {
    condition = join(" ", keys(aws_vpc_security_group_ingress_rule.clients)) == "rotation tasks" && alltrue([
      for rule in values(aws_vpc_security_group_ingress_rule.clients) : rule.from_port == 6379 && rule.to_port == 6379 && rule.cidr_ipv4 == null
    ])
    error_message = "By reference, on 6379 only."
  }
}

run "slow_commands_are_logged" {
  command = plan

  assert {
    condition = { for log in aws_elasticache_replication_group.this.log_delivery_configuration : log.log_type => log.destination } == {
      engine-log = "/elasticache/test/engine", slow-log = "/elasticache/test/slow"
    }
    error_message = "Engine and slow log go to CloudWatch."
  }
}

run "six_kinds_of_alarms_have_elasticaches_names" {
  command = plan

  assert {
    condition = { for kind, names in output.alarm_names : kind => length(names) } == {
      redis-cpu = 6, redis-memory = 6, redis-evictions = 6, redis-auth-failures = 6, redis-replication-lag = 6, redis-rotation = 1
    }
    error_message = "One for each of six nodes, and one for the rotation."
  }

  assert {
    condition     = contains(output.alarm_names["redis-cpu"], "test-0003-002-redis-cpu") && local.alarms["test-0003-002-redis-cpu"].metric.dimensions == { CacheClusterId = "test-0003-002" }
    error_message = "Nodes have the names that ElastiCache gives them."
  }
}

run "without_replicas_there_is_one_zone_and_no_alarm_on_lag" {
  command = plan
  variables {
    shards   = 1
    replicas = 0
  }

  assert {
    condition     = !contains(keys(local.node_alarms), "redis-replication-lag") && length(local.nodes) == 1 && !aws_elasticache_replication_group.this.multi_az_enabled
    error_message = "A small cache for development."
  }
}

run "what_is_protected_leaves_a_snapshot_and_cannot_be_destroyed" {
  command = plan
  variables {
    deletion_protection = true
  }

  assert {
    condition     = length(terraform_data.protected) == 1 && aws_elasticache_replication_group.this.final_snapshot_identifier == "test-last" && aws_secretsmanager_secret.auth.recovery_window_in_days == 30
    error_message = "The protection, the last snapshot, and a month to restore the secret."
  }
}
