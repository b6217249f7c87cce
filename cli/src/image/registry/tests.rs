//! Pushing to a real registry, through a proxy that fails.

use std::sync::Arc;
use std::sync::Mutex as Lock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;

use super::stage::{Act, Head, Proxy, Server, answer, refusal};
use super::*;
use crate::error::hint;
use crate::image::testing::{Workshop, noise};

/// Something that compressing does not make small: it is sent in several pieces.
const LARGE: usize = 3_000_000;

fn anonymous(host: impl ToString) -> Registry {
    Registry::new(&host.to_string(), Credentials::Anonymous).unwrap()
}

fn me(password: &str) -> Login {
    Login::new("me", password)
}

/// What happened to the blobs.
#[derive(Default)]
struct Recorded(Lock<Vec<Progress>>);

impl Recorded {
    fn of(&self, kind: impl Fn(&Progress) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|progress| kind(progress)).count()
    }

    fn sent(&self) -> usize {
        self.of(|progress| matches!(progress, Progress::Sent(_)))
    }

    fn mounted(&self) -> usize {
        self.of(|progress| matches!(progress, Progress::Mounted(_)))
    }

    fn skipped(&self) -> usize {
        self.of(|progress| matches!(progress, Progress::Skipped(_)))
    }
}

async fn push(
    registry: &Registry,
    repository: &str,
    image: &BuiltImage,
    workshop: &Workshop,
) -> anyhow::Result<Pushed> {
    registry.push(repository, image, &workshop.store, &|_| ()).await
}

async fn push_recorded(
    registry: &Registry,
    repository: &str,
    image: &BuiltImage,
    workshop: &Workshop,
) -> (Pushed, Recorded) {
    let recorded = Recorded::default();
    let note = |progress| recorded.0.lock().unwrap().push(progress);
    let pushed = registry.push(repository, image, &workshop.store, &note).await.unwrap();
    (pushed, recorded)
}

/// Message and hint of a push that must fail.
async fn refused(registry: &Registry, image: &BuiltImage, workshop: &Workshop) -> (String, String) {
    let error = push(registry, "team/quest", image, workshop).await.unwrap_err();
    (format!("{error:#}"), hint(&error).unwrap_or_default())
}

#[tokio::test]
async fn an_image_that_is_there_is_recognised_by_one_request() {
    let Some(server) = Server::open().await else { return };
    let workshop = Workshop::new();
    let image = workshop.image("quest", b"one");
    let first = push(&anonymous(server.address), "team/quest", &image, &workshop).await.unwrap();
    assert!(!first.existed && first.bytes > 0 && first.refused_bom.is_none(), "{first:?}");
    assert_eq!(first.digest, *workshop.packed("quest", b"one").digest());

    let proxy = Proxy::new(server.address, |_| Act::Pass).await;
    let again = push(&anonymous(&proxy.host), "team/quest", &image, &workshop).await.unwrap();
    assert_eq!(again, Pushed { existed: true, bytes: 0, ..first });
    assert_eq!(proxy.seen(), [format!("GET /v2/team/quest/manifests/{}", image.tag())]);
}

#[tokio::test]
async fn what_was_compressed_otherwise_is_the_same_image() {
    let Some(server) = Server::open().await else { return };
    let workshop = Workshop::new();
    let zstd = workshop.image("quest", b"one");
    let gzip = BuiltImage { compression: super::super::Compression::Gzip, ..zstd.clone() };
    let registry = anonymous(server.address);
    assert_eq!(registry.find("team/quest", &gzip).await.unwrap(), None);
    let first = push(&registry, "team/quest", &zstd, &workshop).await.unwrap();
    assert_eq!(registry.find("team/quest", &gzip).await.unwrap(), Some(first.digest));
}

#[tokio::test]
async fn what_images_have_in_common_is_sent_once_and_mounted() {
    let Some(server) = Server::open().await else { return };
    let (workshop, registry) = (Workshop::new(), anonymous(server.address));
    let images: Vec<BuiltImage> =
        (0..5).map(|number| workshop.image(&format!("service-{number}"), number.to_string().as_bytes())).collect();
    let pushes = images.iter().map(|image| push_recorded(&registry, &image.service, image, &workshop));
    let all: Vec<Recorded> = join_all(pushes).await.into_iter().map(|(_, recorded)| recorded).collect();
    // Configuration, binary and list of each; once the common layer and the empty configuration of lists.
    assert_eq!(all.iter().map(Recorded::sent).sum::<usize>(), 5 * 3 + 2);
    assert_eq!(all.iter().map(Recorded::mounted).sum::<usize>(), 4 * 2);
}

