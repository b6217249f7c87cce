//! `natsctl build` as people use it: with real programs, a real registry, and tools of others that read what it writes.

mod stage;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use stage::{Registry, Stage, skopeo, unpacked};

/// Digests and tags by service.
fn digests(report: &Value) -> BTreeMap<String, (String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let images = report.as_object().unwrap().iter();
    images.map(|(service, image)| (service.clone(), (text(&image["digest"]), text(&image["tag"])))).collect()
}

#[test]
fn an_image_in_a_folder_is_read_by_skopeo_and_what_is_in_it_runs() {
    let stage = Stage::new();
    let folder = stage.path("oci");
    stage.build(&["--all", "--oci-dir", &folder]).ok();
    let Some(inspected) = skopeo(&["inspect", "--config", &format!("oci:{folder}:quest-system")]) else { return };
    let config: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Entrypoint"][0], "/app");
    runs(&stage, &unpacked(&stage, &format!("oci:{folder}:quest-system")));
}

/// The program sees the certificates and may write to `/tmp`, and is not root.
fn runs(stage: &Stage, root: &Path) {
    if !stage.is_root() {
        let output = Command::new(root.join("app")).arg("healthcheck").output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).starts_with("healthcheck"), "{output:?}");
        return;
    }
    let mut chroot = Command::new("chroot");
    chroot.arg("--userspec=65532:65532").arg(root).args(["/app", "healthcheck"]);
    let output = chroot.env("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = "healthcheck nonroot:x:65532:65532:nonroot:/:/nologin certificates: true tmp: true root: false\n";
    assert_eq!(said, expected, "{output:?}");
}

#[test]
fn a_real_service_runs_in_its_image() {
    let stage = Stage::new();
    let Some(binaries) = stage.static_services() else { return };
    let folder = stage.path("oci");
    stage.build_of(&binaries, &["quest-system", "--compression", "zstd", "--oci-dir", &folder]).ok();
    let root = unpacked(&stage, &format!("oci:{folder}:quest-system"));
    let mut app = if stage.is_root() { Command::new("chroot") } else { Command::new(root.join("app")) };
    if stage.is_root() {
        app.arg("--userspec=65532:65532").arg(&root).arg("/app");
    }
    // It gets as far as asking for its configuration: the whole program is there, and needs none of the machine's libraries.
    let output = app.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned();
    assert!(said.contains("environment variable `NATS_URLS` is not set"), "{output:?}");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn the_same_programs_make_the_same_folder_elsewhere_with_another_umask() {
    let (one, other) = (Stage::new(), Stage::new().with_umask("077"));
    let first = one.build(&["--all", "--oci-dir", &one.path("oci")]).ok();
    let second = other.build(&["--all", "--oci-dir", &other.path("oci")]).ok();
    assert_eq!(first, second);
    let difference =
        Command::new("diff").arg("--recursive").args([one.path("oci"), other.path("oci")]).output().unwrap();
    assert!(difference.status.success(), "{difference:?}");
}

#[test]
fn images_are_pushed_once_and_found_again_by_everybody() {
    let Some(registry) = Registry::start() else { return };
    let stage = Stage::new().with_registry(&registry.host);
    let first = stage.build(&["--all", "--push"]).ok();
    let sent =
        |report: &Value| report.as_object().unwrap().values().map(|image| image["sent"].as_u64().unwrap()).sum::<u64>();
    assert!(sent(&first) > 0);
    let again = Stage::new().with_registry(&registry.host).build(&["--all", "--push"]).ok();
    assert_eq!(sent(&again), 0);
    assert_eq!(digests(&again), digests(&first));

    let (digest, tag) = &digests(&first)["gateway"];
    let image = format!("docker://{}/gaming-system/http-nats-gateway:{tag}", registry.host);
    let Some(inspected) = skopeo(&["inspect", "--tls-verify=false", &image]) else { return };
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["Digest"].as_str(), Some(&**digest));
    runs(&stage, &unpacked(&stage, &image));
}

#[test]
fn an_image_that_exists_is_looked_for_before_it_is_believed() {
    let Some(registry) = Registry::start() else { return };
    let stage = Stage::new().with_registry(&registry.host);
    let built = stage.build(&["quest-system", "--push"]).ok();
    let (digest, _) = &digests(&built)["quest-system"];
    let missing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let manifest = |digest: &str| {
        let image = format!("{}/gaming-system/quest-system-nats@{digest}", registry.host);
        stage.append("services/state-manager.yaml", &format!("build: {{ image: '{image}' }}\n"))
    };
    let before = manifest(digest);
    let found = stage.build(&["state-manager", "--push"]).ok();
    assert_eq!(found["state-manager"]["digest"].as_str(), Some(&**digest));
    fs::write(stage.manifest("services/state-manager.yaml"), before).unwrap();
    manifest(missing);
    stage.build(&["state-manager", "--push"]).fails(&["there is no image", missing, "see `build`"]);
}

#[test]
fn what_cannot_become_an_image_is_said_before_anything_is_written() {
    let stage = Stage::new();
    fs::write(stage.binary("quest-system"), "#!/bin/sh\n").unwrap();
    let folder = stage.path("oci");
    let refused = stage.build(&["quest-system", "--oci-dir", &folder]);
    refused.fails(&["quest-system` is no program for Linux", "hint: "]);
    assert!(!Path::new(&folder).exists());
    fs::copy(env!("CARGO_BIN_EXE_natsctl"), stage.binary("quest-system")).unwrap();
    stage.build(&["quest-system"]).fails(&["needs shared libraries, and an image has none", "crt-static"]);
}

#[test]
fn there_must_be_somewhere_to_push_to() {
    let stage = Stage::new();
    stage.build(&["--all", "--push"]).fails(&["environment `local` has no registry to push to", "NATSCTL_REGISTRY"]);
    let stage = stage.with_registry("https://example.com/");
    stage.build(&["--all", "--push"]).fails(&["`https://example.com/` is no registry", "`host:port`"]);
}
