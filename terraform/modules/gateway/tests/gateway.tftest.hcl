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
  alerts_topic_arn        = "arn:aws:sns:us-east-1:123456789012:arcade-alerts"
  runbook_url             = "https://example.com/runbooks"
}

run "without_a_certificate_it_is_internal_and_speaks_http" {
  assert {
    condition     = aws_lb.this.internal && length(aws_lb_listener.http) == 1 && length(aws_lb_listener.https) == 0
    error_message = "HTTP is spoken in public."
  }

  assert {
    condition     = output.url == "http://gw.elb.example" && aws_vpc_security_group_ingress_rule.clients["vpc"].to_port == 80
    error_message = "Clients are sent elsewhere."
  }
}

run "with_a_certificate_it_is_public_and_speaks_https_alone" {
  variables {
    certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/1"
    domain          = "arcade.example"
    client_cidrs    = { everybody = "0.0.0.0/0" }
  }

  assert {
    condition     = !aws_lb.this.internal && length(aws_lb_listener.http) == 0 && aws_lb_listener.https[0].port == 443
    error_message = "It does not speak HTTPS alone."
  }

  assert {
    condition     = startswith(aws_lb_listener.https[0].ssl_policy, "ELBSecurityPolicy-TLS13") && output.url == "https://arcade.example"
    error_message = "Old versions of TLS are spoken, or clients are sent elsewhere."
  }
}

run "only_the_load_balancer_reaches_the_tasks_and_only_on_the_gateways_port" {
  assert {
    condition = (
      aws_vpc_security_group_ingress_rule.tasks.security_group_id == "sg-tasks"
      && aws_vpc_security_group_ingress_rule.tasks.referenced_security_group_id == aws_security_group.this.id
      && aws_vpc_security_group_ingress_rule.tasks.from_port == 8000 && aws_vpc_security_group_ingress_rule.tasks.to_port == 8000
    )
    error_message = "Tasks are reached by others."
  }

  assert {
    condition     = aws_lb_target_group.this.port == 8000 && aws_lb_target_group.this.health_check[0].path == "/livez" && aws_lb_target_group.this.target_type == "ip"
    error_message = "The target group is not for the gateway's tasks."
  }
}

run "every_alarm_tells_the_topic_and_names_its_runbook" {
  assert {
    condition = alltrue([
      for alarm in [aws_cloudwatch_metric_alarm.errors, aws_cloudwatch_metric_alarm.unhealthy_targets] :
      alarm.alarm_actions == toset([var.alerts_topic_arn]) && alarm.ok_actions == toset([var.alerts_topic_arn])
      && endswith(alarm.alarm_description, "https://example.com/runbooks/${alarm.tags.kind}.md")
    ])
    error_message = "An alarm tells nobody, or does not say where its runbook is."
  }
}

run "an_alarm_without_a_runbook_is_refused" {
  command = plan

  variables {
    runbooks_folder = "tests"
  }

  expect_failures = [aws_cloudwatch_metric_alarm.errors, aws_cloudwatch_metric_alarm.unhealthy_targets]
}

run "http_to_everybody_is_refused" {
  command = plan

  variables {
    client_cidrs = { everybody = "0.0.0.0/0" }
  }

  expect_failures = [var.client_cidrs]
}

run "a_network_that_is_none_is_refused" {
  command = plan

  variables {
    client_cidrs = { office = "10.0.0.0" }
  }

  expect_failures = [var.client_cidrs]
}

run "a_certificate_that_is_none_is_refused" {
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

run "a_name_that_load_balancers_do_not_take_is_refused" {
  command = plan

  variables {
    name = "a-name-that-is-much-too-long-for-a-load-balancer"
  }

  expect_failures = [var.name]
}

run "a_threshold_of_nothing_is_refused" {
  command = plan

  variables {
    error_percent = 0
  }

  expect_failures = [var.error_percent]
}

run "a_link_to_runbooks_that_nobody_can_follow_is_refused" {
  command = plan

  variables {
    runbook_url = "docs/runbooks"
  }

  expect_failures = [var.runbook_url]
}
