# The function that changes the services' password. It runs in the VPC, to try the new password before it becomes current.

locals {
  rotation           = "${var.name}-redis-rotation"
  rotation_log_group = "/aws/lambda/${local.rotation}"
}

data "aws_caller_identity" "current" {}

resource "aws_lambda_function" "rotation" {
  #checkov:skip=CKV_AWS_50: Four short calls a month: its log is enough
  #checkov:skip=CKV_AWS_115: Secrets Manager runs one rotation at a time, and small accounts have no concurrency to reserve
  #checkov:skip=CKV_AWS_116: Secrets Manager retries, and an alarm fires on failures
  #checkov:skip=CKV_AWS_272: The code is in this repository, and a test compares the archive with it
  function_name    = local.rotation
  description      = "Changes the password of the services for the cache ${var.name}"
  role             = aws_iam_role.rotation.arn
  runtime          = "python3.13"
  architectures    = ["arm64"]
  handler          = "rotations.handler"
  filename         = "${path.module}/rotation/rotation.zip"
  source_code_hash = filebase64sha256("${path.module}/rotation/rotation.zip")
  timeout          = 300
  kms_key_arn      = module.key.arn

  environment {
    variables = {
      USER_ID   = aws_elasticache_user.services.user_id
      USER_NAME = aws_elasticache_user.services.user_name
      RIGHTS    = local.rights
      HOST      = aws_elasticache_replication_group.this.configuration_endpoint_address
      PORT      = aws_elasticache_replication_group.this.port
    }
  }

  vpc_config {
    subnet_ids         = var.subnet_ids
    security_group_ids = [aws_security_group.rotation.id]
  }

  logging_config {
    log_format = "JSON"
    log_group  = aws_cloudwatch_log_group.rotation.name
  }

  # The function needs its rights until it is deleted, to remove its network interfaces.
  depends_on = [aws_iam_role_policy.rotation]
}

resource "aws_lambda_permission" "rotation" {
  statement_id   = "secrets-manager"
  action         = "lambda:InvokeFunction"
  function_name  = aws_lambda_function.rotation.function_name
  principal      = "secretsmanager.amazonaws.com"
  source_account = data.aws_caller_identity.current.account_id
  source_arn     = aws_secretsmanager_secret.auth.arn
}

resource "aws_cloudwatch_log_group" "rotation" {
  #checkov:skip=CKV_AWS_338: Rotation logs are for recent incidents
  name              = local.rotation_log_group
  retention_in_days = var.log_retention_days
  kms_key_id        = module.key.arn
}

resource "aws_security_group" "rotation" {
  name_prefix = "${local.rotation}-"
  description = "Rotation of the password of ${var.name}. It accepts no connections."
  vpc_id      = var.vpc_id
  tags        = { Name = local.rotation }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_egress_rule" "rotation_cache" {
  security_group_id            = aws_security_group.rotation.id
  description                  = "To try the new password"
  referenced_security_group_id = aws_security_group.this.id
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
}

resource "aws_vpc_security_group_egress_rule" "rotation_apis" {
  security_group_id = aws_security_group.rotation.id
  description       = "Secrets Manager and ElastiCache"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_iam_role" "rotation" {
  name               = local.rotation
  description        = "Changes the password of the services for the cache ${var.name}"
  assume_role_policy = data.aws_iam_policy_document.rotation_assume.json
}

resource "aws_iam_role_policy" "rotation" {
  name   = "rotate"
  role   = aws_iam_role.rotation.id
  policy = data.aws_iam_policy_document.rotation.json
}

data "aws_iam_policy_document" "rotation_assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "rotation" {
  #checkov:skip=CKV_AWS_356: Random passwords and network interfaces of functions take no resources
  #checkov:skip=CKV_AWS_111: As above
  statement {
    sid = "Secret"
    actions = [
      "secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue",
      "secretsmanager:PutSecretValue", "secretsmanager:UpdateSecretVersionStage",
    ]
    resources = [aws_secretsmanager_secret.auth.arn]
  }

  statement {
    sid       = "Encrypt"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [var.secrets_kms_key_arn, module.key.arn]
  }

  statement {
    sid       = "Random"
    actions   = ["secretsmanager:GetRandomPassword"]
    resources = ["*"]
  }

  statement {
    sid       = "User"
    actions   = ["elasticache:DescribeUsers", "elasticache:ModifyUser"]
    resources = [aws_elasticache_user.services.arn]
  }

  statement {
    sid       = "Log"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.rotation.arn}:*"]
  }

  statement {
    sid = "Network"
    actions = [
      "ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface",
      "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses",
    ]
    resources = ["*"]
  }
}
