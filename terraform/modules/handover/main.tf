# The only thing that Terraform and natsctl have in common, and the table in which natsctl keeps its lock and what it has done.

locals {
  # What is absent is left out: natsctl refuses what it does not know, and `null` is no value.
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
  #checkov:skip=CKV2_AWS_34: Names and ids, no secret; whoever may read it may know them
  name        = var.parameter
  description = "What natsctl must know of ${var.project} in ${var.environment}. Terraform writes it."
  type        = "String"
  tier        = "Standard"
  value       = jsonencode(local.handover)

  lifecycle {
    precondition {
      condition     = length(jsonencode(local.handover)) < 4096
      error_message = "The handover has 4 KB or more, which a standard parameter does not hold: shorten names, or use fewer subnets."
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
