mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name  = "test"
  cidr  = "10.0.0.0/16"
  zones = ["us-east-1a", "us-east-1b", "us-east-1c"]
}

run "a_name_that_aws_does_not_accept_is_refused" {
  command = plan
  variables {
    name = "Test_1"
  }
  expect_failures = [var.name]
}

run "a_range_without_a_prefix_length_is_refused" {
  command = plan
  variables {
    cidr = "10.0.0.0"
  }
  expect_failures = [var.cidr]
}

run "a_range_that_is_too_small_is_refused" {
  command = plan
  variables {
    cidr = "10.0.0.0/21"
  }
  expect_failures = [var.cidr]
}

run "a_range_that_is_too_large_is_refused" {
  command = plan
  variables {
    cidr = "10.0.0.0/15"
  }
  expect_failures = [var.cidr]
}

run "a_range_that_does_not_begin_at_its_first_address_is_refused" {
  command = plan
  variables {
    cidr = "10.0.1.0/16"
  }
  expect_failures = [var.cidr]
}

run "no_range_and_no_existing_network_is_refused" {
  command = plan
  variables {
    cidr = null
  }
  expect_failures = [var.cidr]
}

run "a_range_for_an_existing_network_is_refused" {
  command = plan
  variables {
    zones    = []
    existing = { vpc_id = "vpc-1", private_subnet_ids = ["subnet-a", "subnet-b"] }
  }
  expect_failures = [var.cidr]
}

run "a_range_inside_of_a_neighbour_is_refused" {
  command = plan
  variables {
    apart_from = { office = "192.168.0.0/16", datacentre = "10.0.0.0/8" }
  }
  expect_failures = [var.apart_from]
}

run "a_range_around_a_neighbour_is_refused" {
  command = plan
  variables {
    apart_from = { development = "10.0.128.0/20" }
  }
  expect_failures = [var.apart_from]
}

run "a_neighbour_that_is_no_range_is_refused" {
  command = plan
  variables {
    apart_from = { office = "here" }
  }
  expect_failures = [var.apart_from]
}

run "a_range_beside_its_neighbours_is_accepted" {
  command = plan
  variables {
    apart_from = { development = "10.1.0.0/16", office = "192.168.0.0/24" }
  }
}

run "one_zone_is_refused" {
  command = plan
  variables {
    zones = ["us-east-1a"]
  }
  expect_failures = [var.zones]
}

run "the_same_zone_twice_is_refused" {
  command = plan
  variables {
    zones = ["us-east-1a", "us-east-1a"]
  }
  expect_failures = [var.zones]
}

run "a_zone_without_its_letter_is_refused" {
  command = plan
  variables {
    zones = ["us-east-1", "us-east-1b"]
  }
  expect_failures = [var.zones]
}

run "an_unknown_form_of_nat_is_refused" {
  command = plan
  variables {
    nat = "two"
  }
  expect_failures = [var.nat]
}

run "an_unknown_endpoint_is_refused" {
  command = plan
  variables {
    endpoints = ["ssm", "dynamo"]
  }
  expect_failures = [var.endpoints]
}

run "unknown_traffic_is_refused" {
  command = plan
  variables {
    flow_logs = { traffic = "SOME" }
  }
  expect_failures = [var.flow_logs]
}

run "a_retention_that_cloudwatch_does_not_accept_is_refused" {
  command = plan
  variables {
    flow_logs = { retention_days = 45 }
  }
  expect_failures = [var.flow_logs]
}

run "an_existing_network_with_one_subnet_is_refused" {
  command = plan
  variables {
    cidr     = null
    zones    = []
    existing = { vpc_id = "vpc-1", private_subnet_ids = ["subnet-a"] }
  }
  expect_failures = [var.existing]
}

run "a_subnet_that_is_private_and_public_is_refused" {
  command = plan
  variables {
    cidr     = null
    zones    = []
    existing = { vpc_id = "vpc-1", private_subnet_ids = ["subnet-a", "subnet-b"], public_subnet_ids = ["subnet-b"] }
  }
  expect_failures = [var.existing]
}