#[tokio::test]
async fn of_a_changed_image_only_what_changed_is_sent() {
    let Some(server) = Server::open().await else { return };
    let workshop = Workshop::new();
    push(&anonymous(server.address), "team/quest", &workshop.image("quest", b"one"), &workshop).await.unwrap();
    let changed = workshop.image("quest", b"another");
    let (_, recorded) = push_recorded(&anonymous(server.address), "team/quest", &changed, &workshop).await;
    assert_eq!((recorded.sent(), recorded.skipped()), (3, 2));
}

#[tokio::test]
async fn without_mounting_everything_is_sent_to_every_repository() {
    let Some(server) = Server::open().await else { return };
    // As ECR does by default: it begins an upload instead.
    let proxy = Proxy::new(server.address, |head| match head.path.split_once("?mount=") {
        Some((path, _)) => Act::PassTo(path.to_owned()),
        None => Act::Pass,
    })
    .await;
    let (workshop, registry) = (Workshop::new(), anonymous(&proxy.host));
    for service in ["one", "other"] {
        let (_, recorded) =
            push_recorded(&registry, service, &workshop.image(service, service.as_bytes()), &workshop).await;
        assert_eq!((recorded.sent(), recorded.mounted()), (5, 0));
    }
    let uploads = proxy.seen().iter().filter(|seen| seen.starts_with("POST")).count();
    assert_eq!(uploads, 10, "the upload that was offered instead of mounting is used");
}

#[tokio::test]
async fn the_list_of_parts_is_found_by_the_digest_of_the_image() {
    let Some(server) = Server::open().await else { return };
    let (workshop, registry) = (Workshop::new(), anonymous(server.address));
    let image = workshop.image("quest", b"one");
    let pushed = push(&registry, "team/quest", &image, &workshop).await.unwrap();
    let fallback = pushed.digest.as_str().replace(':', "-");
    let (_, index) = registry.manifest("team/quest", &fallback).await.unwrap().unwrap();
    let index: Index = serde_json::from_slice(&index).unwrap();
    assert_eq!(index.manifests.len(), 1);
    assert_eq!(index.manifests[0].artifact_type.as_deref(), Some("application/vnd.cyclonedx+json"));
    let attached = registry.manifest("team/quest", index.manifests[0].digest.as_str()).await.unwrap().unwrap().1;
    let attached: Manifest = serde_json::from_slice(&attached).unwrap();
    assert_eq!(attached.subject.unwrap().digest, pushed.digest);
}

#[tokio::test]
async fn a_registry_that_knows_attachments_needs_no_index_of_them() {
    let Some(server) = Server::open().await else { return };
    let (workshop, packed) = (Workshop::new(), Workshop::new().packed("quest", b"one"));
    let attached = packed.bom.unwrap().manifest.digest().clone();
    let path = format!("/v2/team/quest/manifests/{attached}");
    let proxy = Proxy::new(server.address, move |head| {
        let knows = head.method == "PUT" && head.path == path;
        let created = answer("201 Created", &format!("OCI-Subject: {attached}\r\n"), "");
        if knows { Act::Replace(created) } else { Act::Pass }
    })
    .await;
    let image = workshop.image("quest", b"one");
    let pushed = push(&anonymous(&proxy.host), "team/quest", &image, &workshop).await.unwrap();
    assert_eq!(pushed.refused_bom, None);
    assert!(!proxy.seen().iter().any(|seen| seen.contains("manifests/sha256-")), "{:#?}", proxy.seen());
}

