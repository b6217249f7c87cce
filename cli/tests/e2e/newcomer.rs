//! The first hour of a new user: everything is deployed, inspected, used, stopped and removed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use async_nats::{Client, ConnectOptions, Event, jetstream};
use futures::StreamExt as _;
use prost_reflect::prost::Message as _;
use proto::quest::v1::{GetRequest, GetResponse};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::fleet::{Fleet, PATIENCE};
use super::http::Http;
use super::tour;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_command_brings_up_everything_and_another_removes_it() {
    let fleet = Fleet::new(5);
    fleet.run(&["validate"]).await.ends(0);

    let plan = fleet.plan(&[]).await.ends(2).json();
    check_steps(&plan, "create");
    assert!(!fleet.state().exists(), "a plan writes nothing");

    let deployed = fleet.deploy(&["--all", "--output", "json"]).await.ends(0).json();
    assert_eq!(objects(&deployed), objects(&plan), "what was planned is what was done");
    check_status(&fleet).await;
    let access = fleet.access().await;
    let mut gateway = fleet.gateway().await;
    let quest = tour::take(&mut gateway).await.quest;
    a_key_makes_two_requests_one(&mut gateway).await;
    check_operator(&access["nats"]).await;
    check_monitoring(&access["monitoring"]).await;
    check_secrets(&fleet.state());

    assert_eq!(fleet.plan(&[]).await.ends(0).json(), json!({ "steps": [] }));
    let again = fleet.deploy(&["--all", "--output", "json"]).await.ends(0).json();
    assert_eq!(again["steps"], json!([]));
    check_views(&fleet).await;

    fleet.run(&["down"]).await.ends(0);
    assert_eq!(fleet.processes().into_values().collect::<Vec<_>>(), Vec::<String>::new());
    fleet.run(&["status"]).await.ends(3);
    for arguments in [["logs", "quest-system"].as_slice(), &["logs", "quest-system", "--previous"]] {
        assert!(!fleet.run(arguments).await.ends(0).out.is_empty(), "what has stopped still says why");
    }
    fleet.deploy(&["--all"]).await.ends(0);
    let wanted = json!({ "playerId": "ada", "questId": quest["id"] });
    let found = fleet.gateway().await.post("/api/quest/v1/get", &wanted).await.unwrap().json();
    assert_eq!(found["quest"], quest, "the data are there after a restart of everything");

    fleet.run(&["down", "--data"]).await.ends(0);
    assert!(!fleet.state().exists());
    assert_eq!(fleet.processes().into_values().collect::<Vec<_>>(), Vec::<String>::new());
}

/// What the steps are about. How the servers' configurations read is not known before their keys are made.
fn objects(plan: &Value) -> Vec<[&Value; 3]> {
    plan["steps"].as_array().unwrap().iter().map(|step| [&step["action"], &step["kind"], &step["name"]]).collect()
}

