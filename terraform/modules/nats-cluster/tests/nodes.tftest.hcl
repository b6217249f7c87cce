mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name   = "test"
  vpc_id = "vpc-1"
  nodes  = 5
  subnets = {
    us-east-1a = { id = "subnet-a", cidr = "10.0.0.0/20" }
    us-east-1b = { id = "subnet-b", cidr = "10.0.16.0/20" }
    us-east-1c = { id = "subnet-c", cidr = "10.0.32.0/20" }
  }
  client_security_group_ids = { tasks = "sg-tasks" }
  leaf_cidrs                = { office = "192.168.0.0/24" }
  secret_prefix             = "test/one"
  dns_zone_name             = "test.internal"
  alerting                  = { topic_arn = "arn:aws:sns:us-east-1:123456789012:alerts", runbook_url = "https://example.com/runbooks" }
  deletion_protection       = false
}

# This run applies, so that the plans of the others know ids.
run "nodes_are_placed_in_the_zones_in_turn_and_have_fixed_addresses" {
  assert {
    condition = { for name, node in output.nodes : name => "${node.zone} ${node.address}" } == {
      nats-1 = "us-east-1a 10.0.0.17"
      nats-2 = "us-east-1b 10.0.16.18"
      nats-3 = "us-east-1c 10.0.32.19"
      nats-4 = "us-east-1a 10.0.0.20"
      nats-5 = "us-east-1b 10.0.16.21"
    }
    error_message = "Name, zone and address belong together."
  }

  assert {
    condition     = aws_ec2_subnet_cidr_reservation.nodes["us-east-1a"].cidr_block == "10.0.0.16/28" && aws_ec2_subnet_cidr_reservation.nodes["us-east-1a"].reservation_type == "explicit"
    error_message = "Their addresses are reserved."
  }

  assert {
    condition     = alltrue([for name, interface in aws_network_interface.node : one(interface.private_ips) == output.nodes[name].address])
    error_message = "Each has an interface with its address."
  }
}

run "an_instance_has_no_public_address_no_key_for_ssh_and_only_imdsv2" {
  command = plan

  assert {
    condition = alltrue([
      for instance in values(aws_instance.node) :
      instance.metadata_options[0].http_tokens == "required" && instance.metadata_options[0].http_put_response_hop_limit == 1
    ])
    error_message = "Metadata by tokens only, for the instance only."
  }

  assert {
    condition = alltrue([
      for name, instance in aws_instance.node : one(instance.network_interface).network_interface_id == aws_network_interface.node[name].id
    ])
    error_message = "Its only interface is the one with the private address."
  }
}

run "every_disk_is_encrypted_with_the_key_of_the_nodes" {
  command = plan

  assert {
    condition = alltrue([
      for volume in values(aws_ebs_volume.data) : volume.encrypted && volume.type == "gp3" && volume.size == 500 && volume.kms_key_id == module.key.arn
    ])
    error_message = "Data volumes are gp3, 500 GB, encrypted."
  }

  assert {
    condition = alltrue([
      for instance in values(aws_instance.node) : instance.root_block_device[0].encrypted && instance.root_block_device[0].kms_key_id == module.key.arn
    ])
    error_message = "System disks are encrypted too."
  }
}

run "the_volume_outlives_the_instance_and_is_found_by_its_id" {
  command = plan

  assert {
    condition = alltrue([
      for name, attachment in aws_volume_attachment.data : attachment.volume_id == aws_ebs_volume.data[name].id && attachment.stop_instance_before_detaching
    ])
    error_message = "A server is stopped before its volume is detached."
  }

  assert {
    condition = alltrue([
      for name, instance in aws_instance.node :
      strcontains(instance.user_data, "nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0") && strcontains(instance.user_data, "LABEL=nats-data /var/lib/nats")
    ])
    error_message = "The script waits for the volume and mounts it by its label."
  }
}

run "clients_are_tasks_and_the_load_balancer_on_4222" {
  command = plan

  assert {
    condition = join(" ", keys(aws_vpc_security_group_ingress_rule.clients)) == "balancer tasks" && alltrue([
      for rule in values(aws_vpc_security_group_ingress_rule.clients) : rule.from_port == 4222 && rule.to_port == 4222 && rule.cidr_ipv4 == null
    ])
    error_message = "By reference, on 4222 only."
  }
}

run "routes_and_monitoring_are_between_nodes" {
  command = plan

  assert {
    condition = { for name, rule in aws_vpc_security_group_ingress_rule.among_nodes : name => rule.from_port } == { monitoring = 8222, routes = 6222 } && alltrue([
      for rule in values(aws_vpc_security_group_ingress_rule.among_nodes) : rule.referenced_security_group_id == aws_security_group.nodes.id && rule.from_port == rule.to_port
    ])
    error_message = "6222 and 8222 are open to nodes."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.health.from_port == 8222 && aws_vpc_security_group_ingress_rule.health.referenced_security_group_id == aws_security_group.balancer.id
    error_message = "And 8222 to the load balancer, for its health check."
  }
}

