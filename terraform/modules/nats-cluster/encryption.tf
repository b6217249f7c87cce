# One key for what belongs to the nodes: volumes, secrets, logs.

locals {
  log_group         = "/ec2/${var.name}-nats"
  metrics_namespace = "${var.name}/nats"
}

resource "aws_kms_key" "this" {
  description             = "NATS nodes of ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = var.deletion_protection ? 30 : 7
  policy                  = data.aws_iam_policy_document.key.json
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.name}-nats"
  target_key_id = aws_kms_key.this.key_id
}

resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_338: Logs of servers serve to look into what happened lately; the audit trail is in JetStream
  name              = local.log_group
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.this.arn
}

data "aws_iam_policy_document" "key" {
  #checkov:skip=CKV_AWS_109: The policy of a key; `*` is this key, and the account may grant rights to it by IAM
  #checkov:skip=CKV_AWS_111: As above
  #checkov:skip=CKV_AWS_356: As above
  statement {
    sid       = "Account"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root"]
    }
  }

  statement {
    sid       = "Logs"
    actions   = ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["logs.${data.aws_region.current.name}.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "kms:EncryptionContext:aws:logs:arn"
      values = [join(":", [
        "arn", data.aws_partition.current.partition, "logs", data.aws_region.current.name,
        data.aws_caller_identity.current.account_id, "log-group", local.log_group,
      ])]
    }
  }
}
