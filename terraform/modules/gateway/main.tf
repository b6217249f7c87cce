# The load balancer for HTTP clients. natsctl registers the gateway's tasks with its target group.

locals {
  is_internal = var.certificate_arn == null
  port        = 8000
}

resource "aws_lb" "this" {
  #checkov:skip=CKV2_AWS_28: A web application firewall is a decision of its own: the gateway limits what it accepts
  #checkov:skip=CKV2_AWS_20: There is no listener on port 80 to redirect, if there is a certificate
  #checkov:skip=CKV_AWS_91: Logs go to `access_logs_bucket`, if one is named
  #checkov:skip=CKV_AWS_150: `deletion_protection` decides, and production has it
  name                       = var.name
  load_balancer_type         = "application"
  internal                   = local.is_internal
  subnets                    = var.subnet_ids
  security_groups            = [aws_security_group.this.id]
  drop_invalid_header_fields = true
  enable_deletion_protection = var.deletion_protection
  idle_timeout               = 120 # The gateway times out after 30 s; streams send something more often than this.

  dynamic "access_logs" {
    for_each = var.access_logs_bucket[*]

    content {
      bucket  = access_logs.value
      prefix  = var.name
      enabled = true
    }
  }
}

# `/livez`, not `/readyz`: ECS replaces tasks with unhealthy targets, which does not help when NATS is down.
resource "aws_lb_target_group" "this" {
  #checkov:skip=CKV_AWS_378: In the VPC, from the load balancer to tasks that only it may reach
  name                          = var.name
  vpc_id                        = var.vpc_id
  target_type                   = "ip"
  protocol                      = "HTTP"
  port                          = local.port
  deregistration_delay          = 35
  load_balancing_algorithm_type = "least_outstanding_requests"

  health_check {
    path                = "/livez"
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "https" {
  count = var.certificate_arn == null ? 0 : 1

  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "HTTPS"
  certificate_arn   = var.certificate_arn
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this.arn
  }
}

resource "aws_lb_listener" "http" {
  #checkov:skip=CKV_AWS_2: Only without a certificate, and then the load balancer is internal
  #checkov:skip=CKV_AWS_103: As above
  count = var.certificate_arn == null ? 1 : 0

  load_balancer_arn = aws_lb.this.arn
  port              = 80
  protocol          = "HTTP"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this.arn
  }
}

resource "aws_security_group" "this" {
  name_prefix = "${var.name}-lb-"
  description = "Load balancer of the gateway"
  vpc_id      = var.vpc_id
  tags        = { Name = "${var.name}-lb" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  #checkov:skip=CKV_AWS_260: Port 80 is open without a certificate only, to the named networks
  for_each = var.client_cidrs

  security_group_id = aws_security_group.this.id
  description       = "From ${each.key}"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = var.certificate_arn == null ? 80 : 443
  to_port           = var.certificate_arn == null ? 80 : 443
}

resource "aws_vpc_security_group_egress_rule" "tasks" {
  security_group_id            = aws_security_group.this.id
  description                  = "To the tasks of the gateway"
  referenced_security_group_id = var.tasks_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
}

resource "aws_vpc_security_group_ingress_rule" "tasks" {
  security_group_id            = var.tasks_security_group_id
  description                  = "From the load balancer of the gateway"
  referenced_security_group_id = aws_security_group.this.id
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
}
