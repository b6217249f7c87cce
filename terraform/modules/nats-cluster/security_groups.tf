# Which connections are allowed. Rules refer to security groups, as addresses are reused.
#
#   4222  clients: tasks and the load balancer
#   6222  routes: between nodes
#   7422  leaf nodes: named networks outside
#   8222  monitoring: between nodes, and the load balancer's health check
#
# Nothing else, and no SSH: instances are reached through Systems Manager, which needs no open port.

resource "aws_security_group" "nodes" {
  name_prefix = "${var.name}-nats-"
  description = "NATS nodes of ${var.name}"
  vpc_id      = var.vpc_id
  tags        = { Name = "${var.name}-nats" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group" "balancer" {
  name_prefix = "${var.name}-nats-balancer-"
  description = "Load balancer of the NATS nodes of ${var.name}"
  vpc_id      = var.vpc_id
  tags        = { Name = "${var.name}-nats-balancer" }

  lifecycle {
    create_before_destroy = true
  }
}

locals {
  # The nodes are clients of the load balancer when an on-call engineer opens a tunnel through one of them.
  balancer_clients = merge(var.client_security_group_ids, { nodes = aws_security_group.nodes.id })
  node_clients     = merge(var.client_security_group_ids, { balancer = aws_security_group.balancer.id })

  among_nodes       = { routes = 6222, monitoring = 8222 }
  balancer_to_nodes = { clients = 4222, health = 8222 }
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = local.node_clients

  security_group_id            = aws_security_group.nodes.id
  description                  = "Clients: ${each.key}"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 4222
  to_port                      = 4222
}

resource "aws_vpc_security_group_ingress_rule" "among_nodes" {
  for_each = local.among_nodes

  security_group_id            = aws_security_group.nodes.id
  description                  = "Between nodes: ${each.key}"
  referenced_security_group_id = aws_security_group.nodes.id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}

resource "aws_vpc_security_group_ingress_rule" "health" {
  security_group_id            = aws_security_group.nodes.id
  description                  = "Health checks of the load balancer"
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = 8222
  to_port                      = 8222
}

resource "aws_vpc_security_group_ingress_rule" "leaves" {
  for_each = var.leaf_cidrs

  security_group_id = aws_security_group.nodes.id
  description       = "Leaf nodes: ${each.key}"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 7422
  to_port           = 7422
}

resource "aws_vpc_security_group_egress_rule" "among_nodes" {
  for_each = local.among_nodes

  security_group_id            = aws_security_group.nodes.id
  description                  = "Between nodes: ${each.key}"
  referenced_security_group_id = aws_security_group.nodes.id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}

resource "aws_vpc_security_group_egress_rule" "balancer" {
  security_group_id            = aws_security_group.nodes.id
  description                  = "A tunnel through a node"
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = 4222
  to_port                      = 4222
}

resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.nodes.id
  description       = "Systems Manager, packages, the release of NATS"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_ingress_rule" "balancer" {
  for_each = local.balancer_clients

  security_group_id            = aws_security_group.balancer.id
  description                  = "Clients: ${each.key}"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 4222
  to_port                      = 4222
}

resource "aws_vpc_security_group_egress_rule" "balancer_to_nodes" {
  for_each = local.balancer_to_nodes

  security_group_id            = aws_security_group.balancer.id
  description                  = "To the nodes: ${each.key}"
  referenced_security_group_id = aws_security_group.nodes.id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}
