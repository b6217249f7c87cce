variable "folder" {
  description = "Folder of the manifests: fleet.yaml, services/ and environments/."
  type        = string

  validation {
    condition     = fileexists("${var.folder}/fleet.yaml")
    error_message = "There is no fleet.yaml in this folder."
  }
}

variable "environment" {
  description = "Name of the environment's manifest, for example `production`."
  type        = string

  validation {
    condition     = fileexists("${var.folder}/environments/${var.environment}.yaml")
    error_message = "There is no manifest with this name in environments/."
  }

  validation {
    condition     = try(yamldecode(file("${var.folder}/environments/${var.environment}.yaml")).platform, "") == "aws"
    error_message = "Terraform is for environments with `platform: aws`."
  }
}
