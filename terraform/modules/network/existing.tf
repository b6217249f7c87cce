# An existing network.

data "aws_vpc" "existing" {
  count = local.new ? 0 : 1

  id = var.existing.vpc_id
}

data "aws_subnet" "private" {
  for_each = local.new ? toset([]) : var.existing.private_subnet_ids

  id     = each.key
  vpc_id = var.existing.vpc_id
}

data "aws_subnet" "public" {
  for_each = local.new ? toset([]) : var.existing.public_subnet_ids

  id     = each.key
  vpc_id = var.existing.vpc_id
}
