# One key for the cache, its logs, and the environment of the rotation function.

module "key" {
  source = "../kms-key"

  description          = "Cache of ${var.name}"
  alias                = "${var.name}-redis"
  log_groups           = concat(values(local.cache_log_groups), [local.rotation_log_group])
  deletion_window_days = var.deletion_protection ? 30 : 7
}
