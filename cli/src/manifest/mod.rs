//! The manifests: what should run, as people write it. Read strictly, everything wrong said at once, before any call is
//! made.
//!
//! The types in `files` are the only description of the files: their JSON Schema checks the YAML trees (`check`) and
//! helps editors, and only what has passed is deserialized.

mod caches;
mod check;
mod cloud;
pub(crate) mod consumes;
pub(crate) mod ecs;
mod files;
#[cfg(test)]
pub(crate) mod fixture;
mod links;
mod names;
mod on_ecs;
mod overrides;
mod release;
mod schema;
mod secrets;
mod sizes;
#[cfg(test)]
mod tests;
mod traces;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

pub use caches::CacheSettings;
pub use files::ECS_NAME_SUFFIX;
pub use files::{
    AlarmSettings, AutoscalingSettings, AwsEnvironment, AwsNats, BucketSettings, Environment, EventSettings, Grant,
    HealthSettings, ImageSource, LocalEnvironment, LocalGateway, LocalNats, NatsSettings, ProjectManifest, Retention,
    ServiceManifest, Settings, TraceSettings,
};
pub use names::{BucketName, CacheName, Name, SecretName, Variable};
pub use overrides::Overrides;
pub use release::{Archive, Release, ReleaseDigests};
pub use schema::{schema_text, schemas};

use crate::error::{Code, Hinted};
use crate::model::desired::Role;
use crate::model::units::Size;
use crate::problem::{Place, did_you_mean, listed, read};
pub use crate::problem::{Problem, Problems};
use links::{Document, ServiceDocuments};

/// All manifests of one environment; they fit together.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifests {
    /// Name of the environment.
    pub name: String,
    /// Where the fleet runs.
    pub environment: Environment,
    /// What the whole fleet has in common.
    pub project: ProjectManifest,
    /// Services by name, the gateway among them.
    pub services: BTreeMap<String, ServiceManifest>,
}

/// A name that no service has; these are those that there are.
pub(crate) fn unknown_service<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Hinted {
    let hint = did_you_mean(name, known.clone())
        .unwrap_or_else(|| format!("there are: {}", known.collect::<Vec<_>>().join(", ")));
    Hinted::new(format!("no manifest describes a service `{name}`"), hint).code(Code::UnknownName)
}

impl Manifests {
    /// The services that a service calls: for a gateway all that have a public method.
    pub(crate) fn callees(&self, service: &ServiceManifest) -> BTreeSet<String> {
        match service.role {
            Role::Worker => service.calls.clone(),
            Role::Standalone => BTreeSet::new(),
            Role::Gateway => self
                .services
                .values()
                .filter(|other| !other.public.is_empty() && other.name != service.name)
                .map(|other| other.name.to_string())
                .collect(),
        }
    }

    /// The methods of another service that a service may call: for a gateway those that are public.
    pub(crate) fn callable(
        &self,
        caller: &ServiceManifest,
        callee: &ServiceManifest,
    ) -> Vec<&'static proto::rpc::Method> {
        let served = proto::SERVICES.iter().filter(|served| callee.serves.contains(served.package));
        let is_callable = |method: &&proto::rpc::Method| match caller.role {
            Role::Worker => caller.calls.contains(&*callee.name),
            Role::Standalone => false,
            Role::Gateway => callee.public.contains(method.full_name),
        };
        served.flat_map(|served| served.methods).filter(is_callable).collect()
    }

    /// The methods that anybody may call through a gateway, by full protobuf name.
    pub(crate) fn public_methods(&self) -> BTreeSet<&str> {
        self.services.values().flat_map(|service| &service.public).map(String::as_str).collect()
    }

    /// The service of this name.
    ///
    /// # Errors
    /// There is none; the hint names one that is spelled alike, or all.
    pub(crate) fn service(&self, name: &str) -> anyhow::Result<&ServiceManifest> {
        let unknown = || unknown_service(name, self.services.keys().map(String::as_str)).into();
        self.services.get(name).ok_or_else(unknown)
    }

    /// Most that JetStream stores on one node.
    pub(crate) fn max_file_store(&self) -> Size {
        let own = match &self.environment {
            Environment::Local(local) => local.nats.max_file_store,
            Environment::Aws(_) => None,
        };
        own.unwrap_or(self.project.nats.max_file_store)
    }

    /// As many replicas as `wanted`, or as is usual in the project, but no more than the cluster has nodes.
    pub(crate) fn replicas(&self, wanted: Option<usize>) -> usize {
        wanted.unwrap_or(self.project.nats.replicas).min(self.environment.nodes())
    }
}

/// Reads the manifests in `folder` for an environment.
///
/// # Errors
/// Everything that is wrong with any of the files.
pub fn load(folder: &Path, environment: &str) -> Result<Manifests, Problems> {
    load_with(folder, environment, Services::All)
}

