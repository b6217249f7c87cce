//! A copy of what Terraform needs of this repository, and Terraform in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::Value;

use super::manifests;
use crate::emulator::{ACCOUNT, Emulator};

/// State on disk instead of S3; and few retries, as emulators respond with errors to calls they do not know.
const OVERRIDE: &str = r#"
terraform {
  backend "local" {}
}

provider "aws" {
  max_retries                 = 2
  skip_credentials_validation = true
  skip_metadata_api_check     = true
}
"#;

/// The copy; removed when dropped.
pub(crate) struct Tree {
    dir: tempfile::TempDir,
    /// For `TF_CLI_CONFIG_FILE`: where the provider is on this machine.
    config: PathBuf,
}

impl Tree {
    /// `None`, and says why, where something is missing.
    pub(crate) fn new() -> Option<Self> {
        let skip = |why: &str| {
            eprintln!("skipped: {why}");
            None
        };
        if Command::new("terraform").arg("version").output().is_err() {
            return skip("terraform is not installed: https://developer.hashicorp.com/terraform/install");
        }
        let output = Command::new(root().join("scripts/terraform-config")).output().unwrap();
        let config = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        if config.as_os_str().is_empty() {
            return skip("there is no mirror of Terraform's providers on this machine: set NATSCTL_TF_MIRROR");
        }
        let installed = root().join(".tools/emulator/bin/python").exists();
        if !installed && std::env::var_os("NATSCTL_EMULATOR_PYTHON").is_none() {
            return skip("the emulators are not installed: run scripts/emulator");
        }
        let dir = tempfile::tempdir().unwrap();
        for folder in ["terraform/modules", "terraform/environments", "docs/runbooks", "manifests"] {
            copy(&root().join(folder), &dir.path().join(folder));
        }
        manifests::complete(&dir.path().join("manifests"));
        Some(Self { dir, config })
    }