#[tokio::test]
async fn a_registry_that_takes_no_lists_takes_the_image_all_the_same() {
    let Some(server) = Server::open().await else { return };
    let workshop = Workshop::new();
    let attached = workshop.packed("quest", b"one").bom.unwrap().manifest.digest().clone();
    let proxy = Proxy::new(server.address, move |head| match head.path.contains(attached.as_str()) {
        true => Act::Answer(refusal("400 Bad Request", "MANIFEST_INVALID", "unknown artifact")),
        false => Act::Pass,
    })
    .await;
    let image = workshop.image("quest", b"one");
    let pushed = push(&anonymous(&proxy.host), "team/quest", &image, &workshop).await.unwrap();
    assert_eq!(pushed.refused_bom.as_deref(), Some("400 Bad Request MANIFEST_INVALID unknown artifact"));
    assert!(anonymous(server.address).find("team/quest", &image).await.unwrap().is_some());
}

mod failures {
    use super::*;

    #[tokio::test]
    async fn every_request_may_fail_once_in_any_way_and_the_image_arrives_whole() {
        let Some(server) = Server::open().await else { return };
        let workshop = Workshop::new();
        let image = workshop.image("quest", &noise(10_000));
        let expected = workshop.packed("quest", &noise(10_000)).digest().clone();
        let proxy = Proxy::new(server.address, |_| Act::Pass).await;
        push(&anonymous(&proxy.host), "clean", &image, &workshop).await.unwrap();
        let requests = proxy.seen().len();
        assert!(requests > 10, "{:#?}", proxy.seen());

        let faults = [
            Act::Answer(refusal("500 Internal Server Error", "UNKNOWN", "")),
            Act::Answer(answer("503 Service Unavailable", "", "<html>")),
            Act::Answer(answer("429 Too Many Requests", "Retry-After: 0\r\n", "")),
            Act::Lose,
            Act::Cut(0),
            Act::Cut(100),
        ];
        let address = server.address;
        let mut cases = Vec::new();
        for (kind, fault) in faults.iter().enumerate() {
            for number in 0..requests {
                let (fault, repository) = (fault.clone(), format!("fault-{kind}/request-{number}"));
                let (image, workshop, expected) = (&image, &workshop, &expected);
                cases.push(async move {
                    let rule = move |head: &Head| if head.number == number { fault.clone() } else { Act::Pass };
                    let proxy = Proxy::new(address, rule).await;
                    let pushed = push(&anonymous(&proxy.host), &repository, image, workshop).await;
                    let pushed = pushed.unwrap_or_else(|error| panic!("{repository}: {error:#}\n{:#?}", proxy.seen()));
                    assert_eq!((&pushed.digest, &pushed.refused_bom), (expected, &None), "{repository}");
                    let found = anonymous(address).find(&repository, image).await.unwrap();
                    assert_eq!(found.as_ref(), Some(expected), "{repository}");
                });
            }
        }
        join_all(cases).await;
    }

