# The whole infrastructure of an environment. Environments differ in the values of this module's variables, and in nothing else.

data "aws_caller_identity" "current" {}
data "aws_region" "current" {}

locals {
  account = data.aws_caller_identity.current.account_id
  region  = data.aws_region.current.name

  # Names that must be unique in an account end with the environment's name, except in production.
  suffix  = var.environment == "production" ? "" : "-${var.environment}"
  name    = "${var.project}-${var.environment}"
  cluster = "${var.project}-cluster${local.suffix}"

  secret_prefix = "${var.project}/${var.environment}"
  namespace     = "${var.repository_namespace}${local.suffix}"
  log_group     = "/ecs/${var.project}-nats${local.suffix}"
  task_family   = "{ecs_name}${local.suffix}"
}

module "alerts" {
  source = "../alerts"

  name          = "${var.project}-alerts${local.suffix}"
  subscriptions = var.alerting.subscriptions
  runbook_url   = var.alerting.runbook_url
}

module "network" {
  source = "../network"

  name       = local.name
  cidr       = var.network.cidr
  apart_from = var.network.apart_from
  zones      = [for zone in var.network.zones : "${local.region}${zone}"]
  nat        = var.network.nat
  endpoints  = var.network.endpoints
  flow_logs  = var.network.flow_logs
  existing   = var.network.existing
}

module "nats" {
  source = "../nats-cluster"

  name                      = local.name
  nodes                     = var.nats.nodes
  instance_type             = var.nats.instance_type
  volume_gb                 = var.nats.volume_gb
  vpc_id                    = module.network.vpc_id
  subnets                   = module.network.private_subnets
  client_security_group_ids = { tasks = module.ecs.security_group_id }
  leaf_cidrs                = var.nats.leaf_cidrs
  secret_prefix             = local.secret_prefix
  dns_zone_name             = "${var.project}${local.suffix}.internal"
  alerting                  = module.alerts.alerting
  deletion_protection       = var.deletion_protection
}

module "redis" {
  source = "../redis"

  name                      = local.name
  node_type                 = var.redis.node_type
  shards                    = var.redis.shards
  replicas                  = var.redis.replicas
  vpc_id                    = module.network.vpc_id
  subnet_ids                = module.network.private_subnet_ids
  client_security_group_ids = { tasks = module.ecs.security_group_id }
  secret_prefix             = local.secret_prefix
  secrets_kms_key_arn       = module.fleet.kms_key_arn
  alerting                  = module.alerts.alerting
  deletion_protection       = var.deletion_protection
}

module "fleet" {
  source = "../fleet"

  name                 = local.name
  cluster              = local.cluster
  services             = var.services
  repository_namespace = local.namespace
  secret_prefix        = local.secret_prefix
  existing_secrets     = { "redis/auth" = module.redis.auth_secret_arn }
  log_group            = local.log_group
  log_retention_days   = var.log_retention_days
  alerting             = module.alerts.alerting
  deletion_protection  = var.deletion_protection

  nats = {
    instances         = { for name, node in module.nats.nodes : name => node.instance }
    metrics_namespace = module.nats.metrics_namespace
    target_group_arn  = module.nats.target_group_arn
  }
}

module "ecs" {
  source = "../ecs"

  name                = local.name
  cluster             = local.cluster
  services            = var.services
  network             = { vpc_id = module.network.vpc_id, vpc_cidr = module.network.vpc_cidr }
  repositories_arn    = module.fleet.repositories_arn
  secrets             = module.fleet.task_secrets
  secrets_kms_key_arn = module.fleet.kms_key_arn
  log_group_arn       = module.fleet.log_group_arn
  spot_percent        = var.spot_percent
}

module "gateway" {
  source = "../gateway"

  name                    = "${local.name}-gw"
  vpc_id                  = module.network.vpc_id
  subnet_ids              = var.gateway.certificate_arn == null ? module.network.private_subnet_ids : module.network.public_subnet_ids
  certificate_arn         = var.gateway.certificate_arn
  domain                  = var.gateway.domain
  client_cidrs            = coalesce(var.gateway.client_cidrs, { vpc = module.network.vpc_cidr })
  access_logs_bucket      = var.gateway.access_logs_bucket
  tasks_security_group_id = module.ecs.security_group_id
  alerting                = module.alerts.alerting
  deletion_protection     = var.deletion_protection
}

module "handover" {
  source = "../handover"

  parameter           = var.handover
  project             = var.project
  environment         = var.environment
  account             = local.account
  region              = local.region
  cluster             = module.ecs.cluster
  execution_role      = module.ecs.execution_role_arn
  log_group           = module.fleet.log_group
  alerts_topic        = module.alerts.alerting.topic_arn
  registry            = "${local.account}.dkr.ecr.${local.region}.amazonaws.com"
  kms_key_arn         = module.fleet.kms_key_arn
  deletion_protection = var.deletion_protection

  network = {
    vpc             = module.network.vpc_id
    subnets         = module.network.private_subnet_ids
    security_groups = [module.ecs.security_group_id]
  }

  names = {
    repository  = "${local.namespace}/{ecs_name}"
    task_family = local.task_family
    task_role   = module.ecs.task_role_arn_template
    secret      = "${local.secret_prefix}/{name}"
    nats_secret = "${local.secret_prefix}/nats/{service}"
    alarm       = "${local.name}-{service}-{kind}"
  }

  nats = {
    host            = module.nats.host
    port            = module.nats.port
    nodes           = module.nats.nodes
    target_group    = module.nats.target_group_arn
    operator_secret = module.fleet.operator_secret
  }

  redis = {
    host        = module.redis.host
    port        = module.redis.port
    auth_secret = module.redis.auth_secret_name
  }

  gateway = {
    target_group = module.gateway.target_group_arn
    url          = module.gateway.url
  }
}
