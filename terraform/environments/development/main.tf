# Development: its values.

module "manifests" {
  source = "../../modules/manifests"

  folder      = coalesce(var.manifests_folder, "${path.module}/../../../manifests")
  environment = "development"
}

module "system" {
  source = "../../modules/system"

  project             = module.manifests.project
  environment         = "development"
  handover            = module.manifests.handover
  services            = module.manifests.services
  alerting            = var.alerting
  gateway             = var.gateway
  deletion_protection = false
  spot_percent        = 50

  network = {
    cidr       = "10.1.0.0/16"
    apart_from = { production = "10.0.0.0/16" }
    zones      = ["a", "b", "c"]
    nat        = "one"
    endpoints  = ["s3"]
  }

  nats = {
    nodes             = module.manifests.nats.nodes
    max_file_store_gb = module.manifests.nats.max_file_store_gb
    instance_type     = "t3.small"
    volume_gb         = 120
    leaf_cidrs        = var.leaf_cidrs
  }

  redis = {
    node_type = "cache.t4g.micro"
    shards    = 1
    replicas  = 1
  }
}
