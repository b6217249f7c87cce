output "bucket" {
  description = "Name of the bucket."
  value       = aws_s3_bucket.state.id
}

output "kms_key_arn" {
  description = "The key that states are encrypted with."
  value       = aws_kms_key.state.arn
}

output "backend_config" {
  description = "What an environment's `terraform init -backend-config=FILE` wants to find in its file; `key` is the environment's own."
  value       = <<-EOT
    bucket       = "${aws_s3_bucket.state.id}"
    region       = "${data.aws_region.current.name}"
    kms_key_id   = "${aws_kms_key.state.arn}"
    encrypt      = true
    use_lockfile = true
  EOT
}
