# The nodes. A node's name, address and volume outlive its instance, and instances are replaced one at a time. natsctl installs and
# operates NATS on them.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

# Instance families of Graviton have a `g` behind their number.
data "aws_ssm_parameter" "image" {
  name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-${local.architecture}"
}

locals {
  architecture = can(regex("^[a-z]+[0-9]+g", var.instance_type)) ? "arm64" : "x86_64"

  # nats-1 is in the first zone, nats-2 in the second, and so on in turn. Each has the address of its number in the 16
  # addresses that are reserved for nodes in each subnet.
  zones = sort(keys(var.subnets))
  nodes = { for number in range(1, var.nodes + 1) : "nats-${number}" => {
    zone    = element(local.zones, number - 1)
    address = cidrhost(local.reserved[element(local.zones, number - 1)], number)
  } }
  reserved = { for zone, subnet in var.subnets : zone => cidrsubnet(subnet.cidr, 28 - split("/", subnet.cidr)[1], 1) }
}

# Never two on the same hardware.
resource "aws_placement_group" "this" {
  name     = "${var.name}-nats"
  strategy = "spread"
}

# Image, type and user data only take effect when an instance is replaced: otherwise a new image would replace all nodes at once, and
# a new type would stop all of them at once.
resource "aws_instance" "node" {
  for_each = local.nodes

  ami                     = data.aws_ssm_parameter.image.insecure_value
  instance_type           = var.instance_type
  iam_instance_profile    = aws_iam_instance_profile.node[each.key].name
  placement_group         = aws_placement_group.this.name
  monitoring              = true
  ebs_optimized           = true
  disable_api_termination = var.deletion_protection
  tags                    = { Name = "${var.name}-${each.key}", node = each.key }

  user_data = templatefile("${path.module}/prepare.sh.tftpl", {
    node      = each.key
    volume    = replace(aws_ebs_volume.data[each.key].id, "-", "")
    namespace = local.metrics_namespace
    log_group = aws_cloudwatch_log_group.this.name
  })

  network_interface {
    network_interface_id = aws_network_interface.node[each.key].id
    device_index         = 0
  }

  root_block_device {
    encrypted   = true
    kms_key_id  = module.key.arn
    volume_type = "gp3"
    volume_size = 20
    tags        = { Name = "${var.name}-${each.key}-system" }
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  lifecycle {
    ignore_changes = [ami, instance_type, user_data]
  }

  # Without these the user data could not install packages, and Systems Manager could not reach the instance.
  depends_on = [aws_iam_role_policy.node, aws_vpc_security_group_egress_rule.https]
}

resource "aws_volume_attachment" "data" {
  for_each = local.nodes

  device_name = "/dev/sdf"
  volume_id   = aws_ebs_volume.data[each.key].id
  instance_id = aws_instance.node[each.key].id

  # The server stops before its volume is detached.
  stop_instance_before_detaching = true
}