    #[tokio::test]
    async fn a_push_that_is_cut_off_in_the_middle_is_repeated_and_completes() {
        let Some(server) = Server::open().await else { return };
        let (workshop, cuts) = (Workshop::new(), Arc::new(AtomicUsize::new(0)));
        let image = workshop.image("quest", &noise(LARGE));
        let counted = Arc::clone(&cuts);
        let proxy = Proxy::new(server.address, move |head| {
            let is_large = head.method == "PUT" && head.length > LARGE;
            if is_large && counted.fetch_add(1, Ordering::Relaxed) < 3 { Act::Cut(LARGE / 2) } else { Act::Pass }
        })
        .await;
        let pushed = push(&anonymous(&proxy.host), "team/quest", &image, &workshop).await.unwrap();
        assert!(pushed.bytes > LARGE as u64);
        assert_eq!(cuts.load(Ordering::Relaxed), 4);
        assert!(anonymous(server.address).find("team/quest", &image).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_push_that_was_given_up_is_gone_on_with_where_it_stopped() {
        let Some(server) = Server::open().await else { return };
        let workshop = Workshop::new();
        let image = workshop.image("quest", &noise(LARGE));
        let tag = image.tag();
        // Everything but the tag arrives.
        let proxy = Proxy::new(server.address, move |head| match head.method == "PUT" && head.path.ends_with(&tag) {
            true => Act::Answer(refusal("403 Forbidden", "DENIED", "requested access to the resource is denied")),
            false => Act::Pass,
        })
        .await;
        let (error, hint) = refused(&anonymous(&proxy.host), &image, &workshop).await;
        assert!(error.contains("does not allow this in `team/quest`: DENIED requested access"), "{error}");
        assert!(hint.contains("right to push"), "{hint}");
        assert_eq!(anonymous(server.address).find("team/quest", &image).await.unwrap(), None);
        let (pushed, recorded) = push_recorded(&anonymous(server.address), "team/quest", &image, &workshop).await;
        assert_eq!((pushed.bytes, recorded.skipped()), (0, 5));
    }

    #[tokio::test]
    async fn a_registry_that_asks_for_patience_is_given_it() {
        let Some(server) = Server::open().await else { return };
        let workshop = Workshop::new();
        let proxy = Proxy::new(server.address, |head| match head.number {
            0 => Act::Answer(answer("429 Too Many Requests", "Retry-After: 2\r\n", "")),
            _ => Act::Pass,
        })
        .await;
        let started = Instant::now();
        push(&anonymous(&proxy.host), "team/quest", &workshop.image("quest", b""), &workshop).await.unwrap();
        assert!(started.elapsed() >= Duration::from_secs(2));
    }

    #[tokio::test]
    async fn what_is_not_there_is_tried_several_times_and_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap();
        drop(listener);
        let workshop = Workshop::new();
        let (error, hint) = refused(&anonymous(host), &workshop.image("quest", b""), &workshop).await;
        assert!(error.contains(&format!("failed to push the image of `quest` to `{host}/team/quest`")), "{error}");
        assert!(error.contains("Connection refused"), "{error}");
        assert!(hint.contains("running the command again is safe"), "{hint}");
    }

    #[tokio::test]
    async fn a_repository_that_does_not_exist_is_named() {
        let Some(server) = Server::open().await else { return };
        let proxy = Proxy::new(server.address, |head| match head.method.as_str() {
            "POST" => Act::Answer(refusal("404 Not Found", "NAME_UNKNOWN", "The repository does not exist")),
            _ => Act::Pass,
        })
        .await;
        let workshop = Workshop::new();
        let (error, hint) = refused(&anonymous(&proxy.host), &workshop.image("quest", b""), &workshop).await;
        assert!(error.ends_with(&format!("registry `{}` has no repository `team/quest`", proxy.host)), "{error}");
        assert!(hint.contains("terraform apply"), "{hint}");
    }
}

mod tags {
    use super::*;

    const IMMUTABLE: &str =
        "The image tag already exists in the repository and cannot be overwritten because it is immutable.";

    #[tokio::test]
    async fn a_tag_that_is_another_images_is_never_moved() {
        let Some(server) = Server::open().await else { return };
        let (workshop, registry) = (Workshop::new(), anonymous(server.address));
        let image = workshop.image("quest", b"one");
        let other = workshop.packed("quest", b"other");
        push(&registry, "team/quest", &workshop.image("quest", b"other"), &workshop).await.unwrap();
        registry.put("team/quest", &image.tag(), &other.manifest).await.unwrap();
        let (error, hint) = refused(&registry, &image, &workshop).await;
        assert!(error.contains(&format!(
            "tag `{}` of `{}/team/quest` is another image's",
            image.tag(),
            server.address
        )));
        assert!(error.contains(other.digest().as_str()), "{error}");
        assert!(hint.contains("remove that tag"), "{hint}");
        assert_eq!(registry.has("team/quest", &image.tag()).await.unwrap().as_ref(), Some(other.digest()));
    }

    /// What a registry with tags that cannot be moved says, after another push was faster.
    async fn raced(status: &'static str, code: &'static str) {
        let Some(server) = Server::open().await else { return };
        let workshop = Workshop::new();
        let image = workshop.image("quest", b"one");
        let tag = image.tag();
        let proxy = Proxy::new(server.address, move |head| match head.method == "PUT" && head.path.ends_with(&tag) {
            true => Act::Replace(refusal(status, code, IMMUTABLE)),
            false => Act::Pass,
        })
        .await;
        let pushed = push(&anonymous(&proxy.host), "team/quest", &image, &workshop).await.unwrap();
        assert_eq!(pushed.digest, *workshop.packed("quest", b"one").digest());
    }

