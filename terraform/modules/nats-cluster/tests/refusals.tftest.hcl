mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name   = "test"
  vpc_id = "vpc-1"
  subnets = {
    us-east-1a = { id = "subnet-a", cidr = "10.0.0.0/20" }
    us-east-1b = { id = "subnet-b", cidr = "10.0.16.0/20" }
  }
  client_security_group_ids = { tasks = "sg-tasks" }
  secret_prefix             = "test/one"
  dns_zone_name             = "test.internal"
  alerting                  = { topic_arn = "arn:aws:sns:us-east-1:123456789012:alerts", runbook_url = "https://example.com/runbooks" }
  deletion_protection       = false
}

run "a_name_too_long_for_a_load_balancer_is_refused" {
  command = plan
  variables {
    name = "gaming-system-production-in-the-east"
  }
  expect_failures = [var.name]
}

run "an_even_number_of_nodes_is_refused" {
  command = plan
  variables {
    nodes = 4
  }
  expect_failures = [var.nodes]
}

run "a_single_node_is_refused" {
  command = plan
  variables {
    nodes = 1
  }
  expect_failures = [var.nodes]
}

run "too_many_nodes_is_refused" {
  command = plan
  variables {
    nodes = 11
  }
  expect_failures = [var.nodes]
}

run "a_single_zone_is_refused" {
  command = plan
  variables {
    subnets = { us-east-1a = { id = "subnet-a", cidr = "10.0.0.0/20" } }
  }
  expect_failures = [var.subnets]
}

run "a_subnet_without_room_for_nodes_is_refused" {
  command = plan
  variables {
    subnets = { us-east-1a = { id = "subnet-a", cidr = "10.0.0.0/20" }, us-east-1b = { id = "subnet-b", cidr = "10.0.16.0/27" } }
  }
  expect_failures = [var.subnets]
}

run "a_type_without_a_size_is_refused" {
  command = plan
  variables {
    instance_type = "large"
  }
  expect_failures = [var.instance_type]
}

run "a_type_without_nvme_names_is_refused" {
  command = plan
  variables {
    instance_type = "t2.small"
  }
  expect_failures = [var.instance_type]
}

run "a_volume_that_is_too_small_is_refused" {
  command = plan
  variables {
    volume_gb = 10
  }
  expect_failures = [var.volume_gb]
}

run "the_whole_internet_as_a_leaf_is_refused" {
  command = plan
  variables {
    leaf_cidrs = { internet = "0.0.0.0/0" }
  }
  expect_failures = [var.leaf_cidrs]
}

run "a_leaf_network_that_is_no_range_is_refused" {
  command = plan
  variables {
    leaf_cidrs = { office = "office" }
  }
  expect_failures = [var.leaf_cidrs]
}

run "a_prefix_that_begins_with_a_slash_is_refused" {
  command = plan
  variables {
    secret_prefix = "/test/one"
  }
  expect_failures = [var.secret_prefix]
}

run "a_zone_in_capitals_is_refused" {
  command = plan
  variables {
    dns_zone_name = "Test.internal"
  }
  expect_failures = [var.dns_zone_name]
}

run "a_retention_that_cloudwatch_does_not_accept_is_refused" {
  command = plan
  variables {
    log_retention_days = 45
  }
  expect_failures = [var.log_retention_days]
}

run "a_public_subnet_for_nodes_is_refused" {
  command = plan

  override_data {
    target = data.aws_route_table.subnet["us-east-1b"]
    values = { routes = [{ cidr_block = "0.0.0.0/0", gateway_id = "igw-1" }] }
  }

  expect_failures = [data.aws_route_table.subnet["us-east-1b"]]
}