/// The same without any service: what is wrong with their manifests does not matter.
///
/// # Errors
/// Everything that is wrong with the project's or the environment's file.
pub fn load_without_services(folder: &Path, environment: &str) -> Result<Manifests, Problems> {
    load_with(folder, environment, Services::None)
}

/// The same with one service alone, whose manifest `text` would be in `file`.
///
/// # Errors
/// Everything that is wrong with it, and with the project's or the environment's file.
pub fn load_with_one(folder: &Path, environment: &str, file: &Path, text: &str) -> Result<Manifests, Problems> {
    load_with(folder, environment, Services::One { file, text })
}

/// Which manifests of services are read.
#[derive(Clone, Copy)]
enum Services<'a> {
    All,
    None,
    One { file: &'a Path, text: &'a str },
}

fn load_with(folder: &Path, environment: &str, which: Services<'_>) -> Result<Manifests, Problems> {
    let mut loading = Loading::default();
    let fleet = loading.read::<ProjectManifest>(folder.join("fleet.yaml"));
    let fleet = fleet.as_ref();
    let place = loading.environment(folder, environment);
    let place = place.as_ref();
    let mut services = match which {
        Services::All => loading.services(&folder.join("services")),
        Services::None => Vec::new(),
        Services::One { file, text } => loading.parse::<ServiceManifest>(file.to_owned(), text).into_iter().collect(),
    };

    if let Some(place) = place {
        loading.overrides(&mut services, place);
    }
    loading.problems.extend(fleet.map(sizes::fleet).unwrap_or_default());
    loading.problems.extend(place.map(sizes::environment).unwrap_or_default());
    loading.problems.extend(place.map(cloud::environment).unwrap_or_default());
    loading.problems.extend(place.map(release::problems).unwrap_or_default());
    loading.problems.extend(place.map(traces::environment).unwrap_or_default());
    for service in &services {
        loading.problems.extend(sizes::service(service, fleet));
        loading.problems.extend(cloud::service(service, fleet, environment));
        loading.problems.extend(on_ecs::problems(service));
    }
    let known = ServiceDocuments { readable: &services, unreadable: &loading.unreadable };
    if let (Some(place), Services::All) = (place, which) {
        loading.problems.extend(overrides::problems(place, &known.known_names()));
    }
    let workspace = workspace(folder).filter(|_| matches!(which, Services::All));
    let linked = links::problems(&known, &folder.join("services"), workspace.as_deref());
    loading.problems.extend(linked);

    let (Some(fleet), Some(place), true) = (fleet, place, loading.problems.is_empty()) else {
        return Err(loading.problems.into());
    };
    let mut manifests = Manifests {
        name: environment.to_owned(),
        environment: typed(place, place.root.to_json())?,
        project: typed(fleet, fleet.root.to_json())?,
        services: services
            .iter()
            .map(|document| {
                let mut settings = fleet.root.get("defaults").map_or(Json::Null, yaml::Node::to_json);
                merge(&mut settings, document.root.to_json());
                let service = typed::<ServiceManifest>(document, settings)?.completed();
                Ok((service.name.to_string(), service))
            })
            .collect::<Result<_, Problem>>()?,
    };
    if matches!(manifests.environment, Environment::Local(_)) {
        // One machine runs what takes part in NATS.
        manifests.services.retain(|_, service| service.role != Role::Standalone);
    }
    Ok(manifests)
}

/// Names of the environments that there are manifests for.
pub fn environments(folder: &Path) -> BTreeSet<String> {
    names_of_files(&folder.join("environments"))
}

/// Names of the services that there are manifests for.
pub(crate) fn service_names(folder: &Path) -> BTreeSet<String> {
    names_of_files(&folder.join("services"))
}

fn names_of_files(folder: &Path) -> BTreeSet<String> {
    yaml_files(folder)
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "yaml"))
        .filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned()))
        .collect()
}

#[derive(Default)]
struct Loading {
    problems: Vec<Problem>,
    /// Names of the files of services that are no YAML.
    unreadable: BTreeSet<String>,
}

impl Loading {
    /// The tree of a file, if it is YAML. What is wrong with it is noted.
    fn read<T: JsonSchema>(&mut self, file: PathBuf) -> Option<Document> {
        let text = match read(&file) {
            Ok(text) => text,
            Err(problem) => {
                self.problems.push(problem);
                return None;
            }
        };
        self.parse::<T>(file, &text)
    }

