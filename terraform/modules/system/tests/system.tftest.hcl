# Names, and requirements for production. The modules have their own tests.
mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_region" {
    defaults = { name = "us-east-1" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
  mock_data "aws_route_table" {
    defaults = { routes = [] }
  }
}

variables {
  project     = "arcade"
  environment = "production"
  handover    = "/arcade/production/natsctl"
  services = {
    auth = {
      ecs_name        = "auth-nats"
      execute_command = false
      secrets         = []
      grants          = []
      thresholds      = { cpu_percent = 80, memory_percent = 80, tasks = 2 }
    }
  }
  network             = { cidr = "10.0.0.0/16", zones = ["a", "b", "c"] }
  nats                = { nodes = 5, instance_type = "m6i.large", volume_gb = 500, max_file_store_gb = 108 }
  redis               = { node_type = "cache.r7g.large", shards = 3, replicas = 1 }
  alerting            = { runbook_url = "https://example.com/runbooks" }
  deletion_protection = true
}

run "production_has_the_plain_names" {
  command = plan

  assert {
    condition = [local.cluster, local.namespace, local.log_group, local.task_family] == [
      "arcade-cluster", "bodybroker-services", "/ecs/arcade-nats", "{ecs_name}",
    ]
    error_message = "Production has other names."
  }
}

run "every_other_environment_appends_its_name" {
  command = plan

  variables {
    environment = "development"
    handover    = "/arcade/development/natsctl"
  }

  assert {
    condition = [local.cluster, local.namespace, local.log_group, local.task_family] == [
      "arcade-cluster-development", "bodybroker-services-development", "/ecs/arcade-nats-development", "{ecs_name}-development",
    ]
    error_message = "Two environments of one account would clash."
  }
}

run "production_in_two_zones_is_refused" {
  command = plan

  variables {
    network = { cidr = "10.0.0.0/16", zones = ["a", "b"] }
  }

  expect_failures = [var.network]
}

run "production_in_two_subnets_of_an_existing_network_is_refused" {
  command = plan

  variables {
    network = { existing = { vpc_id = "vpc-1", private_subnet_ids = ["subnet-1", "subnet-2"] } }
  }

  expect_failures = [var.network]
}

run "production_without_deletion_protection_is_refused" {
  command = plan

  variables {
    deletion_protection = false
  }

  expect_failures = [var.deletion_protection]
}

run "a_volume_that_jetstream_would_fill_is_refused" {
  command = plan

  variables {
    nats = { nodes = 5, instance_type = "m6i.large", volume_gb = 110, max_file_store_gb = 108 }
  }

  expect_failures = [var.nats]
}
