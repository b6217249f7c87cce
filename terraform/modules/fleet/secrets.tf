# Secrets without values. natsctl writes those of NATS identities, operators write the others; Terraform never sees a value.

locals {
  # natsctl's own: the authority that signs identities, the operator's identity, and that of natsctl's task in the VPC.
  own           = ["authority", "errand", "operator"]
  not_for_tasks = ["nats/authority", "nats/operator"]

  # By the name that manifests and natsctl know: `nats/<service>` for each, and what manifests name.
  identities = toset([for name in concat(keys(var.services), local.own) : "nats/${name}"])
  named      = toset(flatten([for service in values(var.services) : tolist(service.secrets)]))
  secrets    = setunion(local.identities, setsubtract(local.named, keys(var.existing_secrets)))
}

resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV2_AWS_57: natsctl rotates the identities; the use of the other secrets is not known here
  for_each = local.secrets

  name                    = "${var.secret_prefix}/${each.key}"
  description             = startswith(each.key, "nats/") ? "Identity on NATS; natsctl writes it" : "Named by manifests; operators write it"
  kms_key_id              = module.key.arn
  recovery_window_in_days = var.deletion_protection ? 30 : 0
}
