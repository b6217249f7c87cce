# One of the two lists is empty each time.
locals {
  private_subnets = [
    for subnet in concat(values(aws_subnet.private), values(data.aws_subnet.private)) :
    { id = subnet.id, cidr = subnet.cidr_block, zone = subnet.availability_zone }
  ]
  public_subnets = [
    for subnet in concat(values(aws_subnet.public), values(data.aws_subnet.public)) :
    { id = subnet.id, cidr = subnet.cidr_block, zone = subnet.availability_zone }
  ]
}

output "vpc_id" {
  description = "Id of the VPC."
  value       = one(concat(aws_vpc.this[*].id, data.aws_vpc.existing[*].id))
}

output "vpc_cidr" {
  description = "CIDR block of the VPC."
  value       = one(concat(aws_vpc.this[*].cidr_block, data.aws_vpc.existing[*].cidr_block))
}

output "private_subnets" {
  description = "Private subnets by zone: id and CIDR block. Available when their routes exist."
  value       = { for zone, subnets in { for subnet in local.private_subnets : subnet.zone => subnet... } : zone => { id = subnets[0].id, cidr = subnets[0].cidr } }
  depends_on  = [aws_route.private_out, aws_route_table_association.private]

  precondition {
    condition     = length(distinct(local.private_subnets[*].zone)) == length(local.private_subnets)
    error_message = "Two private subnets are in the same zone: give one of each."
  }
}

output "public_subnets" {
  description = "Public subnets by zone: id and CIDR block. Available when their routes exist."
  value       = { for zone, subnets in { for subnet in local.public_subnets : subnet.zone => subnet... } : zone => { id = subnets[0].id, cidr = subnets[0].cidr } }
  depends_on  = [aws_route.public_out, aws_route_table_association.public]

  precondition {
    condition     = length(distinct(local.public_subnets[*].zone)) == length(local.public_subnets)
    error_message = "Two public subnets are in the same zone: give one of each."
  }
}

output "private_subnet_ids" {
  description = "Ids of the private subnets."
  value       = sort(local.private_subnets[*].id)
  depends_on  = [aws_route.private_out, aws_route_table_association.private]
}

output "public_subnet_ids" {
  description = "Ids of the public subnets."
  value       = sort(local.public_subnets[*].id)
  depends_on  = [aws_route.public_out, aws_route_table_association.public]
}
