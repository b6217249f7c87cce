# A KMS key that rotates. IAM of the account decides who may use it; AWS services that use it by themselves are named in its policy.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  partition = data.aws_partition.current.partition
  account   = data.aws_caller_identity.current.account_id
  region    = data.aws_region.current.name

  account_statement = {
    Sid       = "Account"
    Effect    = "Allow"
    Action    = "kms:*"
    Resource  = "*"
    Principal = { AWS = "arn:${local.partition}:iam::${local.account}:root" }
  }

  logs_statement = {
    Sid       = "Logs"
    Effect    = "Allow"
    Action    = ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"]
    Resource  = "*"
    Principal = { Service = "logs.${local.region}.amazonaws.com" }
    Condition = {
      ArnEquals = {
        "kms:EncryptionContext:aws:logs:arn" = [
          for name in sort(var.log_groups) : "arn:${local.partition}:logs:${local.region}:${local.account}:log-group:${name}"
        ]
      }
    }
  }

  publishers_statement = {
    Sid       = "Publishers"
    Effect    = "Allow"
    Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
    Resource  = "*"
    Principal = { Service = sort(var.publishers) }
    Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
  }

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [local.account_statement],
      [for statement in [local.logs_statement] : statement if length(var.log_groups) > 0],
      [for statement in [local.publishers_statement] : statement if length(var.publishers) > 0],
    )
  })
}

resource "aws_kms_key" "this" {
  description             = var.description
  enable_key_rotation     = true
  deletion_window_in_days = var.deletion_window_days
  policy                  = local.policy
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.alias}"
  target_key_id = aws_kms_key.this.key_id
}
