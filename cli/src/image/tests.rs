//! What an image is, and that it is the same wherever it is made.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use super::oci::Contents;
use super::testing::Workshop;
use super::*;
use crate::manifest::fixture::Tree;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The images of the fixture's services, of these binaries.
async fn made(tree: &Tree, workshop: &Workshop, names: &[&str]) -> anyhow::Result<BTreeMap<String, ServiceImage>> {
    let manifests = tree.load().unwrap();
    let names: BTreeSet<String> = names.iter().map(|&name| name.to_owned()).collect();
    built(&BuildOptions {
        manifests: &manifests,
        names: &names,
        workspace: tree.folder().parent().unwrap(),
        binaries: &Binaries::Folder(workshop.path().join("binaries")),
        compression: Compression::Gzip,
        store: &workshop.store,
    })
    .await
}

fn tree() -> Tree {
    let mut tree = Tree::valid();
    // Where there are no sources, cargo is not asked.
    tree.remove("../Cargo.toml");
    tree
}

fn image(built: &BTreeMap<String, ServiceImage>, name: &str) -> BuiltImage {
    let ServiceImage::Built(image) = &built[name] else { panic!("{name}: {built:?}") };
    image.clone()
}

#[tokio::test]
async fn the_same_binaries_make_the_same_images_whoever_owns_them_and_whenever_they_were_made() {
    let mut digests = BTreeSet::new();
    for mode in [0o600, 0o755, 0o4777] {
        let workshop = Workshop::new();
        for service in ["quest-system", "gateway"] {
            let binary = workshop.binary(service, service.as_bytes());
            fs::set_permissions(&binary, Permissions::from_mode(mode)).unwrap();
            let past = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(u64::from(mode));
            fs::File::open(&binary).unwrap().set_modified(past).unwrap();
        }
        let built = made(&tree(), &workshop, &["quest-system", "gateway"]).await.unwrap();
        let quest = image(&built, "quest-system").pack(&workshop.store).await.unwrap();
        let gateway = image(&built, "gateway").pack(&workshop.store).await.unwrap();
        assert_ne!(quest.tag, gateway.tag);
        digests.insert((quest.tag.clone(), quest.digest().clone(), gateway.tag.clone(), gateway.digest().clone()));
    }
    assert_eq!(digests.len(), 1, "{digests:#?}");
}

