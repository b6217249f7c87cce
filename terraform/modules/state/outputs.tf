output "bucket" {
  description = "Name of the bucket."
  value       = aws_s3_bucket.state.id
}

output "kms_key_arn" {
  description = "The key that states are encrypted with."
  value       = module.key.arn
}

output "backend_config" {
  description = "The file for `terraform init -backend-config=FILE` of an environment, which sets `key` itself."
  value       = <<-EOT
    bucket       = "${aws_s3_bucket.state.id}"
    region       = "${data.aws_region.current.name}"
    kms_key_id   = "${module.key.arn}"
    encrypt      = true
    use_lockfile = true
  EOT
}
