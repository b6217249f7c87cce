# The load balancer by which clients find a healthy node. It passes TLS through, and routes between nodes do not use it.

resource "aws_lb" "this" {
  #checkov:skip=CKV_AWS_91: A network load balancer logs TLS listeners only; the flow logs have its connections
  name                             = "${var.name}-nats"
  internal                         = true
  load_balancer_type               = "network"
  subnets                          = values(var.subnets)[*].id
  security_groups                  = [aws_security_group.balancer.id]
  enable_cross_zone_load_balancing = true
  enable_deletion_protection       = var.deletion_protection
}

resource "aws_lb_listener" "clients" {
  load_balancer_arn = aws_lb.this.arn
  port              = 4222
  protocol          = "TCP"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.clients.arn
  }
}

# Targets are addresses, which a node keeps when its instance is replaced. Connections to a node in lame duck mode may last as long as
# that takes (two minutes). Client addresses are not preserved: a tunnel through a node could not reach that same node otherwise.
resource "aws_lb_target_group" "clients" {
  name                   = "${var.name}-nats"
  vpc_id                 = var.vpc_id
  target_type            = "ip"
  protocol               = "TCP"
  port                   = 4222
  preserve_client_ip     = false
  deregistration_delay   = 150
  connection_termination = false

  health_check {
    protocol            = "HTTP"
    port                = 8222
    path                = "/healthz?js-server-only=true"
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_target_group_attachment" "node" {
  for_each = local.nodes

  target_group_arn = aws_lb_target_group.clients.arn
  target_id        = one(aws_network_interface.node[each.key].private_ips)
  port             = 4222
}

resource "aws_route53_zone" "this" {
  #checkov:skip=CKV2_AWS_38: Private zones have no DNSSEC
  #checkov:skip=CKV2_AWS_39: Private zones have no query logging; Route 53 Resolver can log a whole VPC
  name    = var.dns_zone_name
  comment = "NATS of ${var.name}"

  vpc {
    vpc_id = var.vpc_id
  }
}

resource "aws_route53_record" "clients" {
  zone_id = aws_route53_zone.this.zone_id
  name    = "nats.${var.dns_zone_name}"
  type    = "A"

  alias {
    name                   = aws_lb.this.dns_name
    zone_id                = aws_lb.this.zone_id
    evaluate_target_health = false
  }
}

resource "aws_route53_record" "node" {
  #checkov:skip=CKV2_AWS_23: It points to a network interface, which checkov does not look for
  for_each = local.nodes

  zone_id = aws_route53_zone.this.zone_id
  name    = "${each.key}.${var.dns_zone_name}"
  type    = "A"
  ttl     = 60
  records = aws_network_interface.node[each.key].private_ips
}
