//! What a service is made of, for scanners of vulnerable versions: CycloneDX, from the lock file. It has no time in
//! it, so that the same image has the same list.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};

use super::cargo::{Metadata, Package};
use super::digest::Digest;

/// What one service is linked of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bom {
    service: String,
    components: Vec<Value>,
    dependencies: Vec<Value>,
}

/// SHA-256 of what was downloaded, by name and version, from `Cargo.lock`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checksums(BTreeMap<(String, String), String>);

impl Checksums {
    /// Those of the workspace; none if there is no lock file.
    pub(super) fn read(workspace: &Path) -> Self {
        Self::parse(&fs::read_to_string(workspace.join("Cargo.lock")).unwrap_or_default())
    }

    fn parse(lock: &str) -> Self {
        let packages = lock.split("[[package]]").skip(1);
        let value = |package: &str, key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
            Some(line.trim_end_matches('"').to_owned())
        };
        let entry =
            |package: &str| Some(((value(package, "name")?, value(package, "version")?), value(package, "checksum")?));
        Self(packages.filter_map(entry).collect())
    }

    fn of(&self, package: &Package) -> Option<&String> {
        self.0.get(&(package.name.clone(), package.version.clone()))
    }
}

impl Bom {
    /// Of a package of the workspace; `None` if it has none of this name.
    pub(super) fn new(service: &str, metadata: &Metadata, checksums: &Checksums) -> Option<Self> {
        let root = metadata.package(service)?;
        let closure = metadata.closure(root);
        let mut components: Vec<(String, Value)> = closure
            .values()
            .map(|(package, _)| {
                let kind = if package.id == root.id { "application" } else { "library" };
                (reference(package), component(package, kind, checksums.of(package)))
            })
            .collect();
        let mut dependencies: Vec<(String, Value)> = closure
            .values()
            .map(|(package, needs)| {
                let mut needs: Vec<String> =
                    needs.iter().filter_map(|id| closure.get(id)).map(|(package, _)| reference(package)).collect();
                needs.sort();
                (reference(package), json!({ "ref": reference(package), "dependsOn": needs }))
            })
            .collect();
        components.sort_by(|(one, _), (other, _)| one.cmp(other));
        dependencies.sort_by(|(one, _), (other, _)| one.cmp(other));
        Some(Self {
            service: service.to_owned(),
            components: components.into_iter().map(|(_, value)| value).collect(),
            dependencies: dependencies.into_iter().map(|(_, value)| value).collect(),
        })
    }

    /// The document about an image, named by the digest of its manifest.
    pub(super) fn document(&self, image: &Digest) -> Bytes {
        let document = json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "serialNumber": format!("urn:uuid:{}", uuid(image)),
            "version": 1,
            "metadata": {
                "tools": { "components": [
                    { "type": "application", "name": "natsctl", "version": env!("CARGO_PKG_VERSION") },
                ] },
                "component": {
                    "type": "container",
                    "bom-ref": "image",
                    "name": self.service,
                    "version": image.as_str(),
                    "hashes": [{ "alg": "SHA-256", "content": image.hex() }],
                },
            },
            "components": self.components,
            "dependencies": self.dependencies,
        });
        document.to_string().into()
    }
}

fn component(package: &Package, kind: &str, checksum: Option<&String>) -> Value {
    let mut component = json!({
        "type": kind,
        "bom-ref": reference(package),
        "name": package.name,
        "version": package.version,
    });
    if let Some(checksum) = checksum {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    if let Some(license) = &package.license {
        // As crates wrote it before there were expressions.
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    component["purl"] = reference(package).into();
    component
}

/// <https://github.com/package-url/purl-spec>
fn reference(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version.replace('+', "%2B"))
}

/// A UUID (version 8, RFC 9562) that is always the same for the same image.
fn uuid(image: &Digest) -> String {
    let hex = Digest::of(image.as_str().as_bytes());
    let hex = hex.hex();
    format!("{}-{}-8{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Of a service that is linked of two packages.
    pub(in crate::image) fn bom() -> Bom {
        Bom::new("quest-system", &metadata(), &Checksums::parse(LOCK)).unwrap()
    }

    fn metadata() -> Metadata {
        let linked = json!([{ "kind": null }]);
        let built = json!([{ "kind": "build" }, { "kind": "dev" }]);
        serde_json::from_value(json!({
            "packages": [
                { "id": "path+quest", "name": "quest-system", "version": "0.1.0", "license": "MIT", "source": null },
                { "id": "reg+sha2", "name": "sha2", "version": "0.11.0", "license": "MIT/Apache-2.0", "source": "r" },
                { "id": "reg+cfg", "name": "cfg-if", "version": "1.0.0+x", "source": "r" },
                { "id": "reg+cc", "name": "cc", "version": "1.2.3", "source": "r" },
            ],
            "resolve": { "nodes": [
                { "id": "path+quest", "deps": [{ "pkg": "reg+sha2", "dep_kinds": linked },
                                               { "pkg": "reg+cc", "dep_kinds": built }] },
                { "id": "reg+sha2", "deps": [{ "pkg": "reg+cfg", "dep_kinds": linked }] },
                { "id": "reg+cfg", "deps": [{ "pkg": "reg+sha2", "dep_kinds": linked }] },
                { "id": "reg+cc", "deps": [] },
            ] },
        }))
        .unwrap()
    }

    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"sha2\"\nversion = \"0.11.0\"\nsource = \"registry\"\n\
        checksum = \"abc\"\ndependencies = [\n \"cfg-if\",\n]\n\n[[package]]\nname = \"quest-system\"\nversion = \"0.1.0\"\n";

    #[test]
    fn it_lists_what_is_linked_and_nothing_else() {
        let bom = bom();
        let names: Vec<_> = bom.components.iter().map(|component| component["purl"].as_str().unwrap()).collect();
        assert_eq!(names, ["pkg:cargo/cfg-if@1.0.0%2Bx", "pkg:cargo/quest-system@0.1.0", "pkg:cargo/sha2@0.11.0"]);
        let sha2 = &bom.components[2];
        assert_eq!(sha2["hashes"], json!([{ "alg": "SHA-256", "content": "abc" }]));
        assert_eq!(sha2["licenses"], json!([{ "expression": "MIT OR Apache-2.0" }]));
        assert_eq!(bom.components[1].get("hashes"), None);
        assert_eq!(bom.dependencies[1]["dependsOn"], json!(["pkg:cargo/sha2@0.11.0"]));
    }

    #[test]
    fn a_package_of_elsewhere_is_no_service() {
        assert_eq!(Bom::new("sha2", &metadata(), &Checksums::default()), None);
    }

    #[test]
    fn the_same_image_has_the_same_document_and_another_image_another() {
        let bom = bom();
        let (image, other) = (Digest::of(b"image"), Digest::of(b"other"));
        assert_eq!(bom.document(&image), bom.document(&image));
        let text = String::from_utf8(bom.document(&image).to_vec()).unwrap();
        let number = |text: &str| serde_json::from_str::<Value>(text).unwrap()["serialNumber"].clone();
        assert_eq!(number(&text).as_str().unwrap().len(), "urn:uuid:".len() + 36);
        assert_ne!(number(&text), number(std::str::from_utf8(&bom.document(&other)).unwrap()));
        assert!(!text.contains("timestamp"), "a time would make another document of it");
    }
}
