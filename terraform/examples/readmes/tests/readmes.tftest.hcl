# scripts/terraform-check writes the examples of all READMEs of modules into this folder: together they are one configuration.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_region" {
    defaults = { name = "us-east-1" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
  mock_data "aws_route_table" {
    defaults = { routes = [] }
  }
}

run "the_examples_of_all_readmes_can_be_planned" {
  command = plan
}