#[test]
fn the_configuration_says_how_it_runs_and_neither_when_nor_of_which_revision_it_is() {
    let workshop = Workshop::new();
    let image = workshop.image("quest-system", b"");
    let config: Value = serde_json::from_slice(&image.config).unwrap();
    let Layer::Source { diff_id: base, .. } = &image.layers[0] else { unreachable!() };
    let Layer::Source { diff_id: app, .. } = &image.layers[1] else { unreachable!() };
    let expected = json!({
        "architecture": "amd64",
        "config": {
            "Entrypoint": ["/app"],
            "Env": ["PATH=/", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
            "Labels": { "org.opencontainers.image.title": "quest-system" },
            "User": "65532:65532",
            "WorkingDir": "/",
        },
        "os": "linux",
        "rootfs": { "diff_ids": [base.as_str(), app.as_str()], "type": "layers" },
    });
    assert_eq!(config, expected);
}

#[test]
fn the_tag_is_of_the_content_whatever_it_is_compressed_with() {
    let workshop = Workshop::new();
    let zstd = workshop.image("quest-system", b"one");
    let gzip = BuiltImage { compression: Compression::Gzip, ..zstd.clone() };
    let packed = |image: &BuiltImage| image.pack_now(&workshop.store).unwrap();
    assert_eq!(packed(&zstd).tag, packed(&gzip).tag);
    assert_ne!(packed(&zstd).digest(), packed(&gzip).digest());
    assert_ne!(workshop.image("quest-system", b"other").tag(), zstd.tag());
    assert!(zstd.tag().len() == TAG_DIGITS && zstd.tag().bytes().all(|byte| byte.is_ascii_hexdigit()));
}

#[test]
fn the_list_of_parts_is_attached_to_the_manifest_of_the_image() {
    let packed = Workshop::new().packed("quest-system", b"");
    let bom = packed.bom.unwrap();
    let Contents::Bytes(manifest) = &bom.manifest.contents else { panic!("a manifest is in memory") };
    let manifest: Manifest = serde_json::from_slice(manifest).unwrap();
    assert_eq!(manifest.subject, Some(packed.manifest.descriptor));
    assert_eq!(manifest.artifact_type.as_deref(), Some("application/vnd.cyclonedx+json"));
    let Contents::Bytes(document) = &bom.blobs[1].contents else { panic!("a list is in memory") };
    assert_eq!(manifest.layers[0].digest, Digest::of(document));
}

#[tokio::test]
async fn an_image_that_exists_is_taken_as_it_is() {
    let mut tree = tree();
    let service =
        format!("name: quest-system\nserves: [quest.v1]\nbuild: {{ image: 'localhost:5000/quest@{DIGEST}' }}\n");
    tree.write(
        "services/quest-system.yaml",
        service.replace("serves: [quest.v1]\n", "serves: [quest.v1]\npublishes: [evt.quest.generated.v1]\n"),
    );
    let built = made(&tree, &Workshop::new(), &["quest-system"]).await.unwrap();
    let ServiceImage::Existing(reference) = &built["quest-system"] else { panic!("{built:?}") };
    assert_eq!(reference.to_string(), format!("localhost:5000/quest@{DIGEST}"));
}

#[tokio::test]
async fn a_binary_that_would_not_start_is_refused_before_it_is_packed() {
    let workshop = Workshop::new();
    fs::write(workshop.binary("quest-system", b""), "#!/bin/sh\n").unwrap();
    let error = made(&tree(), &workshop, &["quest-system"]).await.unwrap_err();
    assert!(format!("{error:#}").contains("quest-system` is no program for Linux"), "{error:#}");
    let error = made(&tree(), &workshop, &["gateway"]).await.unwrap_err();
    assert!(format!("{error:#}").contains("binaries/gateway`"), "{error:#}");
}

mod layouts {
    use super::*;

    fn layout(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut open = vec![folder.to_owned()];
        while let Some(path) = open.pop() {
            for entry in fs::read_dir(path).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let name = path.strip_prefix(folder).unwrap().display().to_string();
                    files.insert(name, fs::read(path).unwrap());
                }
            }
        }
        files
    }

    #[test]
    fn a_folder_of_images_is_the_same_however_often_it_is_written() {
        let workshop = Workshop::new();
        let images = [workshop.packed("quest-system", b"quest"), workshop.packed("gateway", b"gateway")];
        let (one, other) = (workshop.path().join("one"), workshop.path().join("other"));
        write_layout(&one, &images).unwrap();
        write_layout(&other, &images).unwrap();
        let first = layout(&one);
        assert_eq!(first, layout(&other));
        for (name, contents) in first.iter().filter_map(|(name, c)| Some((name.strip_prefix("blobs/sha256/")?, c))) {
            assert_eq!(Digest::of(contents).hex(), name);
        }
        fs::write(one.join("blobs/sha256").join(images[0].digest().hex()), "damaged").unwrap();
        write_layout(&one, &images).unwrap();
        assert_eq!(layout(&one), first);
    }

    #[test]
    fn what_is_not_in_the_images_any_more_goes() {
        let workshop = Workshop::new();
        let folder = workshop.path().join("oci");
        let images = [workshop.packed("quest-system", b"quest"), workshop.packed("gateway", b"gateway")];
        write_layout(&folder, &images).unwrap();
        let both = layout(&folder).len();
        write_layout(&folder, &images[..1]).unwrap();
        // Configuration, binary, manifest, and the three parts of the list but for the empty configuration.
        assert_eq!(layout(&folder).len(), both - 5);
        let index: Value = serde_json::from_slice(&layout(&folder)["index.json"]).unwrap();
        assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "quest-system");
        assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_folder_that_holds_something_else_is_left_alone() {
        let workshop = Workshop::new();
        let folder = workshop.path().join("documents");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("letter.txt"), "dear").unwrap();
        let error = write_layout(&folder, &[]).unwrap_err();
        assert!(error.to_string().ends_with("holds something else than images"), "{error}");
        assert_eq!(layout(&folder).len(), 1);
    }
}

mod dockerfiles {
    use super::*;

