# A cache in cluster mode: encrypted, TLS only, with users instead of one password for everything.

locals {
  cache_log_groups = { for log in ["engine", "slow"] : log => "/elasticache/${var.name}/${log}" }
}

resource "aws_elasticache_replication_group" "this" {
  replication_group_id = var.name
  description          = "Cache of ${var.name}"

  engine               = "redis"
  engine_version       = "7.1"
  node_type            = var.node_type
  port                 = 6379
  parameter_group_name = aws_elasticache_parameter_group.this.name

  num_node_groups            = var.shards
  replicas_per_node_group    = var.replicas
  automatic_failover_enabled = true
  multi_az_enabled           = var.replicas > 0

  subnet_group_name  = aws_elasticache_subnet_group.this.name
  security_group_ids = [aws_security_group.this.id]

  at_rest_encryption_enabled = true
  kms_key_id                 = module.key.arn
  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  user_group_ids             = [aws_elasticache_user_group.this.user_group_id]

  snapshot_retention_limit   = var.snapshot_days
  snapshot_window            = var.snapshot_days > 0 ? "03:00-04:00" : null
  final_snapshot_identifier  = var.deletion_protection ? "${var.name}-last" : null
  maintenance_window         = "tue:04:30-tue:05:30"
  auto_minor_version_upgrade = true

  # Changes do not wait for the next maintenance window, so a second plan is empty.
  apply_immediately = true

  dynamic "log_delivery_configuration" {
    for_each = aws_cloudwatch_log_group.cache

    content {
      log_type         = "${log_delivery_configuration.key}-log"
      destination      = log_delivery_configuration.value.name
      destination_type = "cloudwatch-logs"
      log_format       = "json"
    }
  }
}

# `prevent_destroy` takes no variable. So it is on a resource that is replaced together with the cache: Terraform refuses a plan that
# destroys or replaces the cache. README.md says how to do it on purpose.
resource "terraform_data" "protected" {
  count = var.deletion_protection ? 1 : 0

  triggers_replace = aws_elasticache_replication_group.this.id

  lifecycle {
    prevent_destroy = true
  }
}

# Every key in the cache has a time to live; when memory is short, Redis evicts the least recently used keys.
resource "aws_elasticache_parameter_group" "this" {
  name        = "${var.name}-redis7"
  family      = "redis7"
  description = "Cluster mode; the least recently used keys are evicted first"

  parameter {
    name  = "cluster-enabled"
    value = "yes"
  }

  parameter {
    name  = "maxmemory-policy"
    value = "allkeys-lru"
  }

  parameter {
    name  = "slowlog-log-slower-than"
    value = "10000"
  }
}

resource "aws_elasticache_subnet_group" "this" {
  name        = var.name
  description = "Private subnets of ${var.name}"
  subnet_ids  = var.subnet_ids
}

resource "aws_cloudwatch_log_group" "cache" {
  #checkov:skip=CKV_AWS_338: Cache logs are for recent incidents
  for_each = local.cache_log_groups

  name              = each.value
  retention_in_days = var.log_retention_days
  kms_key_id        = module.key.arn
}

resource "aws_security_group" "this" {
  name_prefix = "${var.name}-redis-"
  description = "Cache of ${var.name}. It opens no connections."
  vpc_id      = var.vpc_id
  tags        = { Name = "${var.name}-redis" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = merge(var.client_security_group_ids, { rotation = aws_security_group.rotation.id })

  security_group_id            = aws_security_group.this.id
  description                  = "Clients: ${each.key}"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
}