    /// The tree of a text, if it is YAML. What is wrong with it is noted.
    fn parse<T: JsonSchema>(&mut self, file: PathBuf, text: &str) -> Option<Document> {
        let (root, mut flaws) = yaml::parse(text);
        if let Some(root) = &root {
            flaws.extend(check::check(root, schema::of::<T>().as_value()));
        }
        self.problems.extend(flaws.into_iter().map(|flaw| flaw.in_place(Place::start_of(&file))));
        root.map(|root| Document { file, environment: None, root })
    }

    fn environment(&mut self, folder: &Path, name: &str) -> Option<Document> {
        let folder_of_all = folder.join("environments");
        let file = folder_of_all.join(format!("{name}.yaml"));
        if !self.can_list(&folder_of_all) {
            return None;
        }
        let known = environments(folder);
        if known.contains(name) {
            return self.read::<Environment>(file);
        }
        let names = known.iter().map(String::as_str);
        let hint =
            did_you_mean(name, names.clone()).unwrap_or_else(|| format!("the environments are {}", listed(names)));
        let problem = Problem::new(&Place::start_of(file), format!("environment `{name}` does not exist"));
        self.problems.push(problem.hint(hint));
        None
    }

    /// Puts what the environment says of services over what their manifests say. What is wrong with both together is noted.
    fn overrides(&mut self, services: &mut [Document], environment: &Document) {
        let schema = schema::of::<ServiceManifest>();
        for service in services {
            // What is wrong in one file alone is noted already.
            let is_of = |problem: &Problem| [&service.file, &environment.file].contains(&&problem.file);
            let is_well_formed = !self.problems.iter().any(is_of);
            if overrides::put(service, environment) && is_well_formed {
                let flaws = check::check(&service.root, schema.as_value());
                self.problems.extend(flaws.into_iter().map(|flaw| {
                    let place = service.place(flaw.position);
                    flaw.in_place(place)
                }));
            }
        }
    }

    /// Whether the files of a folder can be listed. Why not is noted.
    fn can_list(&mut self, folder: &Path) -> bool {
        let Err(error) = std::fs::read_dir(folder) else { return true };
        let problem = Problem::new(&Place::start_of(folder), format!("cannot read `{}`: {error}", folder.display()));
        self.problems.push(problem.hint("name the folder of the manifests with `--manifests`"));
        false
    }

    fn services(&mut self, folder: &Path) -> Vec<Document> {
        self.can_list(folder);
        let mut documents = Vec::new();
        for file in yaml_files(folder) {
            if file.extension().is_some_and(|extension| extension == "yml") {
                let problem = Problem::new(&Place::start_of(&file), "the file ends in `.yml`, so nothing reads it");
                self.problems.push(problem.hint("rename it to end in `.yaml`"));
                continue;
            }
            let stem = file.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
            match self.read::<ServiceManifest>(file) {
                Some(document) => documents.push(document),
                None => self.unreadable.extend(stem),
            }
        }
        documents
    }
}

/// The files of services, and the name that each service has on ECS, as far as the files can be read.
#[cfg(feature = "aws")]
pub(crate) fn ecs_names(folder: &Path) -> BTreeMap<String, PathBuf> {
    let files = yaml_files(&folder.join("services")).into_iter();
    let named = files.filter_map(|file| {
        let (root, _) = yaml::parse(&read(&file).ok()?);
        let root = root?;
        let text = |key: &str| root.get(key).and_then(yaml::Node::text).map(str::to_owned);
        let name = text("ecs_name").or_else(|| Some(format!("{}{ECS_NAME_SUFFIX}", text("name")?)));
        Some((name?, file))
    });
    named.collect()
}

/// The JSON Schema of a part of the manifests.
#[cfg(feature = "aws")]
pub(crate) fn schema_of<T: JsonSchema>() -> Json {
    schema::of::<T>().to_value()
}

/// Files that end in `.yaml` or `.yml`, in order; none if the folder cannot be read.
fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"))
        .collect();
    files.sort();
    files
}

/// The workspace that the manifests lie in, if it has crates of services.
fn workspace(folder: &Path) -> Option<PathBuf> {
    let root = match folder.file_name() {
        Some(_) => folder.parent()?.to_owned(),
        None => folder.canonicalize().ok()?.parent()?.to_owned(),
    };
    (root.join("Cargo.toml").is_file() && root.join("services").is_dir()).then_some(root)
}

/// Puts what `own` says over `base`, key by key.
fn merge(base: &mut Json, own: Json) {
    match (base, own) {
        (Json::Object(base), Json::Object(own)) => {
            for (key, value) in own {
                merge(base.entry(key).or_insert(Json::Null), value);
            }
        }
        (base, own) => *base = own,
    }
}

fn typed<T: DeserializeOwned>(document: &Document, value: Json) -> Result<T, Problem> {
    serde_json::from_value(value).map_err(|error| Problem::new(&Place::start_of(&document.file), error.to_string()))
}
