# The users of the cache. There is no password here or in the state: the services' user starts without rights, and the first rotation
# gives it both (rotation.tf).

locals {
  user   = "services"
  rights = "on ~* +@all -@admin -@dangerous"
}

resource "aws_elasticache_user" "services" {
  user_id       = "${var.name}-services"
  user_name     = local.user
  engine        = "REDIS"
  access_string = "off ~* -@all"

  no_password_required = true

  # The rotation changes these.
  lifecycle {
    ignore_changes = [access_string, authentication_mode, no_password_required, passwords]
  }
}

# ElastiCache requires a user called `default`, which clients without a user name are. It is disabled.
resource "aws_elasticache_user" "default" {
  user_id       = "${var.name}-default"
  user_name     = "default"
  engine        = "REDIS"
  access_string = "off ~* -@all"

  no_password_required = true
}

resource "aws_elasticache_user_group" "this" {
  engine        = "REDIS"
  user_group_id = var.name
  user_ids      = [aws_elasticache_user.default.user_id, aws_elasticache_user.services.user_id]
}

# Without a value: the rotation writes `{"username": …, "password": …}`.
resource "aws_secretsmanager_secret" "auth" {
  name                    = "${var.secret_prefix}/redis/auth"
  description             = "Credentials of the services for the cache"
  kms_key_id              = var.secrets_kms_key_arn
  recovery_window_in_days = var.deletion_protection ? 30 : 0
}

# At once, then every `rotation_days`.
resource "aws_secretsmanager_secret_rotation" "auth" {
  secret_id           = aws_secretsmanager_secret.auth.id
  rotation_lambda_arn = aws_lambda_function.rotation.arn
  rotate_immediately  = true

  rotation_rules {
    automatically_after_days = var.rotation_days
  }

  depends_on = [
    aws_iam_role_policy.rotation, aws_lambda_permission.rotation, aws_vpc_security_group_egress_rule.rotation_apis,
    aws_vpc_security_group_egress_rule.rotation_cache, aws_vpc_security_group_ingress_rule.clients,
  ]
}