/// The shape that other tools rely on.
fn check_steps(plan: &Value, action: &str) {
    let steps = plan["steps"].as_array().unwrap();
    let kinds: BTreeSet<&str> = steps.iter().map(|step| step["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, BTreeSet::from(["bucket", "node", "service", "stream"]));
    for step in steps {
        assert_eq!(step["action"], action);
        assert!(step["name"].is_string() && step["changes"].is_array(), "{step}");
    }
}

/// The shape that other tools rely on.
async fn check_status(fleet: &Fleet) {
    let status = fleet.status().await;
    assert_eq!(keys(&status), ["environment", "gateway", "healthy", "nats", "services"], "{status:#}");
    assert_eq!((&status["environment"], &status["healthy"]), (&json!("test"), &json!(true)), "{status:#}");
    let services = status["services"].as_array().unwrap();
    let mut known: Vec<&str> = services.iter().map(|service| service["name"].as_str().unwrap()).collect();
    known.sort_unstable();
    assert_eq!(known, fleet.services());
    for service in services {
        let expected = ["desired", "healthy", "name", "restarts", "revision", "running", "started", "state", "version"];
        assert_eq!(keys(service), expected, "{service}");
        let counts = ["desired", "running", "healthy", "revision"].map(|field| service[field].as_u64().unwrap());
        assert_eq!(counts, [2, 2, 2, 1], "{service}");
        assert!(service["version"].as_str().unwrap().starts_with(env!("CARGO_PKG_VERSION")), "{service}");
    }
    let nodes = status["nats"]["nodes"].as_array().unwrap();
    assert_eq!((nodes.len(), &status["nats"]["quorum"]), (5, &json!(true)));
    assert_eq!(nodes.iter().filter(|node| node["meta_leader"] == true).count(), 1);
    for node in nodes {
        assert!(node["name"].is_string() && node["url"].is_string() && node["healthy"] == true, "{node}");
    }
    assert!(status["gateway"]["url"].as_str().unwrap().starts_with("http://127.0.0.1:"));
}

async fn a_key_makes_two_requests_one(gateway: &mut Http) {
    let request = json!({ "playerId": "bob", "level": 3 });
    let key = "idempotency-key: once\r\n";
    let first = gateway.post_with("/api/quest/v1/generate", key, &request).await.unwrap().json();
    let second = gateway.post_with("/api/quest/v1/generate", key, &request).await.unwrap().json();
    assert_eq!(first, second);
}

/// Monitoring shows JWTs, so it is for those alone who may run `natsctl env`.
async fn check_monitoring(urls: &Value) {
    for url in urls.as_object().unwrap().values() {
        let (address, path) = url.as_str().unwrap().strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut monitoring = Http::new(address.parse().unwrap());
        assert_eq!(monitoring.get("/connz?auth=1").await.unwrap().status, 404);
        let connections = monitoring.get(&format!("/{path}/connz?auth=1")).await.unwrap().json();
        assert!(connections["connections"].is_array(), "{connections}");
    }
}

/// A client outside the fleet, with nothing but what `natsctl env` says.
async fn check_operator(access: &Value) {
    assert_eq!(keys(access), ["ca_file", "client_cert_file", "client_key_file", "credentials_file", "urls"]);
    let (refused, mut refusals) = mpsc::unbounded_channel();
    let client = connect(access, refused).await;
    for service in ["ai-integration", "model-management", "npc-behavior", "quest-system", "state-manager"] {
        let pong = client.request(format!("$SRV.PING.{service}"), "".into()).await.unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&pong.payload).unwrap()["name"], service);
    }
    let request = GetRequest { player_id: "ada".to_owned(), quest_id: "none".to_owned(), ..Default::default() };
    let answer = client.request("svc.quest.v1.get", request.encode_to_vec().into()).await.unwrap();
    let answer = GetResponse::decode(answer.payload).unwrap();
    assert_eq!(answer.error.unwrap().code(), proto::common::v1::Code::NotFound);

    let jetstream = jetstream::new(client.clone());
    for (event, expected) in [
        // Two on the tour, and one that was asked for twice.
        ("evt.quest.generated.v1", 3),
        ("evt.state.player.updated.v1", 2),
        ("evt.state.entity.updated.v1", 1),
        ("evt.npc.behavior.planned.v1", 1),
        // One in one piece, one as a stream.
        ("evt.ai.llm.generated.v1", 2),
        // One on the tour, and one for each text.
        ("evt.ai.model.selected.v1", 3),
    ] {
        let stream = jetstream.stream_by_subject(event).await.unwrap();
        let stream = jetstream.get_stream(stream).await.unwrap();
        let mut subjects = stream.info_with_subjects(event).await.unwrap();
        let (_, stored) = subjects.next().await.expect(event).unwrap();
        assert_eq!(stored, expected, "{event}");
    }

    let forbidden = ["$KV.quests.ada.evil", "$JS.API.STREAM.DELETE.KV_quests", "$JS.API.STREAM.PURGE.KV_quests"];
    let forbidden = forbidden.into_iter().chain(["evt.quest.generated.v1", "$SYS.REQ.SERVER.PING"]);
    for subject in forbidden {
        client.publish(subject, "evil".into()).await.unwrap();
        let refusal = timeout(PATIENCE, refusals.recv()).await.unwrap_or_else(|_| panic!("{subject} was allowed"));
        let refusal = refusal.unwrap().to_lowercase();
        assert!(refusal.contains("permissions violation") && refusal.contains(&subject.to_lowercase()), "{refusal}");
    }
}

pub(super) async fn connect(access: &Value, refused: mpsc::UnboundedSender<String>) -> Client {
    // Fails if it was done before, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let file = |name: &str| PathBuf::from(access[name].as_str().unwrap());
    let urls: Vec<&str> = access["urls"].as_array().unwrap().iter().map(|url| url.as_str().unwrap()).collect();
    let options = ConnectOptions::with_credentials_file(file("credentials_file")).await.unwrap();
    let options = options
        .add_root_certificates(file("ca_file"))
        .add_client_certificate(file("client_cert_file"), file("client_key_file"))
        .event_callback(move |event| {
            let refused = refused.clone();
            async move {
                if let Event::ServerError(error) = event {
                    let _ = refused.send(error.to_string());
                }
            }
        });
    options.connect(urls).await.unwrap()
}

/// Only the owner reads what others must not have.
fn check_secrets(state: &Path) {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(state), 0o700);
    let mut folders = vec![state.join("pki"), state.join("identities"), state.join("nats"), state.join("logs")];
    let mut secrets = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // What the servers write is theirs.
                folders.extend((path.file_name().unwrap() != "jetstream").then_some(path));
            } else if path
                .extension()
                .is_some_and(|extension| ["creds", "key", "nk", "seed"].iter().any(|secret| extension == *secret))
            {
                assert_eq!(mode(&path), 0o600, "{}", path.display());
                secrets += 1;
            }
        }
    }
    assert!(secrets > 10, "{secrets} secrets");
}

