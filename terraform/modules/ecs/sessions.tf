# Sessions of `natsctl exec` are encrypted in transit and in their log.

locals {
  sessions_log_group = "/ecs/${var.cluster}/sessions"
}

module "sessions_key" {
  source = "../kms-key"

  description = "Sessions in tasks of ${var.name}"
  alias       = "${var.name}-sessions"
  log_groups  = [local.sessions_log_group]
}

resource "aws_cloudwatch_log_group" "sessions" {
  name              = local.sessions_log_group
  retention_in_days = var.sessions_retention_days
  kms_key_id        = module.sessions_key.arn
}