    #[tokio::test]
    async fn the_same_image_under_an_immutable_tag_is_what_was_wanted() {
        raced("400 Bad Request", "TAG_INVALID").await;
        raced("400 Bad Request", "ImageTagAlreadyExistsException").await;
        raced("409 Conflict", "CONFLICT").await;
    }

    #[tokio::test]
    async fn an_immutable_tag_that_was_given_to_another_image_meanwhile_is_an_error() {
        let Some(server) = Server::open().await else { return };
        let workshop = Workshop::new();
        let (image, other) = (workshop.image("quest", b"one"), workshop.image("other", b"other"));
        push(&anonymous(server.address), "team/quest", &other, &workshop).await.unwrap();
        // Another push gives the tag to the other image after we have checked it, and before we give it to ours.
        let (tag, checks) = (image.tag(), Arc::new(AtomicUsize::new(0)));
        let moved = format!("/v2/team/quest/manifests/{}", other.tag());
        let proxy = Proxy::new(server.address, move |head| match (head.method.as_str(), head.path.ends_with(&tag)) {
            ("GET", true) if checks.fetch_add(1, Ordering::Relaxed) > 0 => Act::PassTo(moved.clone()),
            ("PUT", true) => Act::Answer(refusal("400 Bad Request", "TAG_INVALID", IMMUTABLE)),
            _ => Act::Pass,
        })
        .await;
        let (error, _) = refused(&anonymous(&proxy.host), &image, &workshop).await;
        assert!(error.contains("is another image's"), "{error}");
    }
}

mod credentials {
    use super::*;

