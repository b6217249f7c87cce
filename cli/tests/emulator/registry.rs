//! The front of the registry: a real one is behind it, and this adds what ECR does differently, counts what is pushed, and
//! cuts uploads in the middle.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::http::{Incoming, Reaction, Request, Response, Server, send};
use super::signed;

/// One request to the registry.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) status: u16,
    /// Bytes of the request's body.
    pub(crate) sent: usize,
}

#[derive(Default)]
pub(crate) struct Rules {
    /// The repositories that exist; `None`: any.
    pub(crate) repositories: Option<BTreeSet<String>>,
    /// A tag that exists is refused, whatever it should point to.
    pub(crate) immutable_tags: bool,
    /// Name and password, if they are asked for.
    pub(crate) login: Option<(String, String)>,
    /// The upload with this number, counted down, is cut after so many bytes.
    pub(crate) cut: Option<(usize, u64)>,
}

/// What the front knows, shared with the test.
pub(crate) struct Shared {
    registry: SocketAddr,
    ecr: SocketAddr,
    pub(crate) rules: Mutex<Rules>,
    pub(crate) transfers: Mutex<Vec<Transfer>>,
}

impl Shared {
    pub(crate) fn new(registry: SocketAddr, ecr: SocketAddr) -> Arc<Self> {
        Arc::new(Self { registry, ecr, rules: Mutex::default(), transfers: Mutex::default() })
    }

    /// Puts a blob straight into the registry.
    pub(crate) fn push_blob(&self, repository: &str, blob: &[u8]) -> String {
        let digest = digest(blob);
        let start = put("POST", format!("/v2/{repository}/blobs/uploads/"), "application/octet-stream", Vec::new());
        let started = send(self.registry, &start).unwrap();
        let location = started.header("location").unwrap();
        let path = location.split_once("/v2/").map_or(location, |(_, path)| path);
        let target = format!("/v2/{path}&digest={digest}");
        let done = send(self.registry, &put("PUT", target, "application/octet-stream", blob.to_vec())).unwrap();
        assert_eq!(done.status, 201, "{}", String::from_utf8_lossy(&done.body));
        digest
    }
}

pub(crate) fn start(shared: Arc<Shared>) -> Server {
    Server::start(move |incoming| {
        let (method, path) = (incoming.head.method.clone(), incoming.head.target.clone());
        let reaction = handle(&shared, incoming)?;
        if let Reaction::Answer(response) = &reaction {
            let transfer = Transfer { method, path, status: response.status, sent: incoming.head.body.len() };
            shared.transfers.lock().unwrap().push(transfer);
        }
        Ok(reaction)
    })
}

fn handle(shared: &Shared, incoming: &mut Incoming<'_>) -> io::Result<Reaction> {
    if let Some(bytes) = is_to_be_cut(shared, &incoming.head) {
        incoming.part(bytes)?;
        return Ok(Reaction::Cut);
    }
    let request = incoming.whole()?;
    let answer = match refusal(shared, &request)? {
        Some(refusal) => refusal,
        None => send(shared.registry, &request)?,
    };
    if request.method == "PUT" && answer.status == 201 {
        tell_ecr(shared, &request)?;
    }
    Ok(Reaction::Answer(answer))
}

fn is_to_be_cut(shared: &Shared, head: &Request) -> Option<u64> {
    let has_body =
        head.header("content-length").is_some_and(|length| length != "0") || head.header("transfer-encoding").is_some();
    if !has_body || !head.target.contains("/blobs/") {
        return None;
    }
    let mut rules = shared.rules.lock().unwrap();
    let (left, bytes) = rules.cut?;
    rules.cut = (left > 1).then_some((left - 1, bytes));
    (left == 1).then_some(bytes)
}

fn refusal(shared: &Shared, request: &Request) -> io::Result<Option<Response>> {
    let rules = shared.rules.lock().unwrap();
    if let Some((name, password)) = &rules.login {
        let wanted = format!("Basic {}", BASE64.encode(format!("{name}:{password}").as_bytes()));
        if request.header("authorization") != Some(&wanted) {
            let challenge = error(401, "UNAUTHORIZED", "authentication required");
            return Ok(Some(challenge.with("www-authenticate", "Basic realm=\"the registry\"")));
        }
    }
    let Some((repository, reference)) = parts(&request.target) else { return Ok(None) };
    if rules.repositories.as_ref().is_some_and(|known| !known.contains(repository)) {
        let message =
            format!("The repository with name '{repository}' does not exist in the registry with id '123456789012'");
        return Ok(Some(error(404, "NAME_UNKNOWN", &message)));
    }
    let is_tag = request.target.contains("/manifests/") && !reference.contains(':');
    if rules.immutable_tags && request.method == "PUT" && is_tag {
        let accept = ("accept".to_owned(), request.header("content-type").unwrap_or_default().to_owned());
        let head = Request { method: "HEAD".to_owned(), body: Vec::new(), headers: vec![accept], ..request.clone() };
        if send(shared.registry, &head)?.status == 200 {
            let message = format!(
                "The image tag '{reference}' already exists in the '{repository}' repository and cannot be overwritten \
                 because the tag is immutable."
            );
            return Ok(Some(error(400, "TAG_INVALID", &message)));
        }
    }
    Ok(None)
}

fn error(status: u16, code: &str, message: &str) -> Response {
    let body = json!({ "errors": [{ "code": code, "message": message }] });
    Response::new(status, "application/json", body.to_string())
}

/// Repository, and tag, digest or upload, of `/v2/<repository>/manifests/<reference>`.
fn parts(target: &str) -> Option<(&str, &str)> {
    let path = target.strip_prefix("/v2/")?.split('?').next()?;
    let (repository, rest) =
        ["/manifests/", "/blobs/", "/tags/", "/referrers/"].iter().find_map(|kind| path.split_once(kind))?;
    Some((repository, rest))
}

/// ECR's own calls show what was pushed.
fn tell_ecr(shared: &Shared, request: &Request) -> io::Result<()> {
    let Some((repository, reference)) = parts(&request.target).filter(|_| request.target.contains("/manifests/"))
    else {
        return Ok(());
    };
    let mut image = json!({
        "repositoryName": repository,
        "imageManifest": String::from_utf8_lossy(&request.body),
        "imageManifestMediaType": request.header("content-type"),
    });
    if !reference.contains(':') {
        image["imageTag"] = reference.into();
    }
    send(shared.ecr, &signed("ecr", "AmazonEC2ContainerRegistry_V20150921.PutImage", &image)).map(drop)
}

pub(crate) fn push_manifest(at: SocketAddr, repository: &str, tag: &str, manifest: &Value) -> Result<String, String> {
    let body = manifest.to_string().into_bytes();
    let digest = digest(&body);
    let kind = manifest["mediaType"].as_str().unwrap_or("application/vnd.oci.image.manifest.v1+json");
    let answer = send(at, &put("PUT", format!("/v2/{repository}/manifests/{tag}"), kind, body)).unwrap();
    if answer.status == 201 { Ok(digest) } else { Err(String::from_utf8_lossy(&answer.body).into_owned()) }
}

fn put(method: &str, target: String, kind: &str, body: Vec<u8>) -> Request {
    Request { method: method.to_owned(), target, headers: vec![("content-type".to_owned(), kind.to_owned())], body }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(bytes)))
}
