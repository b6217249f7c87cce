# What a node may do: be reached through Systems Manager, read its own secret, write its logs and metrics. It may not read parameters,
# buckets or the secrets of other nodes, which the managed policy AmazonSSMManagedInstanceCore would allow.

resource "aws_iam_role" "node" {
  for_each = local.nodes

  name               = "${var.name}-${each.key}"
  description        = "What the instance of ${each.key} may do"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_instance_profile" "node" {
  for_each = local.nodes

  name = "${var.name}-${each.key}"
  role = aws_iam_role.node[each.key].name
}

resource "aws_iam_role_policy" "node" {
  for_each = local.nodes

  name   = "node"
  role   = aws_iam_role.node[each.key].id
  policy = data.aws_iam_policy_document.node[each.key].json
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "node" {
  #checkov:skip=CKV_AWS_356: The calls of the Systems Manager agent take no resources; metrics are restricted to their namespace
  #checkov:skip=CKV_AWS_111: As above
  for_each = local.nodes

  statement {
    sid = "SystemsManager"
    actions = [
      "ec2messages:AcknowledgeMessage", "ec2messages:DeleteMessage", "ec2messages:FailMessage",
      "ec2messages:GetEndpoint", "ec2messages:GetMessages", "ec2messages:SendReply",
      "ssm:ListAssociations", "ssm:ListInstanceAssociations", "ssm:UpdateInstanceInformation",
      "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]
  }

  statement {
    sid       = "OwnSecret"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [aws_secretsmanager_secret.node[each.key].arn]
  }

  statement {
    sid       = "Decrypt"
    actions   = ["kms:Decrypt"]
    resources = [module.key.arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["secretsmanager.${data.aws_region.current.name}.amazonaws.com"]
    }
  }

  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.this.arn}:*"]
  }

  statement {
    sid       = "Metrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = [local.metrics_namespace]
    }
  }
}
