# Production: its values.

module "manifests" {
  source = "../../modules/manifests"

  folder      = coalesce(var.manifests_folder, "${path.module}/../../../manifests")
  environment = "production"
}

module "system" {
  source = "../../modules/system"

  project             = module.manifests.project
  environment         = "production"
  handover            = module.manifests.handover
  services            = module.manifests.services
  alerting            = var.alerting
  gateway             = var.gateway
  deletion_protection = true

  network = {
    cidr       = "10.0.0.0/16"
    apart_from = { development = "10.1.0.0/16" }
    zones      = ["a", "b", "c"]
    nat        = "per_zone"
  }

  nats = {
    nodes             = module.manifests.nats.nodes
    max_file_store_gb = module.manifests.nats.max_file_store_gb
    instance_type     = "m6i.large"
    volume_gb         = 500
    leaf_cidrs        = var.leaf_cidrs
  }

  redis = {
    node_type = "cache.r7g.large"
    shards    = 3
    replicas  = 1
  }
}