run "leaf_nodes_connect_from_named_networks_on_7422" {
  command = plan

  assert {
    condition = length(aws_vpc_security_group_ingress_rule.leaves) == 1 && alltrue([
      for rule in values(aws_vpc_security_group_ingress_rule.leaves) : rule.cidr_ipv4 == "192.168.0.0/24" && rule.from_port == 7422 && rule.to_port == 7422
    ])
    error_message = "The networks that are named, no others."
  }
}

run "no_other_port_is_open" {
  command = plan

  assert {
    condition = length(setsubtract(
      [for rule in concat(
        values(aws_vpc_security_group_ingress_rule.clients), values(aws_vpc_security_group_ingress_rule.among_nodes),
        values(aws_vpc_security_group_ingress_rule.leaves), values(aws_vpc_security_group_ingress_rule.balancer), [aws_vpc_security_group_ingress_rule.health],
      ) : rule.from_port],
      [4222, 6222, 7422, 8222],
    )) == 0
    error_message = "No SSH, nor any other port."
  }
}

run "the_load_balancer_is_internal_and_checks_that_jetstream_responds" {
  command = plan

  assert {
    condition     = aws_lb.this.internal && aws_lb.this.load_balancer_type == "network" && aws_lb.this.enable_cross_zone_load_balancing && length(aws_lb.this.subnets) == 3
    error_message = "An internal network load balancer over all zones."
  }

  assert {
    condition     = aws_lb_listener.clients.port == 4222 && aws_lb_listener.clients.protocol == "TCP"
    error_message = "It passes TLS through."
  }

  assert {
    condition = (aws_lb_target_group.clients.health_check[0].protocol == "HTTP" && aws_lb_target_group.clients.health_check[0].port == "8222"
    && aws_lb_target_group.clients.health_check[0].path == "/healthz?js-server-only=true")
    error_message = "The check is about JetStream on this server, not on the whole cluster."
  }

  assert {
    condition     = tonumber(aws_lb_target_group.clients.deregistration_delay) > 120 && length(aws_lb_target_group_attachment.node) == 5
    error_message = "Connections outlast lame duck mode; every node is a target."
  }
}

run "clients_connect_to_a_private_name" {
  command = plan

  assert {
    condition     = output.host == "nats.test.internal" && output.port == 4222 && length(aws_route53_zone.this.vpc) == 1
    error_message = "The zone belongs to the VPC."
  }
}

run "a_node_reads_its_own_secret_and_no_parameter" {
  command = plan

  assert {
    condition = alltrue([
      for name, document in data.aws_iam_policy_document.node : [
        for statement in document.statement : statement.resources if contains(statement.actions, "secretsmanager:GetSecretValue")
      ][0] == toset([aws_secretsmanager_secret.node[name].arn])
    ]) && aws_secretsmanager_secret.node["nats-2"].name == "test/one/nats/nats-2"
    error_message = "Each node reads its own secret."
  }

  assert {
    condition = length(setintersection(
      flatten([for document in values(data.aws_iam_policy_document.node) : [for statement in document.statement : tolist(statement.actions)]]),
      ["ssm:GetParameter", "ssm:GetParameters", "s3:GetObject", "iam:PassRole", "ec2:AttachVolume"],
    )) == 0
    error_message = "The managed policy would allow these."
  }
}

run "five_kinds_of_alarms_are_known_by_node" {
  command = plan

  assert {
    condition = { for kind, names in output.alarm_names : kind => length(names) } == {
      nats-status-check = 5, nats-cpu = 5, nats-memory = 5, nats-disk = 5, nats-unhealthy-targets = 1
    }
    error_message = "One for each node, and one for the targets."
  }

  assert {
    condition     = contains(output.alarm_names["nats-disk"], "test-nats-3-disk") && local.alarms["test-nats-3-disk"].metric.dimensions == { node = "nats-3", path = "/var/lib/nats", fstype = "xfs" }
    error_message = "A volume is known by its node, whichever instance it is on."
  }
}

run "graviton_instances_run_an_image_for_arm64" {
  command = plan
  variables {
    instance_type = "m7g.large"
  }

  assert {
    condition     = endswith(data.aws_ssm_parameter.image.name, "-arm64")
    error_message = "m7g runs arm64."
  }
}

run "what_is_protected_can_neither_be_destroyed_nor_terminated" {
  command = plan
  variables {
    deletion_protection = true
  }

  assert {
    condition = length(terraform_data.protected) == 5 && aws_lb.this.enable_deletion_protection && alltrue([
      for instance in values(aws_instance.node) : instance.disable_api_termination
    ])
    error_message = "Volumes, addresses, instances and the load balancer are protected."
  }
}

run "what_is_not_protected_can_be_destroyed" {
  command = plan

  assert {
    condition     = length(terraform_data.protected) == 0 && !aws_lb.this.enable_deletion_protection
    error_message = "Something is protected."
  }
}
