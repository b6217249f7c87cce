//! A folder of manifests for tests: valid until a test breaks it.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Manifests, Problems, load};

/// A workspace with manifests and with crates of services, in a temporary folder.
pub(crate) struct Tree(TempDir);

const SERVICES: &[(&str, &str)] = &[
    (
        "ai-integration",
        "serves: [ai.llm.v1]\ncalls: [model-management]\npublishes: [evt.ai.llm.generated.v1]\npublic: [ai.llm.v1.Llm/Infer, ai.llm.v1.Llm/InferStream]\n",
    ),
    ("gateway", "role: gateway\ncpu: 512\nmemory: 1 GiB\n"),
    (
        "model-management",
        "serves: [ai.model.v1]\npublishes: [evt.ai.model.selected.v1]\nbuckets:\n  models: {}\npublic: [ai.model.v1.ModelManagement/List]\n",
    ),
    (
        "npc-behavior",
        "serves: [npc.behavior.v1]\ncalls: []\npublishes: [evt.npc.behavior.planned.v1]\npublic: [npc.behavior.v1.Behavior/Plan]\n",
    ),
    (
        "quest-system",
        "serves: [quest.v1]\npublishes: [evt.quest.generated.v1]\nbuckets:\n  quests: { history: 5, ttl: 30 d }\npublic: [quest.v1.Quest/Generate, quest.v1.Quest/Get]\n",
    ),
    (
        "state-manager",
        "serves: [state.manager.v1]\npublishes: [evt.state.entity.updated.v1, evt.state.player.updated.v1]\nbuckets:\n  \
         entities: { history: 64, replicas: 1 }\npublic: [state.manager.v1.StateManager/Update, state.manager.v1.StateManager/Get]\n",
    ),
];

impl Tree {
    pub(crate) fn valid() -> Self {
        let mut tree = Self(tempfile::tempdir().unwrap());
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
        for file in ["fleet.yaml", "environments/local.yaml", "environments/production.yaml"] {
            tree.write(file, fs::read_to_string(repository.join(file)).unwrap());
        }
        for (name, text) in SERVICES {
            tree.write(&format!("services/{name}.yaml"), format!("name: {name}\n{text}"));
            tree.write(&format!("../services/{name}/Cargo.toml"), "");
        }
        tree.write("../services/sdk/Cargo.toml", "");
        tree.write("../Cargo.toml", "");
        tree
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.0.path().join("manifests")
    }

    /// Writes a file under `manifests/`.
    pub(crate) fn write(&mut self, file: &str, text: impl AsRef<[u8]>) {
        let path = match file.strip_prefix("../") {
            Some(file) => self.0.path().join(file),
            None => self.folder().join(file),
        };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[track_caller]
    pub(crate) fn replace(&mut self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.folder().join(file)).unwrap();
        assert!(text.contains(from), "`{from}` is not in `{file}`");
        self.write(file, text.replacen(from, to, 1));
    }

    pub(crate) fn remove(&mut self, file: &str) {
        fs::remove_file(self.folder().join(file)).unwrap();
    }

    pub(crate) fn load(&self) -> Result<Manifests, Problems> {
        load(&self.folder(), "local")
    }

    /// A text with the folder's own path left out.
    pub(crate) fn shown(&self, text: &impl ToString) -> String {
        text.to_string().replace(&format!("{}/", self.0.path().display()), "")
    }
}
