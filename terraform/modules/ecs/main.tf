# The cluster and the security group of its tasks. natsctl makes services and task definitions.

data "aws_caller_identity" "current" {}
data "aws_region" "current" {}
data "aws_partition" "current" {}

locals {
  partition = data.aws_partition.current.partition
  account   = data.aws_caller_identity.current.account_id
  region    = data.aws_region.current.name
}

resource "aws_ecs_cluster" "this" {
  name = var.cluster

  setting {
    name  = "containerInsights"
    value = "enabled"
  }

  configuration {
    execute_command_configuration {
      kms_key_id = module.sessions_key.arn
      logging    = "OVERRIDE"

      log_configuration {
        cloud_watch_encryption_enabled = true
        cloud_watch_log_group_name     = aws_cloudwatch_log_group.sessions.name
      }
    }
  }
}

# For services that are created without a capacity provider strategy. One task of each is never on Spot.
resource "aws_ecs_cluster_capacity_providers" "this" {
  cluster_name       = aws_ecs_cluster.this.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]

  default_capacity_provider_strategy {
    capacity_provider = "FARGATE"
    base              = 1
    weight            = 100 - var.spot_percent
  }

  dynamic "default_capacity_provider_strategy" {
    for_each = var.spot_percent > 0 ? [var.spot_percent] : []

    content {
      capacity_provider = "FARGATE_SPOT"
      weight            = default_capacity_provider_strategy.value
    }
  }
}

# ECS would create this log group without a retention.
resource "aws_cloudwatch_log_group" "insights" {
  #checkov:skip=CKV_AWS_338: CloudWatch keeps the metrics for 15 months; the raw events are for recent incidents
  #checkov:skip=CKV_AWS_158: Utilization is no secret, and ECS writes it without a right to a customer managed key
  name              = "/aws/ecs/containerinsights/${var.cluster}/performance"
  retention_in_days = 7
}

resource "aws_security_group" "tasks" {
  #checkov:skip=CKV2_AWS_5: natsctl attaches it to the services that it creates
  name_prefix = "${var.name}-tasks-"
  description = "Tasks of ${var.name}. Only the load balancer of the gateway connects to them."
  vpc_id      = var.network.vpc_id
  tags        = { Name = "${var.name}-tasks" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_egress_rule" "internal" {
  for_each = var.network.internal_ports

  security_group_id = aws_security_group.tasks.id
  description       = "To ${each.key}"
  cidr_ipv4         = var.network.vpc_cidr
  ip_protocol       = "tcp"
  from_port         = each.value
  to_port           = each.value
}

resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.tasks.id
  description       = "To the APIs of AWS, the registry, and model providers"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}
