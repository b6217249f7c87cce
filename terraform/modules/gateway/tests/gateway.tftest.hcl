mock_provider "aws" {
  mock_resource "aws_lb" {
    defaults = {
      arn        = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/gw/0123456789abcdef"
      arn_suffix = "app/gw/0123456789abcdef"
      dns_name   = "gw.elb.example"
    }
  }
  mock_resource "aws_lb_target_group" {
    defaults = {
      arn        = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/gw/0123456789abcdef"
      arn_suffix = "targetgroup/gw/0123456789abcdef"
    }
  }
}

variables {
  name                    = "arcade-production-gw"
  vpc_id                  = "vpc-1"
  subnet_ids              = ["subnet-1", "subnet-2"]
  client_cidrs            = { vpc = "10.0.0.0/16" }
  tasks_security_group_id = "sg-tasks"
  alerting                = { topic_arn = "arn:aws:sns:us-east-1:123456789012:arcade-alerts", runbook_url = "https://example.com/runbooks" }
}

# This run applies, so that the plans of the others know ids.
run "without_a_certificate_it_is_internal_and_uses_http" {
  assert {
    condition     = aws_lb.this.internal && length(aws_lb_listener.http) == 1 && length(aws_lb_listener.https) == 0
    error_message = "HTTP is public."
  }

  assert {
    condition     = output.url == "http://gw.elb.example" && aws_vpc_security_group_ingress_rule.clients["vpc"].to_port == 80
    error_message = "The URL is not where the load balancer listens."
  }
}

run "with_a_certificate_it_is_public_and_uses_https_only" {
  command = plan

  variables {
    certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/1"
    domain          = "arcade.example"
    client_cidrs    = { internet = "0.0.0.0/0" }
  }

  assert {
    condition     = !aws_lb.this.internal && length(aws_lb_listener.http) == 0 && aws_lb_listener.https[0].port == 443
    error_message = "It does not use HTTPS only."
  }

  assert {
    condition     = startswith(aws_lb_listener.https[0].ssl_policy, "ELBSecurityPolicy-TLS13") && output.url == "https://arcade.example"
    error_message = "Old versions of TLS are accepted, or the URL is another one."
  }
}

run "only_the_load_balancer_reaches_the_tasks_and_only_on_the_gateways_port" {
  command = plan

  assert {
    condition = (
      aws_vpc_security_group_ingress_rule.tasks.security_group_id == "sg-tasks"
      && aws_vpc_security_group_ingress_rule.tasks.referenced_security_group_id == aws_security_group.this.id
      && aws_vpc_security_group_ingress_rule.tasks.from_port == 8000 && aws_vpc_security_group_ingress_rule.tasks.to_port == 8000
    )
    error_message = "Others than the load balancer reach the tasks."
  }

  assert {
    condition     = aws_lb_target_group.this.port == 8000 && aws_lb_target_group.this.health_check[0].path == "/livez" && aws_lb_target_group.this.target_type == "ip"
    error_message = "The target group is not for the gateway's tasks."
  }
}

run "descriptions_of_rules_have_no_characters_that_ec2_refuses" {
  command = plan

  assert {
    condition = alltrue([
      for description in concat(
        [aws_security_group.this.description, aws_vpc_security_group_egress_rule.tasks.description, aws_vpc_security_group_ingress_rule.tasks.description],
        values(aws_vpc_security_group_ingress_rule.clients)[*].description,
      ) : can(regex("^[A-Za-z0-9 ._:/()#,@+=&;{}!$*-]+$", description))
    ])
    error_message = "EC2 refuses other characters, for example apostrophes."
  }
}

run "two_kinds_of_alarms_have_the_load_balancers_name" {
  command = plan

  assert {
    condition = output.alarm_names == {
      gateway-5xx               = ["arcade-production-gw-5xx"]
      gateway-unhealthy-targets = ["arcade-production-gw-unhealthy-targets"]
    }
    error_message = "The alarms of the gateway are missing, or have other names."
  }
}

run "http_to_the_internet_is_refused" {
  command = plan

  variables {
    client_cidrs = { internet = "0.0.0.0/0" }
  }

  expect_failures = [var.client_cidrs]
}

run "a_network_that_is_no_range_is_refused" {
  command = plan

  variables {
    client_cidrs = { office = "10.0.0.0" }
  }

  expect_failures = [var.client_cidrs]
}

run "a_certificate_that_is_no_arn_is_refused" {
  command = plan

  variables {
    certificate_arn = "my-certificate"
  }

  expect_failures = [var.certificate_arn]
}

run "one_subnet_is_refused" {
  command = plan

  variables {
    subnet_ids = ["subnet-1"]
  }

  expect_failures = [var.subnet_ids]
}

run "a_name_too_long_for_a_load_balancer_is_refused" {
  command = plan

  variables {
    name = "a-name-that-is-much-too-long-for-a-load-balancer"
  }

  expect_failures = [var.name]
}

run "a_threshold_of_zero_is_refused" {
  command = plan

  variables {
    error_percent = 0
  }

  expect_failures = [var.error_percent]
}
