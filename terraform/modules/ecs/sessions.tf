# What is typed and seen in `natsctl exec` is encrypted on its way and in its log.

resource "aws_kms_key" "sessions" {
  description             = "Sessions in tasks of ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.sessions_key.json
}

resource "aws_kms_alias" "sessions" {
  name          = "alias/${var.name}-sessions"
  target_key_id = aws_kms_key.sessions.key_id
}

data "aws_iam_policy_document" "sessions_key" {
  #checkov:skip=CKV_AWS_109: The policy of a key; `*` is this key, and the account may grant rights to it by IAM
  #checkov:skip=CKV_AWS_111: As above
  #checkov:skip=CKV_AWS_356: As above
  statement {
    sid       = "Account"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:${local.partition}:iam::${local.account}:root"]
    }
  }

  statement {
    sid       = "Logs"
    actions   = ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["logs.${local.region}.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "kms:EncryptionContext:aws:logs:arn"
      values   = ["arn:${local.partition}:logs:${local.region}:${local.account}:log-group:${local.sessions_log_group}"]
    }
  }
}

locals {
  sessions_log_group = "/ecs/${var.cluster}/sessions"
}

resource "aws_cloudwatch_log_group" "sessions" {
  name              = local.sessions_log_group
  retention_in_days = var.sessions_retention_days
  kms_key_id        = aws_kms_key.sessions.arn
}
