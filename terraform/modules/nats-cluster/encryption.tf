# One key for everything that belongs to the nodes: volumes, secrets and logs.

locals {
  log_group         = "/ec2/${var.name}-nats"
  metrics_namespace = "${var.name}/nats"
}

module "key" {
  source = "../kms-key"

  description          = "NATS nodes of ${var.name}"
  alias                = "${var.name}-nats"
  log_groups           = [local.log_group]
  deletion_window_days = var.deletion_protection ? 30 : 7
}

resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_338: Server logs are for recent incidents; the audit log is in JetStream
  name              = local.log_group
  retention_in_days = var.log_retention_days
  kms_key_id        = module.key.arn
}
