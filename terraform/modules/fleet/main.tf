# What each service has beside its tasks: a repository for its image, and somewhere to write its log.

data "aws_caller_identity" "current" {}
data "aws_region" "current" {}
data "aws_partition" "current" {}

locals {
  partition = data.aws_partition.current.partition
  account   = data.aws_caller_identity.current.account_id
  region    = data.aws_region.current.name
}

# One for each service, and one for natsctl's own image, which runs as a task where NATS can only be reached from the VPC.
resource "aws_ecr_repository" "service" {
  for_each = merge({ for name, service in var.services : name => service.ecs_name if service.is_built }, { natsctl = "natsctl" })

  name                 = "${var.repository_namespace}/${each.value}"
  image_tag_mutability = "IMMUTABLE"
  force_delete         = !var.deletion_protection
  tags                 = { service = each.key }

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = module.key.arn
  }
}

# ECR does not know which images run. They are among the newest of their service, so many of these are kept. Untagged manifests are in
# use: SBOMs refer to their image by digest, and are deleted with it.
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
  #checkov:skip=CKV_AWS_338: Service logs are for recent incidents, 30 days; the audit log is in JetStream
  name              = var.log_group
  retention_in_days = var.log_retention_days
  kms_key_id        = module.key.arn
}

# One key for images, logs and secrets of the fleet.
module "key" {
  source = "../kms-key"

  description = "Images, logs and secrets of ${var.name}"
  alias       = "${var.name}-fleet"
  log_groups  = [var.log_group]
}
