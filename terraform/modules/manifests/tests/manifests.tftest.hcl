variables {
  folder      = "tests/fixture"
  environment = "production"
}

run "defaults_are_those_of_the_fleet" {
  command = plan

  assert {
    condition = output.services["auth"] == {
      ecs_name        = "auth-nats"
      role            = "worker"
      execute_command = false
      is_built        = true
      secrets         = toset([])
      secret_arns     = toset([])
      parameters      = toset([])
      grants          = []
      thresholds      = { cpu_percent = 80, memory_percent = 75, tasks = 2 }
    }
    error_message = "The defaults are other ones."
  }
}

run "a_manifest_overrides_the_defaults_key_by_key" {
  command = plan

  assert {
    condition     = output.services["payment"].thresholds == { cpu_percent = 60, memory_percent = 75, tasks = 3 }
    error_message = "The thresholds are not merged key by key."
  }

  assert {
    condition     = output.services["payment"].ecs_name == "till" && output.services["payment"].execute_command
    error_message = "Settings of the service are missing."
  }

  assert {
    condition     = output.services["payment"].secrets == toset(["bank/key"]) && output.services["payment"].grants[0].actions == ["s3:GetObject"]
    error_message = "Secrets or rights of the service are missing."
  }
}

run "secrets_are_told_apart_by_what_they_are" {
  command = plan

  assert {
    condition     = output.services["referring"].secrets == toset(["db", "log/key"]) && output.services["referring"].parameters == toset(["/shop/token", "/agent/key"])
    error_message = "A secret or a parameter of the service, its sidecar or its log is missing."
  }

  assert {
    condition     = output.services["referring"].secret_arns == toset(["arn:aws:secretsmanager:eu-west-1:999999999999:secret:shared/token-QwErTy"])
    error_message = "A secret that is named by its ARN is missing."
  }
}

run "the_environment_is_that_of_its_manifest" {
  command = plan

  assert {
    condition     = output.project == "arcade" && output.region == "eu-west-1" && output.nats == { nodes = 3, max_file_store_gb = 108 } && output.account == null
    error_message = "The environment's manifest is read wrongly."
  }
}

run "an_environment_overrides_a_service_key_by_key" {
  command = plan

  variables {
    environment = "staging"
  }

  assert {
    condition     = output.services["payment"].thresholds == { cpu_percent = 60, memory_percent = 50, tasks = 3 } && !output.services["payment"].execute_command
    error_message = "What the environment says is not merged key by key."
  }

  assert {
    condition     = output.services["payment"].secrets == toset(["bank/test"]) && output.services["payment"].ecs_name == "till"
    error_message = "A variable is a secret that the environment sets to a plain value, or an other secret is missing."
  }

  assert {
    condition     = output.services["referring"].parameters == toset(["/shop/token", "/agent/key", "/agent/staging"])
    error_message = "A parameter of the environment's sidecar is missing."
  }

  assert {
    condition     = output.services["auth"].thresholds.tasks == 0
    error_message = "A service that is to have no tasks is expected to have some."
  }
}

run "an_environment_that_names_no_service_is_refused" {
  command = plan

  variables {
    environment = "misspelt"
  }

  expect_failures = [output.services]
}

run "an_unknown_key_is_refused" {
  command = plan

  variables {
    folder = "tests/unknown-key"
  }

  expect_failures = [output.services]
}

run "a_file_with_another_name_than_its_service_is_refused" {
  command = plan

  variables {
    folder = "tests/misnamed"
  }

  expect_failures = [output.services]
}

run "a_folder_without_manifests_is_refused" {
  command = plan

  variables {
    folder = "tests"
  }

  expect_failures = [var.folder]
}

run "an_environment_that_does_not_exist_is_refused" {
  command = plan

  variables {
    environment = "nowhere"
  }

  expect_failures = [var.environment]
}

run "an_environment_that_is_not_on_aws_is_refused" {
  command = plan

  variables {
    environment = "local"
  }

  expect_failures = [var.environment]
}
