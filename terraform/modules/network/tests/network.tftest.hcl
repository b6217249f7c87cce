mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name  = "test"
  cidr  = "10.0.0.0/16"
  zones = ["us-east-1a", "us-east-1b", "us-east-1c"]
}

# This run applies, so that the plans of the others know ids.
run "three_zones_have_two_subnets_each_and_none_assigns_public_addresses" {
  assert {
    condition     = join(" ", keys(output.private_subnets)) == "us-east-1a us-east-1b us-east-1c" && length(output.public_subnet_ids) == 3
    error_message = "Every zone has a private and a public subnet."
  }

  assert {
    condition     = alltrue([for subnet in concat(values(aws_subnet.private), values(aws_subnet.public)) : subnet.map_public_ip_on_launch != true])
    error_message = "No subnet assigns public addresses."
  }

  assert {
    condition     = output.private_subnets["us-east-1b"].cidr == "10.0.16.0/20" && output.public_subnets["us-east-1b"].cidr == "10.0.241.0/24"
    error_message = "The second of 16 parts is private, the public one is a 16th of the last."
  }
}

run "each_zone_has_its_own_nat_gateway" {
  command = plan

  assert {
    condition = length(aws_nat_gateway.this) == 3 && alltrue([
      for zone, route in aws_route.private_out : route.nat_gateway_id == aws_nat_gateway.this[zone].id
    ])
    error_message = "Three gateways, each for its own zone."
  }
}

run "one_nat_gateway_is_for_every_zone" {
  command = plan

  variables {
    nat = "one"
  }

  assert {
    condition = join(" ", keys(aws_nat_gateway.this)) == "us-east-1a" && alltrue([
      for route in values(aws_route.private_out) : route.nat_gateway_id == aws_nat_gateway.this["us-east-1a"].id
    ])
    error_message = "One gateway, for all zones."
  }
}

run "no_private_subnet_is_reached_from_the_internet" {
  command = plan

  assert {
    condition = alltrue([for route in values(aws_route.private_out) : route.gateway_id == null || route.gateway_id == ""]) && alltrue([
      for zone, association in aws_route_table_association.private : association.route_table_id == aws_route_table.private[zone].id
    ])
    error_message = "Private subnets are routed to a NAT gateway, never to the Internet gateway."
  }
}

run "a_zone_keeps_its_subnets_when_another_is_removed" {
  command = plan

  variables {
    zones = ["us-east-1c", "us-east-1b"]
  }

  assert {
    condition     = output.private_subnets["us-east-1b"].cidr == "10.0.16.0/20" && output.private_subnets["us-east-1c"].cidr == "10.0.32.0/20"
    error_message = "The addresses of a zone follow from its letter."
  }
}

run "aws_services_that_private_instances_need_have_endpoints" {
  command = plan

  assert {
    condition     = join(" ", keys(aws_vpc_endpoint.interface)) == "ec2messages ecr.api ecr.dkr logs secretsmanager ssm ssmmessages" && alltrue([for endpoint in values(aws_vpc_endpoint.interface) : endpoint.private_dns_enabled && length(endpoint.subnet_ids) == 3])
    error_message = "Seven interface endpoints in all zones, with private DNS."
  }

  assert {
    condition     = aws_vpc_endpoint.s3[0].vpc_endpoint_type == "Gateway" && length(aws_vpc_endpoint.s3[0].route_table_ids) == 3
    error_message = "S3 has a gateway endpoint for all private subnets."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.endpoints[0].cidr_ipv4 == "10.0.0.0/16" && aws_vpc_security_group_ingress_rule.endpoints[0].from_port == 443 && aws_vpc_security_group_ingress_rule.endpoints[0].to_port == 443
    error_message = "They accept HTTPS, from this network only."
  }
}

run "endpoints_may_be_few" {
  command = plan

  variables {
    endpoints = ["s3"]
  }

  assert {
    condition     = length(aws_vpc_endpoint.interface) == 0 && length(aws_security_group.endpoints) == 0 && length(aws_vpc_endpoint.s3) == 1
    error_message = "Only the endpoint that costs nothing."
  }
}

run "all_connections_are_recorded_for_30_days" {
  command = plan

  assert {
    condition     = aws_flow_log.this[0].traffic_type == "ALL" && aws_cloudwatch_log_group.flow[0].retention_in_days == 30
    error_message = "Flow logs are on."
  }
}

run "the_default_security_group_is_closed" {
  command = plan

  assert {
    condition     = length(aws_default_security_group.closed[0].ingress) == 0 && length(aws_default_security_group.closed[0].egress) == 0
    error_message = "It has no rules."
  }
}

run "an_existing_network_stays_as_it_is" {
  command = plan

  variables {
    cidr  = null
    zones = []
    existing = {
      vpc_id             = "vpc-1"
      private_subnet_ids = ["subnet-a", "subnet-b"]
    }
  }

  override_data {
    target = data.aws_vpc.existing[0]
    values = { id = "vpc-1", cidr_block = "172.16.0.0/16" }
  }
  override_data {
    target = data.aws_subnet.private["subnet-a"]
    values = { availability_zone = "us-east-1a", cidr_block = "172.16.0.0/20" }
  }
  override_data {
    target = data.aws_subnet.private["subnet-b"]
    values = { availability_zone = "us-east-1b", cidr_block = "172.16.16.0/20" }
  }

  assert {
    condition     = output.vpc_id == "vpc-1" && output.vpc_cidr == "172.16.0.0/16" && output.private_subnets["us-east-1b"] == { id = "subnet-b", cidr = "172.16.16.0/20" }
    error_message = "The outputs are those of the existing network."
  }

  assert {
    condition     = length(aws_vpc.this) + length(aws_subnet.private) + length(aws_nat_gateway.this) + length(aws_vpc_endpoint.interface) + length(aws_flow_log.this) == 0
    error_message = "Nothing is created."
  }
}

run "two_existing_subnets_in_one_zone_are_refused" {
  command = plan

  variables {
    cidr  = null
    zones = []
    existing = {
      vpc_id             = "vpc-1"
      private_subnet_ids = ["subnet-a", "subnet-b"]
    }
  }

  override_data {
    target = data.aws_subnet.private["subnet-a"]
    values = { availability_zone = "us-east-1a", cidr_block = "172.16.0.0/20" }
  }
  override_data {
    target = data.aws_subnet.private["subnet-b"]
    values = { availability_zone = "us-east-1a", cidr_block = "172.16.16.0/20" }
  }

  expect_failures = [output.private_subnets]
}
