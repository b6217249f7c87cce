# One execution role starts the tasks of all services; a running task has the task role of its service.

locals {
  # A managed policy has 6144 characters at most, and a role has ten policies: 40 secrets in each.
  secrets_by_policy = { for index, names in chunklist(sort(keys(var.secrets)), 40) : index => names }

  # The ARN of a secret may be named without the suffix that Secrets Manager adds.
  secret_arns      = distinct(flatten([for service in values(var.services) : tolist(service.secret_arns)]))
  named_secrets    = sort(flatten([for arn in local.secret_arns : [arn, "${arn}-??????"]]))
  parameters       = distinct(flatten([for service in values(var.services) : tolist(service.parameters)]))
  parameter_prefix = "arn:${local.partition}:ssm:${local.region}:${local.account}:parameter/"
  named_parameters = sort([
    for name in local.parameters : startswith(name, "arn:") ? name : "${local.parameter_prefix}${trimprefix(name, "/")}"
  ])
}

data "aws_iam_policy_document" "tasks_assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

resource "aws_iam_role" "execution" {
  name               = "${var.name}-execution"
  description        = "Starts tasks of ${var.name}: pulls images, reads secrets, writes logs"
  assume_role_policy = data.aws_iam_policy_document.tasks_assume.json
}

resource "aws_iam_role_policy" "execution" {
  name   = "start"
  role   = aws_iam_role.execution.id
  policy = data.aws_iam_policy_document.execution.json
}

data "aws_iam_policy_document" "execution" {
  #checkov:skip=CKV_AWS_356: GetAuthorizationToken takes no resources
  statement {
    sid       = "Login"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }

  statement {
    sid       = "Pull"
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"]
    resources = [var.repositories_arn]
  }

  statement {
    sid       = "Log"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${var.log_group_arn}:log-stream:*"]
  }

  statement {
    sid       = "Decrypt"
    actions   = ["kms:Decrypt"]
    resources = [var.secrets_kms_key_arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["secretsmanager.${local.region}.amazonaws.com"]
    }
  }
}

resource "aws_iam_policy" "secrets" {
  for_each = local.secrets_by_policy

  name        = "${var.name}-secrets-${each.key}"
  description = "The secrets that tasks of ${var.name} start with"
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "Secrets"
      Effect   = "Allow"
      Action   = "secretsmanager:GetSecretValue"
      Resource = [for name in each.value : var.secrets[name]]
    }]
  })

  lifecycle {
    precondition {
      condition     = length(join("", each.value)) + 70 * length(each.value) <= 6000
      error_message = "The names of these secrets are too long for one policy: ${join(", ", each.value)}."
    }
  }
}

resource "aws_iam_role_policy_attachment" "secrets" {
  for_each = local.secrets_by_policy

  role       = aws_iam_role.execution.name
  policy_arn = aws_iam_policy.secrets[each.key].arn
}

# What manifests name and other modules do not make.
resource "aws_iam_role_policy" "named" {
  count = length(local.named_secrets) + length(local.named_parameters) > 0 ? 1 : 0

  name = "named"
  role = aws_iam_role.execution.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [for statement in [
      { Sid = "Secrets", Effect = "Allow", Action = "secretsmanager:GetSecretValue", Resource = local.named_secrets },
      { Sid = "Parameters", Effect = "Allow", Action = "ssm:GetParameters", Resource = local.named_parameters },
    ] : statement if length(statement.Resource) > 0]
  })
}

resource "aws_iam_role" "task" {
  for_each = var.services

  name               = "${var.name}-${each.key}"
  description        = "What tasks of ${each.key} may do"
  assume_role_policy = data.aws_iam_policy_document.tasks_assume.json
  tags               = { service = each.key }
}

resource "aws_iam_role_policy" "task" {
  for_each = { for name, service in var.services : name => service if length(service.grants) > 0 }

  name = "manifest"
  role = aws_iam_role.task[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [for grant in each.value.grants : {
      Effect   = "Allow"
      Action   = sort(grant.actions)
      Resource = sort(grant.resources)
    }]
  })
}

resource "aws_iam_role_policy" "sessions" {
  for_each = { for name, service in var.services : name => service if service.execute_command }

  name   = "sessions"
  role   = aws_iam_role.task[each.key].id
  policy = data.aws_iam_policy_document.sessions.json
}

data "aws_iam_policy_document" "sessions" {
  #checkov:skip=CKV_AWS_356: These actions take no resources
  #checkov:skip=CKV_AWS_111: As above
  statement {
    sid = "Channel"
    actions = [
      "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]
  }

  statement {
    sid       = "FindLog"
    actions   = ["logs:DescribeLogGroups"]
    resources = ["*"]
  }

  statement {
    sid       = "Log"
    actions   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.sessions.arn}:*"]
  }

  statement {
    sid       = "Decrypt"
    actions   = ["kms:Decrypt"]
    resources = [module.sessions_key.arn]
  }
}
