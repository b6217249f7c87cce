# The SNS topic that alarms notify. CloudWatch of this account may publish to it, encrypted in transit and at rest.

data "aws_caller_identity" "current" {}

module "key" {
  source = "../kms-key"

  description          = "Alarms of ${var.name}"
  alias                = var.name
  publishers           = ["cloudwatch.amazonaws.com"]
  deletion_window_days = 7
}

resource "aws_sns_topic" "this" {
  name              = var.name
  kms_master_key_id = module.key.arn
}

resource "aws_sns_topic_policy" "this" {
  arn    = aws_sns_topic.this.arn
  policy = data.aws_iam_policy_document.topic.json
}

# The owner of an e-mail address must confirm the subscription: AWS sends a message with a link.
resource "aws_sns_topic_subscription" "this" {
  for_each = var.subscriptions

  topic_arn = aws_sns_topic.this.arn
  protocol  = each.value.protocol
  endpoint  = each.value.endpoint
}

data "aws_iam_policy_document" "topic" {
  statement {
    sid       = "Alarms"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.this.arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }

  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.this.arn]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}
