# What each service has beside its tasks: a repository for its image, and somewhere to write its log.

data "aws_caller_identity" "current" {}
data "aws_region" "current" {}
data "aws_partition" "current" {}

locals {
  partition = data.aws_partition.current.partition
  account   = data.aws_caller_identity.current.account_id
  region    = data.aws_region.current.name
}

# One for each service, and one for natsctl's own image: it runs as a task when it must ask the bus from within.
resource "aws_ecr_repository" "service" {
  for_each = merge({ for name, service in var.services : name => service.ecs_name }, { natsctl = "natsctl" })

  name                 = "${var.repository_namespace}/${each.value}"
  image_tag_mutability = "IMMUTABLE"
  force_delete         = !var.deletion_protection
  tags                 = { service = each.key }

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = aws_kms_key.this.arn
  }
}

# ECR does not know what runs. What runs was among the last images of its service, so many of these are kept. What has no tag is no
# rubbish: lists of contents hang on their image by digest alone, and go with it.
resource "aws_ecr_lifecycle_policy" "service" {
  for_each = aws_ecr_repository.service

  repository = each.value.name
  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "All but the newest ${var.images_kept}"
      selection    = { tagStatus = "tagged", tagPatternList = ["*"], countType = "imageCountMoreThan", countNumber = var.images_kept }
      action       = { type = "expire" }
    }]
  })
}

resource "aws_cloudwatch_log_group" "services" {
  #checkov:skip=CKV_AWS_338: Logs of services are for finding faults, 30 days; what must be kept long is in the audit stream
  name              = var.log_group
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.this.arn
}

# One key for images, logs and secrets of the fleet.
resource "aws_kms_key" "this" {
  description             = "Images, logs and secrets of ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key.json
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.name}-fleet"
  target_key_id = aws_kms_key.this.key_id
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
      values   = ["arn:${local.partition}:logs:${local.region}:${local.account}:log-group:${var.log_group}"]
    }
  }
}
