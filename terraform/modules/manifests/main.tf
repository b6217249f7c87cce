# Reads the manifests as natsctl does: what the environment's manifest says of a service goes over what its own manifest says, and that
# over fleet.yaml, key by key. There are no resources here.

locals {
  fleet       = yamldecode(file("${var.folder}/fleet.yaml"))
  defaults    = local.fleet.defaults
  environment = yamldecode(file("${var.folder}/environments/${var.environment}.yaml"))
  own = {
    for file in fileset("${var.folder}/services", "*.yaml") :
    trimsuffix(file, ".yaml") => yamldecode(file("${var.folder}/services/${file}"))
  }
  overrides = { for name in keys(local.own) : name => try({ for key, value in local.environment.services[name] : key => value }, {}) }
  manifests = {
    for name, own in local.own : name => merge(own, local.overrides[name], {
      alarms      = merge(try(own.alarms, {}), try(local.overrides[name].alarms, {}))
      autoscaling = merge(try(own.autoscaling, {}), try(local.overrides[name].autoscaling, {}))
      # A variable that the environment sets to a plain value is no secret there.
      secrets = merge(
        { for variable, from in try(own.secrets, {}) : variable => from if !can(local.overrides[name].environment[variable]) },
        try(local.overrides[name].secrets, {}),
      )
    })
  }

  # What manifests name under `secrets`, and under `secret_options` of logs: the name or the ARN of a secret, or a parameter.
  # Those of containers are read from both files: what the environment replaces may be read, too.
  containers = {
    for name, own in local.own : name => concat([
      for manifest in [own, local.overrides[name]] : concat([try(manifest.ecs.container, {})], values(try(manifest.ecs.sidecars, {})))
    ]...)
  }
  references = {
    for name, manifest in local.manifests : name => [
      for reference in concat(
        values(try(manifest.secrets, {})),
        flatten([for container in local.containers[name] : values(try(container.secrets, {}))]),
        flatten([for container in local.containers[name] : values(try(container.log_configuration.secret_options, {}))]),
      ) : { secret = try(reference.secret, tostring(reference), ""), parameter = try(reference.parameter, "") }
    ]
  }

  services = {
    for name, manifest in local.manifests : name => {
      ecs_name        = try(manifest.ecs_name, "${name}${local.schema.ecs_name.x-default-suffix}")
      role            = try(manifest.role, "worker")
      execute_command = try(manifest.execute_command, local.defaults.execute_command)
      is_built        = !can(manifest.build.image)
      secrets         = toset([for one in local.references[name] : one.secret if one.secret != "" && !startswith(one.secret, "arn:")])
      secret_arns     = toset([for one in local.references[name] : one.secret if startswith(one.secret, "arn:")])
      parameters      = toset([for one in local.references[name] : one.parameter if one.parameter != ""])
      grants          = try(manifest.aws, [])
      thresholds = {
        cpu_percent    = try(manifest.alarms.cpu_percent, local.defaults.alarms.cpu_percent)
        memory_percent = try(manifest.alarms.memory_percent, local.defaults.alarms.memory_percent)
        tasks          = try(manifest.tasks, 1) == 0 ? 0 : try(manifest.autoscaling.min, local.defaults.autoscaling.min)
      }
    }
  }

  # Sizes in manifests are powers of two, sizes of volumes powers of ten.
  max_file_store    = regex("^([0-9]+) ?(KiB|MiB|GiB)$", local.fleet.nats.max_file_store)
  bytes             = { KiB = pow(2, 10), MiB = pow(2, 20), GiB = pow(2, 30) }
  max_file_store_gb = ceil(local.max_file_store[0] * local.bytes[local.max_file_store[1]] / pow(10, 9))

  # The schema that natsctl validates the manifests with. Terraform would ignore keys that are not in it.
  schema = jsondecode(file("${path.module}/../../../manifests/schema/service.schema.json")).properties
  unknown_keys = flatten([
    for name, manifest in local.manifests : [for key in setsubtract(keys(manifest), keys(local.schema)) : "${name}.${key}"]
  ])
  unknown_services = setsubtract(keys(try(local.environment.services, {})), keys(local.own))
  misnamed         = [for name, manifest in local.manifests : name if try(manifest.name, "") != name]
}