async fn check_views(fleet: &Fleet) {
    let table = fleet.run(&["status"]).await.ends(0).out;
    let verdict = "environment test: healthy";
    assert_eq!((table.lines().next(), table.lines().last()), (Some(verdict), Some(verdict)), "{table}");
    assert!(table.contains("quorum: yes"), "{table}");
    let one = fleet.run(&["status", "gateway", "--output", "json"]).await.ends(0).json();
    assert_eq!((one["services"].as_array().unwrap().len(), &one["services"][0]["name"]), (1, &json!("gateway")));
    fleet.run(&["status", "gatway"]).await.ends(1).says(&["`gatway`", "hint: did you mean `gateway`?"]);
    let nodes = fleet.run(&["nats", "status", "--output", "json"]).await.ends(0).json();
    assert_eq!((&nodes["quorum"], nodes["nodes"].as_array().unwrap().len()), (&json!(true), 5));

    let tasks: BTreeSet<String> = fleet.service("quest-system").await.tasks.into_iter().map(|task| task.id).collect();
    check_lists(fleet, &tasks).await;
    let logs = fleet.run(&["logs", "quest-system", "--output", "json"]).await.ends(0).out;
    let lines: Vec<Value> = logs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: BTreeSet<String> = lines.iter().map(|line| line["task"].as_str().unwrap().to_owned()).collect();
    assert_eq!(seen, tasks);
    let structured = |line: &Value| serde_json::from_str::<Value>(line["line"].as_str().unwrap()).is_ok();
    assert!(lines.iter().all(structured), "{logs}");
    assert!(!fleet.run(&["logs", "nats-1"]).await.ends(0).out.is_empty());
    check_logs_for_people(fleet, &tasks).await;
    fleet.run(&["logs", "quest"]).await.ends(1).says(&["nothing called `quest` is deployed", "hint: "]);
}

async fn check_lists(fleet: &Fleet, tasks: &BTreeSet<String>) {
    let listed = fleet.run(&["tasks", "quest-system", "--output", "json"]).await.ends(0).json();
    let listed = listed.as_array().unwrap();
    let ids: BTreeSet<String> = listed.iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, *tasks);
    for task in listed {
        let facts = ["service", "revision", "status", "health", "restarts"].map(|fact| task[fact].clone());
        assert_eq!(facts, [json!("quest-system"), json!(1), json!("RUNNING"), json!("HEALTHY"), json!(0)]);
        assert!(task["started"].is_string() && task["address"].is_string(), "{task}");
    }
    assert_eq!(fleet.run(&["tasks", "--stopped"]).await.ends(0).out, "no tasks\n");
    fleet.run(&["tasks", "gatway"]).await.ends(1).says(&["`gatway`", "hint: did you mean `gateway`?"]);

    let revisions = fleet.run(&["revisions", "quest-system", "--output", "json"]).await.ends(0).json();
    let revision = &revisions[0];
    assert_eq!((&revision["revision"], &revision["kept"]), (&json!(1), &json!(["current", "last_deployed"])));
    assert!(revision["registered"].is_string() && revision["by"] != "", "{revision}");

    fleet.run(&["diff", "--all"]).await.ends(0);
    let (file, before) = fleet.service_manifest("quest-system");
    fleet.append("quest-system", "environment: { LOG_LEVEL: debug }\n");
    let changed = fleet.run(&["diff", "quest-system", "--output", "json"]).await.ends(2).json();
    assert_eq!(changed[0]["changes"], json!([{ "field": "environment.LOG_LEVEL", "from": null, "to": "debug" }]));
    fs::write(file, before).unwrap();
    fleet.run(&["diff", "quest-system", "--to", "9"]).await.ends(1).says(&["`quest-system` has no revision 9"]);
}

async fn check_logs_for_people(fleet: &Fleet, tasks: &BTreeSet<String>) {
    let shown = fleet.run(&["logs", "quest-system", "--level", "info"]).await.ends(0).out;
    let line = shown.lines().find(|line| line.contains("connected")).unwrap_or_else(|| panic!("{shown}"));
    let (time, rest) = line.split_once(' ').unwrap();
    assert!(time.len() == "17:00:10.573".len() && rest.starts_with("INFO  quest-system/"), "{line}");
    let task = tasks.first().unwrap();
    let one = fleet.run(&["logs", &format!("quest-system/{}", &task[..4]), "--output", "json"]).await.ends(0).out;
    assert!(!one.is_empty() && one.lines().all(|line| line.contains(task.as_str())), "{one}");
    let raw = fleet.run(&["logs", "quest-system", "--raw", "--tail", "1"]).await.ends(0).out;
    assert!(serde_json::from_str::<Value>(&raw).unwrap()["timestamp"].is_string(), "{raw}");
    assert_eq!(fleet.run(&["logs", "quest-system", "--until", "1d"]).await.ends(0).out, "");
    assert_eq!(fleet.run(&["logs", "quest-system", "--previous"]).await.ends(0).out, "");
    fleet.run(&["logs", "--level", "loud"]).await.ends(64).says(&["`loud` is no level"]);
    fleet.run(&["logs", "--since", "noon"]).await.ends(64).says(&["`noon` is no time; write for example `10m`"]);
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}