    /// An environment, initialized.
    pub(crate) fn environment(&self, name: &'static str, emulator: &Emulator) -> Environment<'_> {
        let folder = self.dir.path().join("terraform/environments").join(name);
        fs::write(folder.join("test_override.tf"), OVERRIDE).unwrap();
        let mut env: Vec<(String, String)> = emulator.env().into_iter().collect();
        env.extend(
            [
                ("TF_CLI_CONFIG_FILE", &*self.config.to_string_lossy()),
                ("TF_VAR_account", ACCOUNT),
                ("TF_VAR_alerting", r#"{ runbook_url = "https://git.example.com/natsctl/docs/runbooks" }"#),
                ("TF_IN_AUTOMATION", "1"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let environment = Environment { name, manifests: self.dir.path().join("manifests"), folder, env, tree: self };
        environment.must(&["init", "-input=false"]);
        environment
    }
}

/// One environment.
pub(crate) struct Environment<'a> {
    pub(crate) name: &'static str,
    pub(crate) manifests: PathBuf,
    folder: PathBuf,
    env: Vec<(String, String)>,
    #[allow(dead_code, reason = "the folder is there as long as the tree is")]
    tree: &'a Tree,
}

impl Environment<'_> {
    /// Applies it, and returns the outputs.
    pub(crate) fn apply(&self) -> Value {
        self.must(&["apply", "-auto-approve", "-input=false"]);
        let output = self.must(&["output", "-json"]);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn second_plan_is_empty(&self) {
        let output = self.run(&["plan", "-detailed-exitcode", "-input=false"]);
        let output_text = text(&output);
        assert_eq!(output.status.code(), Some(0), "the second plan of `{}` is not empty:\n{output_text}", self.name);
    }

    /// Everything that is created or changed belongs to the service, except dashboards and the policy of all secrets.
    pub(crate) fn a_new_manifest_is_a_new_service(&self) {
        let manifests = self.manifests.parent().unwrap().join("more");
        copy(&self.manifests, &manifests);
        manifests::add(&manifests, "arena");
        let folder = format!("manifests_folder={}", manifests.display());
        self.must(&["plan", "-input=false", "-out=more", "-var", &folder]);
        let plan: Value = serde_json::from_slice(&self.must(&["show", "-json", "more"]).stdout).unwrap();
        let mut created = Vec::new();
        for change in plan["resource_changes"].as_array().unwrap() {
            let (kind, address) = (change["type"].as_str().unwrap(), change["address"].as_str().unwrap());
            let actions = change["change"]["actions"].to_string();
            match &*actions {
                r#"["no-op"]"# | r#"["read"]"# => {}
                r#"["create"]"# if address.contains("arena") => created.push(kind.to_owned()),
                r#"["update"]"# if ["aws_cloudwatch_dashboard", "aws_iam_policy"].contains(&kind) => {}
                _ => panic!("a new service: {actions} of {address}"),
            }
        }
        created.sort();
        let expected = [
            "aws_cloudwatch_metric_alarm",
            "aws_cloudwatch_metric_alarm",
            "aws_cloudwatch_metric_alarm",
            "aws_cloudwatch_metric_alarm",
            "aws_cloudwatch_metric_alarm",
            "aws_ecr_lifecycle_policy",
            "aws_ecr_repository",
            "aws_iam_role",
            "aws_secretsmanager_secret",
        ];
        assert_eq!(created, expected);
    }

    pub(crate) fn destroy_is_refused(&self) {
        let output = self.run(&["plan", "-destroy", "-input=false"]);
        let output_text = text(&output);
        assert_eq!(output.status.code(), Some(1), "`{}` could be destroyed:\n{output_text}", self.name);
        assert!(output_text.contains("prevent_destroy"), "{output_text}");
    }

    /// As `docs/terraform.md` says.
    pub(crate) fn remove_protection(&self, emulator: &Emulator) {
        let listed = String::from_utf8(self.must(&["state", "list"]).stdout).unwrap();
        let protected: Vec<&str> =
            listed.lines().filter(|address| address.contains("terraform_data.protected")).collect();
        assert!(protected.len() > 5, "{protected:?}");
        self.must(&[&["state", "rm"], &*protected].concat());
        let balancers = emulator.aws(&["elbv2", "describe-load-balancers"]).expect("the aws CLI");
        for balancer in balancers["LoadBalancers"].as_array().unwrap() {
            let (arn, name) =
                (balancer["LoadBalancerArn"].as_str().unwrap(), balancer["LoadBalancerName"].as_str().unwrap());
            if !name.contains("development") {
                let attribute = "Key=deletion_protection.enabled,Value=false";
                let call =
                    ["elbv2", "modify-load-balancer-attributes", "--load-balancer-arn", arn, "--attributes", attribute];
                emulator.aws(&call);
            }
        }
        let table = "gaming-system-production-natsctl";
        emulator.aws(&["dynamodb", "update-table", "--table-name", table, "--no-deletion-protection-enabled"]);
    }

    pub(crate) fn destroy(&self) {
        self.must(&["destroy", "-auto-approve", "-input=false"]);
        assert_eq!(self.must(&["state", "list"]).stdout, b"");
    }

    /// The state, as JSON.
    pub(crate) fn state(&self) -> String {
        fs::read_to_string(self.folder.join("terraform.tfstate")).unwrap()
    }

    fn must(&self, arguments: &[&str]) -> Output {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}: terraform {arguments:?}:\n{}", self.name, text(&output));
        output
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let started = Instant::now();
        let mut command = Command::new("terraform");
        command.args(arguments).current_dir(&self.folder).envs(self.env.iter().cloned());
        if ["init", "apply", "plan", "destroy"].contains(&arguments[0]) {
            command.arg("-no-color");
        }
        let output = command.output().unwrap();
        println!("{} terraform {}: {:.1} s", self.name, arguments[0], started.elapsed().as_secs_f64());
        output
    }
}

fn text(output: &Output) -> String {
    let all = [&*output.stdout, &*output.stderr].concat();
    let all = String::from_utf8_lossy(&all);
    let quiet = |line: &&str| {
        !["Reading...", "Read complete", "Refreshing state", "Still "].iter().any(|noise| line.contains(noise))
    };
    all.lines().filter(quiet).collect::<Vec<_>>().join("\n")
}

/// Without files that Terraform itself has written.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().unwrap().is_dir() {
            if name != ".terraform" {
                copy(&entry.path(), &to.join(name));
            }
        } else if !name.contains(".tfstate") && !name.ends_with("_override.tf") {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
