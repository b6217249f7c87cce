//! natsctl in scripts: what it writes is read by programs, or by none.

use std::io::pipe;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::fleet::{Fleet, NATSCTL};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_whose_output_is_read_no_more_is_finished() {
    let fleet = Fleet::new(1);
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let binaries = fleet.path("bin").display().to_string();
    let mut deploy = fleet.command(&["deploy", "--all", "--binaries", &binaries]);
    let status = deploy.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer).status().unwrap();
    assert!(status.success(), "{status:?}");
    fleet.is_healthy().await;
    connects_as_env_says(&fleet).await;
    says_why_as_json(&fleet).await;
}

/// Every form has the same in it.
async fn connects_as_env_says(fleet: &Fleet) {
    let access = fleet.access().await;
    let script =
        r#"eval "$("$0" env --format shell)"; printf '%s\n' "$NATS_URL" "$NATS_CREDS" "$GATEWAY_URL" "$NATSCTL_ENV""#;
    let mut shell = Command::new("/bin/sh");
    let natsctl = fleet.command(&[]);
    shell.envs(natsctl.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(fleet.path("."));
    let shown = shell.args(["-c", script, NATSCTL]).output().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (url, creds) = (text(&access["nats"]["urls"][0]), text(&access["nats"]["credentials_file"]));
    let expected = [url.clone(), creds.clone(), text(&access["gateway"]["url"]), "test".to_owned()];
    assert_eq!(String::from_utf8(shown.stdout).unwrap().lines().collect::<Vec<_>>(), expected);

    let context = fleet.run(&["env", "--format", "nats-context"]).await.ends(0).out;
    let context: Value = serde_json::from_str(&context).unwrap();
    assert_eq!((&context["url"], &context["creds"]), (&json!(url), &json!(creds)));
    let as_json = fleet.run(&["env", "--format", "json"]).await.ends(0).json();
    assert_eq!(as_json, access);
    assert!(access["metrics"]["quest-system"].as_object().is_some_and(|tasks| !tasks.is_empty()), "{access:#}");
}

async fn says_why_as_json(fleet: &Fleet) {
    for (arguments, code) in [
        (vec!["rollback", "quest-system", "--to", "77"], "unknown_name"),
        (vec!["stop", "nothing-1234"], "unknown_name"),
        (vec!["call", "quest.v1.Quest/Get", r#"{"playerId": "ada", "questId": "none"}"#], "call_refused"),
        (vec!["call", "quest.v1.Quest/Gett"], "unknown_name"),
    ] {
        let run = fleet.run(&[&["-o", "json"], arguments.as_slice()].concat()).await.ends(1);
        assert_eq!(run.json()["error"]["code"], code, "{run:?}");
    }
    let preview = fleet.run(&["nats", "step-down", "--meta", "-n", "-o", "json"]).await;
    // One server has no other that could lead.
    assert_eq!(preview.json()["error"]["code"], "failed", "{preview:?}");
}