    /// What stands in for Docker: a script.
    struct Docker {
        workshop: Workshop,
        program: PathBuf,
    }

    impl Docker {
        fn saying(script: &str) -> Self {
            let workshop = Workshop::new();
            let program = workshop.path().join("docker");
            fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
            fs::write(workshop.path().join("Dockerfile"), "FROM scratch\n").unwrap();
            Self { workshop, program }
        }

        /// It makes an image for `x86_64`.
        fn making_image() -> Self {
            // The archive that is made beforehand goes where the arguments say.
            let docker = Self::saying(
                r#"here=$(dirname "$0"); echo "$@" > "$here/arguments"
                   for word in "$@"; do case "$word" in type=oci*) file=${word##*dest=}; esac; done
                   cp "$here/made.tar" "$file""#,
            );
            let packed = docker.workshop.packed("made", b"by docker");
            let layout = docker.workshop.path().join("layout");
            write_layout(&layout, &[Packed { bom: None, ..packed }]).unwrap();
            let made = fs::File::create(docker.workshop.path().join("made.tar")).unwrap();
            let mut archive = tar::Builder::new(made);
            archive.append_dir_all("", &layout).unwrap();
            archive.finish().unwrap();
            docker
        }

        async fn build(&self) -> anyhow::Result<(Bytes, Vec<Blob>)> {
            self.build_for(Architecture::X86_64).await
        }

        async fn build_for(&self, architecture: Architecture) -> anyhow::Result<(Bytes, Vec<Blob>)> {
            docker::DockerBuild {
                docker: &self.program,
                service: "quest-system",
                dockerfile: self.workshop.path().join("Dockerfile"),
                context: None,
                architecture,
                folder: self.workshop.store.folder("docker-quest-system"),
            }
            .run()
            .await
        }
    }

    #[tokio::test]
    async fn what_buildx_makes_goes_the_same_way_as_all_others() {
        let docker = Docker::making_image();
        let packed = docker.workshop.packed("made", b"by docker");
        for _ in 0..2 {
            let (config, layers) = docker.build().await.unwrap();
            assert_eq!(Digest::of(&config), *packed.config_digest());
            let descriptors = |blobs: &[Blob]| blobs.iter().map(|blob| blob.descriptor.clone()).collect::<Vec<_>>();
            assert_eq!(descriptors(&layers), descriptors(&packed.blobs[1..]));
        }
        let arguments = fs::read_to_string(docker.workshop.path().join("arguments")).unwrap();
        for expected in ["buildx build", "--platform linux/amd64", "type=oci", "--file", "Dockerfile"] {
            assert!(arguments.contains(expected), "{arguments}");
        }
    }

    #[tokio::test]
    async fn what_buildx_makes_for_other_processors_is_refused() {
        let docker = Docker::making_image();
        let error = docker.build_for(Architecture::Arm64).await.unwrap_err().to_string();
        assert!(error.ends_with("is for linux/amd64, not for linux/arm64, which the manifest asks for"), "{error}");
    }

    async fn refused(docker: Docker) -> (String, String) {
        let error = docker.build().await.unwrap_err();
        (format!("{error:#}"), crate::error::hint(&error).unwrap_or_default())
    }

    #[tokio::test]
    async fn without_docker_or_without_buildx_it_says_what_to_install() {
        let docker = Docker::saying("");
        fs::remove_file(&docker.program).unwrap();
        let (error, hint) = refused(docker).await;
        assert!(error.contains("`quest-system` is built from a Dockerfile, and `docker` cannot be run"), "{error}");
        assert!(hint.contains("install Docker"), "{hint}");
        let (_, hint) = refused(Docker::saying("echo \"docker: unknown command: docker buildx\" >&2; exit 1")).await;
        assert!(hint.contains("plugin buildx"), "{hint}");
    }

    #[tokio::test]
    async fn what_docker_complains_of_is_shown() {
        let (error, hint) = refused(Docker::saying("echo 'no space left on device' >&2; exit 1")).await;
        assert!(error.contains("no space left on device"), "{error}");
        assert!(hint.contains("docker buildx build"), "{hint}");
        let (error, _) = refused(Docker::saying("exit 0")).await;
        assert!(error.contains("failed to read what `docker buildx` made of `quest-system`"), "{error}");
    }
}
