//! The local platform of the pipeline: processes of this machine, which a supervisor keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::apply::Work;
use super::artifacts::Artifacts;
use super::build::Source;
use super::cluster_files::ClusterFiles;
use super::dir::Dir;
use super::environment::Local;
use super::history::History;
use super::lock::Lock;
use super::secrets;
use crate::manifest::Manifests;
use crate::model::change::{Change, Deploy};
use crate::model::desired::Desired;
use crate::model::observed::Observed;
use crate::model::plan::Plan;
use crate::model::step::Step;
use crate::nats::locate::{self, NatsServer};
use crate::pipeline::history::Record;
use crate::pipeline::load::{self, BuiltArtifact, Inputs};
use crate::pipeline::lock::IfHeld;
use crate::pipeline::options::{BinarySource, Options};
use crate::pipeline::{Platform, Progress, Purpose};
use crate::screen::note;

/// What a local deployment is made of besides the desired state.
pub(crate) struct Materials {
    pub(super) files: ClusterFiles,
    pub(super) server: NatsServer,
}

impl Local {
    /// Where binaries come from.
    fn source(&self, binaries: &BinarySource) -> anyhow::Result<Source> {
        match binaries {
            BinarySource::Folder(folder) => Ok(Source { folder: folder.clone(), workspace: None }),
            BinarySource::LastBuild => Ok(Source::beside_natsctl(&self.workspace)?.without_building()),
            BinarySource::Build => Source::beside_natsctl(&self.workspace),
        }
    }

    /// Binaries as they are, neither built nor copied. One that a deployment would build first is not known yet.
    fn look(&self, source: &Source) -> anyhow::Result<BTreeMap<String, BuiltArtifact>> {
        let artifacts = Artifacts::preview(&self.dir)?;
        let (mut found, mut missing) = (BTreeMap::new(), Vec::new());
        for name in self.manifests.services.keys() {
            let built = match artifacts.look(&source.folder.join(name), env!("CARGO_PKG_VERSION"))? {
                Some(artifact) => BuiltArtifact { digest: artifact.digest, version: artifact.version },
                None => {
                    missing.push(&**name);
                    BuiltArtifact { digest: NOT_BUILT.to_owned(), version: NOT_BUILT.to_owned() }
                }
            };
            found.insert(name.clone(), built);
        }
        match &source.workspace {
            None if !missing.is_empty() => return Err(source.lacks(&missing).into()),
            None => {}
            Some(_) => {
                note("planned with the binaries of the last build; `natsctl deploy` builds what has changed first");
            }
        }
        Ok(found)
    }

    /// Copies binaries to where they are found by their digests.
    fn intern(&self, binaries: &BTreeMap<String, PathBuf>) -> anyhow::Result<BTreeMap<String, BuiltArtifact>> {
        let mut artifacts = Artifacts::open(&self.dir)?;
        let intern = |(name, path): (&String, &PathBuf)| {
            let artifact = artifacts.intern(path, env!("CARGO_PKG_VERSION"));
            let artifact = artifact.with_context(|| format!("failed to copy `{}`", path.display()))?;
            Ok((name.clone(), BuiltArtifact { digest: artifact.digest, version: artifact.version }))
        };
        binaries.iter().map(intern).collect()
    }
}

/// Stands for a binary that is not there yet.
const NOT_BUILT: &str = "(not built)";

impl Platform for Local {
    type Materials = Materials;
    type Observation = Observed;
    type Work<'a> = Work<'a>;
    type Lock = Lock;

    const LOCK_COSTS_NOTHING: bool = true;

    fn manifests(&self) -> &Manifests {
        &self.manifests
    }

    fn workspace(&self) -> &Path {
        &self.workspace
    }

    fn dir(&self) -> &Path {
        &self.dir
    }

    fn caller(&self) -> (&str, &str) {
        (&self.user, &self.command_line)
    }

    async fn load(&self, deploy: &Deploy, options: &Options, purpose: Purpose) -> anyhow::Result<(Desired, Materials)> {
        let deployed = self.manifests.services.values();
        let deployed = deployed.filter(|service| deploy.selection.services.contains(&*service.name));
        secrets::refuse_missing(&Dir::new(&self.dir)?, deployed)?;
        let source = self.source(&options.binaries)?;
        let artifacts = match purpose {
            Purpose::Preview => self.look(&source)?,
            Purpose::Change => self.intern(&source.build(self.manifests.services.keys()).await?)?,
        };
        let server = locate::locate(&self.workspace)?;
        tracing::info!(path = %server.path.display(), version = %server.version, "using nats-server");
        let files = match purpose {
            Purpose::Preview => ClusterFiles::preview(&self.manifests, &self.dir, &server)?,
            Purpose::Change => ClusterFiles::prepare(&self.manifests, &self.dir, &server)?,
        };
        if purpose == Purpose::Change {
            files.restore_endpoints(&self.dir)?;
        }
        let mut desired = load::desired(&self.manifests, &Inputs { artifacts, nodes: files.desired() })?;
        self.name_secrets(&mut desired);
        Ok((desired, Materials { files, server }))
    }

    async fn observe(&self, change: &Change, _: &Desired, _: Option<&Materials>) -> anyhow::Result<Observed> {
        self.observed(change).await
    }

    async fn lock(&self, if_held: IfHeld) -> anyhow::Result<Lock> {
        Lock::take(&self.dir, &self.user, &self.command_line, if_held).await
    }

    async fn unlock(&self, lock: Lock) -> anyhow::Result<()> {
        drop(lock);
        Ok(())
    }

    async fn put_record(&self, record: &Record) -> anyhow::Result<()> {
        History::new(&self.dir).put(record)
    }

    async fn records(&self, limit: usize) -> anyhow::Result<Vec<Record>> {
        History::new(&self.dir).records(limit)
    }

    async fn begin<'a>(
        &'a self,
        plan: &Plan,
        _: &'a Observed,
        materials: Option<&'a Materials>,
        options: &'a Options,
    ) -> anyhow::Result<Work<'a>> {
        if let Some(materials) = materials {
            materials.files.write_endpoints(&self.dir)?;
        }
        Ok(Work::new(self, plan, materials, options))
    }

    async fn apply<'a>(&'a self, work: &mut Work<'a>, wave: &[&Step], progress: &mut Progress) -> anyhow::Result<()> {
        work.apply(wave, progress).await
    }

    /// The supervisor has rolled back each deployment that failed itself.
    async fn roll_back<'a>(&'a self, _: &mut Work<'a>, progress: &mut Progress) -> anyhow::Result<()> {
        progress.aftermath = Some("what ran before keeps running".to_owned());
        Ok(())
    }

    async fn verify(
        &self,
        services: &BTreeSet<String>,
        _: Option<&Observed>,
        _: &Options,
    ) -> anyhow::Result<Vec<String>> {
        self.prove(services).await
    }

    /// Removes binaries that neither a task nor a rollback needs.
    async fn clean_up(&self) -> anyhow::Result<()> {
        if let Some(description) = self.describe().await? {
            Artifacts::open(&self.dir)?.prune(&description.artifacts())?;
        }
        Ok(())
    }
}
