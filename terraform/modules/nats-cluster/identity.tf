# What outlives an instance: address, volume, and the secret with the server's certificate, key and credentials.

# Addresses of nodes are fixed: AWS assigns none of them to anything else.
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
  kms_key_id        = module.key.arn
  tags              = { Name = "${var.name}-${each.key}-data", node = each.key }
}

# `prevent_destroy` takes no variable. So it is on a resource that is replaced together with what it protects: Terraform refuses a plan
# that destroys or replaces one of these. README.md says how to do it on purpose.
resource "terraform_data" "protected" {
  for_each = var.deletion_protection ? local.nodes : {}

  triggers_replace = {
    volume    = aws_ebs_volume.data[each.key].id
    interface = aws_network_interface.node[each.key].id
    key       = module.key.id
  }

  lifecycle {
    prevent_destroy = true
  }
}

# Without values: natsctl writes them.
resource "aws_secretsmanager_secret" "node" {
  #checkov:skip=CKV2_AWS_57: natsctl rotates the values, node by node, and verifies that the new certificate is served
  for_each = local.nodes

  name                    = "${var.secret_prefix}/nats/${each.key}"
  description             = "Certificate, key and credentials of the NATS server ${each.key}"
  kms_key_id              = module.key.arn
  recovery_window_in_days = var.deletion_protection ? 30 : 0
}

# A subnet with a route to an Internet gateway is public, and no place for nodes.
data "aws_route_table" "subnet" {
  for_each = var.subnets

  subnet_id = each.value.id

  lifecycle {
    postcondition {
      condition     = alltrue([for route in self.routes : !startswith(coalesce(route.gateway_id, "-"), "igw-")])
      error_message = "The subnet ${each.value.id} in ${each.key} is public: it has a route to an Internet gateway. Nodes are in private subnets."
    }
  }
}
