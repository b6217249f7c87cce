# A private and a public subnet in each zone. Everything of ours is in the private ones; in the public ones are NAT
# gateways and what accepts requests from outside.

locals {
  new   = var.existing == null
  zones = local.new ? toset(var.zones) : toset([])

  # By its letter, a zone keeps its subnets whichever zones come and go. Of 16 parts the first eight are private subnets,
  # the last is divided again for the public ones.
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

# Whatever is created without a security group may neither call nor be called.
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

# No address of the Internet unless something asks for one.
resource "aws_subnet" "public" {
  for_each = local.zones

  vpc_id            = aws_vpc.this[0].id
  availability_zone = each.key
  cidr_block        = local.subnets[each.key].public
  tags              = { Name = "${var.name}-public-${each.key}" }
}
