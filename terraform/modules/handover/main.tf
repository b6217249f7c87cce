# The parameter by which Terraform passes names and ids to natsctl, and the table with natsctl's lock and history.

locals {
  # Absent parts are left out: natsctl refuses `null`.
  handover = merge(
    {
      version        = 1
      project        = var.project
      environment    = var.environment
      account        = var.account
      region         = var.region
      cluster        = var.cluster
      network        = var.network
      execution_role = var.execution_role
      log_group      = var.log_group
      ledger         = aws_dynamodb_table.ledger.name
      alerts_topic   = var.alerts_topic
      registry       = var.registry
      names          = var.names
      nats           = var.nats
    },
    var.redis == null ? {} : { redis = var.redis },
    var.gateway == null ? {} : { gateway = var.gateway },
  )
}

resource "aws_ssm_parameter" "handover" {
  #checkov:skip=CKV2_AWS_34: Names and ids, no secret
  name        = var.parameter
  description = "Names and ids of ${var.project} in ${var.environment} for natsctl. Terraform writes it."
  type        = "String"
  tier        = "Standard"
  value       = jsonencode(local.handover)

  lifecycle {
    precondition {
      condition     = length(jsonencode(local.handover)) < 4096
      error_message = "The handover has 4 KB or more, too much for a standard parameter: shorten names, or use fewer subnets."
    }
  }
}

resource "aws_dynamodb_table" "ledger" {
  name                        = "${var.project}-${var.environment}-natsctl"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "pk"
  range_key                   = "sk"
  deletion_protection_enabled = var.deletion_protection

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "S"
  }

  ttl {
    attribute_name = "expires"
    enabled        = true
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = var.kms_key_arn
  }
}
