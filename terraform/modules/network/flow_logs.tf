# Flow logs: which connections there were.

data "aws_caller_identity" "current" {}

resource "aws_flow_log" "this" {
  count = local.new ? 1 : 0

  vpc_id          = aws_vpc.this[0].id
  traffic_type    = var.flow_logs.traffic
  log_destination = aws_cloudwatch_log_group.flow[0].arn
  iam_role_arn    = aws_iam_role.flow[0].arn
  tags            = { Name = var.name }
}

resource "aws_cloudwatch_log_group" "flow" {
  #checkov:skip=CKV_AWS_158: Addresses and ports, no content: encryption by CloudWatch is enough
  #checkov:skip=CKV_AWS_338: Flow logs are for recent incidents
  count = local.new ? 1 : 0

  name              = "/vpc/${var.name}"
  retention_in_days = var.flow_logs.retention_days
}

resource "aws_iam_role" "flow" {
  count = local.new ? 1 : 0

  name               = "${var.name}-flow-logs"
  description        = "Writes the flow logs of ${var.name}"
  assume_role_policy = data.aws_iam_policy_document.flow_assume.json
}

resource "aws_iam_role_policy" "flow" {
  count = local.new ? 1 : 0

  name   = "write"
  role   = aws_iam_role.flow[0].id
  policy = data.aws_iam_policy_document.flow[0].json
}

data "aws_iam_policy_document" "flow_assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["vpc-flow-logs.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

data "aws_iam_policy_document" "flow" {
  count = local.new ? 1 : 0

  statement {
    sid       = "Write"
    actions   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.flow[0].arn}:*"]
  }
}
