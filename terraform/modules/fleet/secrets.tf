# Secrets without values. natsctl writes the identities on NATS, people write the others; Terraform never sees any.

locals {
  # natsctl's own: the authority that makes identities, the operator's, and that of the task by which it asks the bus from within.
  own      = ["authority", "errand", "operator"]
  not_told = ["nats/authority", "nats/operator"] # to no task

  # By the name that manifests and natsctl know: `nats/<service>` for each, and what manifests name.
  identities = toset([for name in concat(keys(var.services), local.own) : "nats/${name}"])
  named      = toset(flatten([for service in values(var.services) : tolist(service.secrets)]))
  secrets    = setunion(local.identities, setsubtract(local.named, keys(var.existing_secrets)))
}

resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV2_AWS_57: natsctl rotates the identities, node by node; of what the others are for, nothing is known here
  for_each = local.secrets

  name                    = "${var.secret_prefix}/${each.key}"
  description             = startswith(each.key, "nats/") ? "Identity on NATS; natsctl writes it" : "Named by manifests; somebody must give it a value"
  kms_key_id              = aws_kms_key.this.arn
  recovery_window_in_days = var.deletion_protection ? 30 : 0
}
