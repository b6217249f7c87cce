//! What AWS would refuse later: accounts, regions, names that are too long, images without a digest.

use super::links::Document;
use super::secrets;
use super::yaml::{Node, Value};
use crate::problem::{Problem, listed};

/// IAM's limit for the name of a role.
const LONGEST_ROLE: usize = 64;

/// Names of identities that no service has. Terraform refuses them, too.
const OWN_IDENTITIES: &[&str] = &["authority", "errand", "natsctl", "operator"];

/// What is wrong with the manifest of an environment on AWS.
pub(super) fn environment(document: &Document) -> Vec<Problem> {
    let text = |key: &str| document.root.get(key).and_then(|node| Some((node, node.text()?)));
    let problem =
        |node: &Node, message: String, hint: &str| Problem::new(&document.place(node.position), message).hint(hint);
    let mut problems = Vec::new();
    if let Some((node, account)) = text("account")
        && !(account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()))
    {
        problems.push(problem(
            node,
            format!("`{account}` is not the number of an account"),
            "it has 12 digits, in quotes",
        ));
    }
    if let Some((node, region)) = text("region")
        && !is_region(region)
    {
        problems.push(problem(node, format!("`{region}` is not a region"), "for example `us-east-1`"));
    }
    if let Some((node, name)) = text("handover")
        && !(name.starts_with('/') && name.len() > 1)
    {
        let hint = "write the parameter's full name, for example `/gaming-system/production/natsctl`";
        problems.push(problem(node, format!("`{name}` is not the name of a parameter"), hint));
    }
    problems
}

/// What is wrong with a service's manifest, for any environment.
pub(super) fn service(document: &Document, fleet: Option<&Document>, environment: &str) -> Vec<Problem> {
    let problems = [build(document), role(document, fleet, environment), identity(document)];
    problems.into_iter().flatten().chain(repository(document)).chain(secrets::problems(document)).collect()
}

/// The repository of a service is called after it.
fn repository(document: &Document) -> impl Iterator<Item = Problem> {
    let is_built = document.root.find(&["build", "image"]).is_none();
    let names = ["name", "ecs_name"].into_iter().filter(move |_| is_built).filter_map(|key| document.root.get(key));
    names.filter_map(|node| {
        let name = node.text()?;
        if name.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b'_') {
            let message = format!("`{name}` has upper-case letters or `_`, and natsctl pushes its image");
            let hint = "ECR refuses that as the name of a repository here: name an image that exists in `build.image`";
            return Some(Problem::new(&document.place(node.position), message).hint(hint));
        }
        let name = Some(name).filter(|name| name.split('-').any(str::is_empty))?;
        let message = format!("`{name}` has a `-` at its end, or two in a row");
        let hint = "ECR refuses that as the name of a repository: write single `-` between letters and digits";
        Some(Problem::new(&document.place(node.position), message).hint(hint))
    })
}

/// Each service has an identity on NATS that is called after it.
fn identity(document: &Document) -> Option<Problem> {
    let node = document.root.get("name")?;
    let name = node.text().filter(|name| OWN_IDENTITIES.contains(name))?;
    let message = format!("`{name}` is the name of an identity of natsctl's own");
    let hint = format!("rename the service; these names are taken: {}", listed(OWN_IDENTITIES.iter().copied()));
    Some(Problem::new(&document.place(node.position), message).hint(hint))
}

fn build(document: &Document) -> Option<Problem> {
    let build = document.root.get("build")?;
    let Value::Map(_) = &build.value else { return None };
    let refused = |node: &Node, message: String, hint: &str| {
        Some(Problem::new(&document.place(node.position), message).hint(hint))
    };
    match (build.get("dockerfile"), build.get("context"), build.get("image")) {
        (None, _, None) => {
            let hint = "write `{ dockerfile: … }` or `{ image: repository@sha256:… }`, or leave `build` out";
            refused(build, "`build` says neither `dockerfile` nor `image`".to_owned(), hint)
        }
        (Some(_), _, Some(image)) => refused(image, "`build` says `dockerfile` and `image`".to_owned(), "keep one"),
        (None, Some(context), Some(_)) => refused(context, "`context` is for a `dockerfile`".to_owned(), "remove it"),
        (_, _, Some(image)) => {
            let text = image.text()?;
            let (_, digest) = text.split_once("@sha256:").unwrap_or_default();
            let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_digest {
                return None;
            }
            let hint = "a tag can move; write `repository@sha256:…` (`skopeo inspect` shows the digest)";
            refused(image, format!("image `{text}` has no digest"), hint)
        }
        _ => None,
    }
}

/// The role of a task is called after project, environment and service.
fn role(document: &Document, fleet: Option<&Document>, environment: &str) -> Option<Problem> {
    let name = document.root.get("name")?;
    let project = fleet?.root.get("project")?.text()?;
    let role = format!("{project}-{environment}-{}", name.text()?);
    if role.len() <= LONGEST_ROLE {
        return None;
    }
    let message = format!("its role on AWS would be called `{role}`, which has {} characters", role.len());
    let hint = format!("IAM allows {LONGEST_ROLE}: shorten the name of the service, the environment or the project");
    Some(Problem::new(&document.place(name.position), message).hint(hint))
}

fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let is_word = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    match parts.split_last() {
        Some((number, words)) => words.len() >= 2 && words.iter().all(is_word) && number.parse::<u8>().is_ok(),
        None => false,
    }
}