    /// Passwords as they are asked for, and how often that was.
    fn renewed(passwords: &'static [&'static str]) -> (Credentials, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let renew: Renew = Arc::new(move || {
            let number = count.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move { Ok(me(passwords[number.min(passwords.len() - 1)])) })
        });
        (Credentials::Renewed(renew), asked)
    }

    #[tokio::test]
    async fn a_name_and_a_password_let_one_in() {
        let Some(server) = Server::with_password().await else { return };
        let workshop = Workshop::new();
        let registry = Registry::new(&server.address.to_string(), Credentials::Basic(me("secret"))).unwrap();
        let pushed = push(&registry, "team/quest", &workshop.image("quest", b""), &workshop).await.unwrap();
        assert!(!pushed.existed);
    }

    #[tokio::test]
    async fn a_denied_push_fails_at_once_and_says_what_to_do() {
        let Some(server) = Server::with_password().await else { return };
        let (workshop, host) = (Workshop::new(), server.address.to_string());
        let image = workshop.image("quest", b"");
        let started = Instant::now();
        let (error, hint) = refused(&anonymous(&host), &image, &workshop).await;
        assert!(error.ends_with(&format!("registry `{host}` requires authentication")), "{error}");
        assert!(hint.contains("docker login"), "{hint}");
        for credentials in [Credentials::Basic(me("wrong")), renewed(&["wrong"]).0] {
            let registry = Registry::new(&host, credentials).unwrap();
            let (error, hint) = refused(&registry, &image, &workshop).await;
            assert!(error.ends_with(&format!("registry `{host}` refuses the name or the password")), "{error}");
            assert!(hint.contains("log in again") && !error.contains("wrong"), "{error}");
        }
        assert!(started.elapsed() < Duration::from_secs(5), "nothing is tried again that cannot succeed");
    }

    #[tokio::test]
    async fn a_password_that_has_run_out_is_renewed_once_for_all() {
        let Some(server) = Server::with_password().await else { return };
        let workshop = Workshop::new();
        let (credentials, asked) = renewed(&["that of yesterday", "secret"]);
        let registry = Registry::new(&server.address.to_string(), credentials).unwrap();
        let images: Vec<BuiltImage> = (0..4).map(|number| workshop.image(&format!("service-{number}"), b"")).collect();
        for pushed in join_all(images.iter().map(|image| push(&registry, &image.service, image, &workshop))).await {
            assert!(!pushed.unwrap().existed);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_password_that_cannot_be_had_is_no_reason_to_wait() {
        let renew: Renew = Arc::new(|| Box::pin(async { anyhow::bail!("the token has expired") }));
        let registry = Registry::new("127.0.0.1:1", Credentials::Renewed(renew)).unwrap();
        let workshop = Workshop::new();
        let (error, _) = refused(&registry, &workshop.image("quest", b""), &workshop).await;
        assert!(error.ends_with("the token has expired"), "{error}");
    }

    /// Wants a token, and gives one to `me`; it is good for `uses` requests.
    async fn token_proxy(server: &Server, uses: usize) -> Proxy {
        let given = Arc::new(AtomicUsize::new(0));
        let used = Arc::new(AtomicUsize::new(0));
        let host = Arc::new(Lock::new(String::new()));
        let known_host = Arc::clone(&host);
        let proxy = Proxy::new(server.address, move |head| {
            let current = format!("Bearer token-{}", given.load(Ordering::Relaxed));
            match head.authorization.as_deref() {
                // `me:secret`
                Some("Basic bWU6c2VjcmV0") if head.path.starts_with("/token?service=tests&scope=repository%3A") => {
                    used.store(0, Ordering::Relaxed);
                    let number = given.fetch_add(1, Ordering::Relaxed) + 1;
                    Act::Answer(answer("200 OK", "", &format!(r#"{{"token":"token-{number}"}}"#)))
                }
                _ if head.path.starts_with("/token") => Act::Answer(answer("401 Unauthorized", "", "")),
                Some(token) if token == current && used.fetch_add(1, Ordering::Relaxed) < uses => Act::Pass,
                _ => {
                    let realm = format!("http://{}/token", known_host.lock().unwrap());
                    let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"tests\"\r\n");
                    Act::Answer(answer("401 Unauthorized", &challenge, ""))
                }
            }
        })
        .await;
        proxy.host.clone_into(&mut host.lock().unwrap());
        proxy
    }

    #[tokio::test]
    async fn a_registry_that_wants_a_token_is_asked_for_one() {
        let Some(server) = Server::open().await else { return };
        let (proxy, workshop) = (token_proxy(&server, usize::MAX).await, Workshop::new());
        let registry = Registry::new(&proxy.host, Credentials::Basic(me("secret"))).unwrap();
        push(&registry, "team/quest", &workshop.image("quest", b""), &workshop).await.unwrap();
        let tokens = proxy.seen().iter().filter(|seen| seen.contains("/token")).count();
        assert_eq!(tokens, 1, "{:#?}", proxy.seen());
    }

    #[tokio::test]
    async fn a_token_that_has_run_out_is_replaced() {
        let Some(server) = Server::open().await else { return };
        let (proxy, workshop) = (token_proxy(&server, 6).await, Workshop::new());
        let registry = Registry::new(&proxy.host, Credentials::Basic(me("secret"))).unwrap();
        push(&registry, "team/quest", &workshop.image("quest", b""), &workshop).await.unwrap();
        assert!(proxy.seen().iter().filter(|seen| seen.contains("/token")).count() >= 2);
    }

    #[tokio::test]
    async fn a_refused_token_is_reported() {
        let Some(server) = Server::open().await else { return };
        let (proxy, workshop) = (token_proxy(&server, usize::MAX).await, Workshop::new());
        let registry = Registry::new(&proxy.host, Credentials::Basic(me("wrong"))).unwrap();
        let (error, _) = refused(&registry, &workshop.image("quest", b""), &workshop).await;
        assert!(error.ends_with("refuses the name or the password"), "{error}");
    }

    #[tokio::test]
    async fn a_password_is_not_sent_where_everybody_can_read_it() {
        let Some(server) = Server::open().await else { return };
        let proxy = Proxy::new(server.address, |_| {
            let challenge = "WWW-Authenticate: Bearer realm=\"http://tokens.example.com/token\"\r\n";
            Act::Answer(answer("401 Unauthorized", challenge, ""))
        })
        .await;
        let registry = Registry::new(&proxy.host, Credentials::Basic(me("secret"))).unwrap();
        let workshop = Workshop::new();
        let (error, _) = refused(&registry, &workshop.image("quest", b""), &workshop).await;
        assert!(error.contains("which is not encrypted"), "{error}");
    }
}
