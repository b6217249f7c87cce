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
  alerts_topic_arn          = "arn:aws:sns:us-east-1:123456789012:alerts"
  runbook_url               = "https://example.com/runbooks"
  deletion_protection       = false
}

run "three_shards_with_a_replica_each_in_several_zones" {
  assert {
    condition = (aws_elasticache_replication_group.this.num_node_groups == 3 && aws_elasticache_replication_group.this.replicas_per_node_group == 1
    && aws_elasticache_replication_group.this.multi_az_enabled && aws_elasticache_replication_group.this.automatic_failover_enabled)
    error_message = "3 shards, 1 replica, Multi-AZ, failover by itself."
  }

  assert {
    condition = { for parameter in aws_elasticache_parameter_group.this.parameter : parameter.name => parameter.value } == {
      cluster-enabled = "yes", maxmemory-policy = "allkeys-lru", slowlog-log-slower-than = "10000"
    }
    error_message = "Cluster mode; what was used least goes first."
  }
}

run "it_is_encrypted_at_rest_and_on_the_way" {
  assert {
    condition = (aws_elasticache_replication_group.this.at_rest_encryption_enabled == "true" && aws_elasticache_replication_group.this.kms_key_id == aws_kms_key.this.arn
    && aws_elasticache_replication_group.this.transit_encryption_enabled && aws_elasticache_replication_group.this.transit_encryption_mode == "required")
    error_message = "A key of our own, and nothing without TLS."
  }
}

run "nobody_may_do_anything_until_the_rotation_has_given_a_password" {
  assert {
    condition = alltrue([
      for user in [aws_elasticache_user.services, aws_elasticache_user.default] : startswith(user.access_string, "off ") && endswith(user.access_string, "-@all")
    ])
    error_message = "Both users begin without rights."
  }

  assert {
    condition     = aws_elasticache_replication_group.this.auth_token == null && aws_elasticache_user.services.passwords == null
    error_message = "No password is in the state."
  }

  assert {
    condition     = aws_secretsmanager_secret_rotation.auth.rotation_lambda_arn == aws_lambda_function.rotation.arn && aws_secretsmanager_secret_rotation.auth.rotate_immediately && aws_secretsmanager_secret_rotation.auth.rotation_rules[0].automatically_after_days == 30
    error_message = "The password is made at once, and anew after 30 days."
  }
}

run "the_function_is_what_the_source_says" {
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
  assert {
    condition = alltrue([
      for statement in data.aws_iam_policy_document.rotation.statement :
      !contains(["Secret", "User"], statement.sid) || !contains(statement.resources, "*")
    ]) && aws_lambda_permission.rotation.principal == "secretsmanager.amazonaws.com" && aws_lambda_permission.rotation.source_arn == aws_secretsmanager_secret.auth.arn
    error_message = "One user, one secret, called by Secrets Manager for that secret."
  }
}

run "clients_are_tasks_and_the_rotation_on_6379" {
  assert {
    condition = join(" ", keys(aws_vpc_security_group_ingress_rule.clients)) == "rotation tasks" && alltrue([
      for rule in values(aws_vpc_security_group_ingress_rule.clients) : rule.from_port == 6379 && rule.to_port == 6379 && rule.cidr_ipv4 == null
    ])
    error_message = "By reference, on 6379 alone."
  }
}

run "slow_commands_are_in_a_log" {
  assert {
    condition = { for log in aws_elasticache_replication_group.this.log_delivery_configuration : log.log_type => log.destination } == {
      engine-log = "/elasticache/test/engine", slow-log = "/elasticache/test/slow"
    }
    error_message = "Engine and slow log go to CloudWatch."
  }
}

run "six_kinds_of_alarms_are_told_both_ways_with_their_runbooks" {
  assert {
    condition = { for kind, names in output.alarm_names : kind => length(names) } == {
      redis-cpu = 6, redis-memory = 6, redis-evictions = 6, redis-auth-failures = 6, redis-replication-lag = 6, redis-rotation = 1
    }
    error_message = "One for each of six nodes, and one for the rotation."
  }

  assert {
    condition = alltrue([
      for alarm in concat(values(aws_cloudwatch_metric_alarm.node), [aws_cloudwatch_metric_alarm.rotation]) :
      join(" ", alarm.alarm_actions) == var.alerts_topic_arn && join(" ", alarm.ok_actions) == var.alerts_topic_arn
      && endswith(alarm.alarm_description, "Runbook: https://example.com/runbooks/${alarm.tags.kind}.md")
    ])
    error_message = "ALARM and OK go to the topic; the description ends with the runbook."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.node["test-0003-002-redis-cpu"].dimensions == tomap({ CacheClusterId = "test-0003-002" })
    error_message = "Nodes are called as ElastiCache calls them."
  }
}

run "without_replicas_nothing_lags_and_there_is_one_zone" {
  command = plan
  variables {
    shards   = 1
    replicas = 0
  }

  assert {
    condition     = !contains(keys(local.kinds), "redis-replication-lag") && length(local.nodes) == 1 && !aws_elasticache_replication_group.this.multi_az_enabled
    error_message = "A small cache for development."
  }
}

run "what_is_protected_leaves_a_snapshot_and_cannot_be_destroyed" {
  command = plan
  variables {
    deletion_protection = true
  }

  assert {
    condition     = length(terraform_data.kept) == 1 && aws_elasticache_replication_group.this.final_snapshot_identifier == "test-last" && aws_secretsmanager_secret.auth.recovery_window_in_days == 30
    error_message = "The guard, the last snapshot, and a month to take the secret back."
  }
}
