# What outlives a machine: address, volume, and the secret with the server's certificate, key and credentials.

# Addresses of nodes are fixed; nothing else gets one of them by chance.
resource "aws_ec2_subnet_cidr_reservation" "nodes" {
  for_each = var.subnets

  subnet_id        = each.value.id
  cidr_block       = local.reserved[each.key]
  reservation_type = "explicit"
  description      = "NATS nodes of ${var.name}"
}

resource "aws_network_interface" "node" {
  for_each = local.nodes

  subnet_id       = var.subnets[each.value.zone].id
  private_ips     = [each.value.address]
  security_groups = [aws_security_group.nodes.id]
  description     = "${each.key} of ${var.name}"
  tags            = { Name = "${var.name}-${each.key}", node = each.key }

  depends_on = [aws_ec2_subnet_cidr_reservation.nodes, data.aws_route_table.subnet]
}

resource "aws_ebs_volume" "data" {
  for_each = local.nodes

  availability_zone = each.value.zone
  type              = "gp3"
  size              = var.volume_gb
  encrypted         = true
  kms_key_id        = aws_kms_key.this.arn
  tags              = { Name = "${var.name}-${each.key}-data", node = each.key }
}

# `prevent_destroy` takes no variable. So it is on something that stands and falls with what is to be kept: a plan that destroys or
# replaces one of these would have to destroy this too, and is refused. To do it on purpose: README.md.
resource "terraform_data" "kept" {
  for_each = var.deletion_protection ? local.nodes : {}

  triggers_replace = {
    volume    = aws_ebs_volume.data[each.key].id
    interface = aws_network_interface.node[each.key].id
    key       = aws_kms_key.this.id
  }

  lifecycle {
    prevent_destroy = true
  }
}

# Shells: natsctl writes the values.
resource "aws_secretsmanager_secret" "node" {
  #checkov:skip=CKV2_AWS_57: natsctl rotates what is in it, node by node, and proves that the new certificate is served
  for_each = local.nodes

  name                    = "${var.secret_prefix}/nats/${each.key}"
  description             = "Certificate, key and credentials of the NATS server ${each.key}"
  kms_key_id              = aws_kms_key.this.arn
  recovery_window_in_days = var.deletion_protection ? 30 : 0
}

# A subnet whose routes lead to an Internet gateway is public: nodes have no place there.
data "aws_route_table" "subnet" {
  for_each = var.subnets

  subnet_id = each.value.id

  lifecycle {
    postcondition {
      condition     = alltrue([for route in self.routes : !startswith(coalesce(route.gateway_id, "-"), "igw-")])
      error_message = "The subnet ${each.value.id} in ${each.key} is public: its routes lead to an Internet gateway. Nodes are in private subnets."
    }
  }
}
