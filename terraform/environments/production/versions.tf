terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }

  # The bucket is in `terraform init -backend-config=../backend.hcl`. Module `state` makes both.
  backend "s3" {
    key          = "production/terraform.tfstate"
    use_lockfile = true
    encrypt      = true
  }
}

provider "aws" {
  region              = module.manifests.region
  allowed_account_ids = compact([try(coalesce(var.account, module.manifests.account), null)])

  default_tags {
    tags = {
      project     = module.manifests.project
      environment = "production"
      managed-by  = "terraform"
    }
  }
}
