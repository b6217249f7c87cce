# A private and a public subnet in each zone. Nodes and tasks are in the private ones; the public ones have the NAT gateways and the load
# balancers that accept requests from the Internet.

locals {
  new   = var.existing == null
  zones = local.new ? toset(var.zones) : toset([])

  # The subnets of a zone follow from its letter, so that they stay when other zones are added or removed. Of 16 parts the first eight are
  # private subnets, the last is divided again for the public ones.
  letters = ["a", "b", "c", "d", "e", "f", "g", "h"]
  subnets = { for zone in local.zones : zone => {
    private = cidrsubnet(var.cidr, 4, index(local.letters, substr(zone, -1, 1)))
    public  = cidrsubnet(var.cidr, 8, 240 + index(local.letters, substr(zone, -1, 1)))
  } }
}

resource "aws_vpc" "this" {
  count = local.new ? 1 : 0

  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = { Name = var.name }
}

# Without rules: whatever is created without a security group has no connections.
resource "aws_default_security_group" "closed" {
  count = local.new ? 1 : 0

  vpc_id = aws_vpc.this[0].id
  tags   = { Name = "${var.name}-closed" }
}

resource "aws_subnet" "private" {
  for_each = local.zones

  vpc_id            = aws_vpc.this[0].id
  availability_zone = each.key
  cidr_block        = local.subnets[each.key].private
  tags              = { Name = "${var.name}-private-${each.key}" }
}

# Nothing gets a public address by default.
resource "aws_subnet" "public" {
  for_each = local.zones

  vpc_id            = aws_vpc.this[0].id
  availability_zone = each.key
  cidr_block        = local.subnets[each.key].public
  tags              = { Name = "${var.name}-public-${each.key}" }
}
