//! Traces of the fleet on this machine, as `natsctl trace` shows them.

use std::fs;

use serde_json::{Value, json};

use super::fleet::{Fleet, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_a_tree_of_what_happened_because_of_it() {
    let fleet = Fleet::deployed(1).await;
    let mut gateway = fleet.gateway().await;
    let headers = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n");
    let request = json!({ "playerId": "ada", "level": 7, "location": "forest" });
    gateway.post_with("/api/quest/v1/generate", &headers, &request).await.unwrap().json();

    let run = fleet.run(&["trace", TRACE]).await.ends(0);
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(lines[0], format!("trace {TRACE}"));
    for expected in ["POST /api/quest/v1/generate", "→ quest.v1.Quest/Generate", "publish evt.quest.generated.v1"] {
        assert!(run.out.contains(expected), "no `{expected}` in {}", run.out);
    }
    // The id may be shortened, in capitals, or within a header.
    for id in [&TRACE[..7], &TRACE.to_uppercase(), headers["traceparent: ".len()..].trim()] {
        assert_eq!(fleet.run(&["trace", id]).await.ends(0).out, run.out, "{id}");
    }

    let json: Value =
        serde_json::from_str(&fleet.run(&["trace", TRACE, "--output", "json"]).await.ends(0).out).unwrap();
    assert_eq!(json["trace_id"], TRACE);
    let spans = json["spans"].as_array().unwrap();
    let of = |service: &str, kind: &str| {
        spans.iter().find(|span| span["service"] == service && span["kind"] == kind).unwrap()
    };
    let (http, call) = (of("gateway", "server"), of("gateway", "client"));
    let (handled, published) = (of("quest-system", "server"), of("quest-system", "producer"));
    assert_eq!(http["parent_id"], "00f067aa0ba902b7");
    assert_eq!(call["parent_id"], http["span_id"]);
    assert_eq!(handled["parent_id"], call["span_id"]);
    assert_eq!(published["parent_id"], handled["span_id"]);

    what_is_not_there_is_said(&fleet).await;
    the_link_of_a_manifest_is_shown(&fleet).await;
}

async fn what_is_not_there_is_said(fleet: &Fleet) {
    let other = "0af7651916cd43dd8448eb211c80319c";
    let run = fleet.run(&["trace", other]).await.ends(1);
    run.says(&[&format!("error: no span of trace `{other}` is stored\n"), "hint: ", " spans since 2"]);
    // More traces than there are first digits: some two begin alike.
    let mut gateway = fleet.gateway().await;
    for number in 0..20 {
        let headers = format!("traceparent: 00-abcd{number:028x}-00f067aa0ba902b7-01\r\n");
        gateway.post_with("/api/ai/model/v1/list", &headers, &json!({})).await.unwrap().json();
    }
    eventually("all are stored", || async {
        let run = fleet.run(&["trace", "abcd"]).await.ends(1);
        run.err.contains("error: 20 traces begin with `abcd`\n").then_some(run)
    })
    .await
    .says(&["hint: they are `abcd000", ", and more"]);
}

async fn the_link_of_a_manifest_is_shown(fleet: &Fleet) {
    let file = fleet.manifest("environments/test.yaml");
    let manifest = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{manifest}\ntraces: {{ link: \"https://t.example.com/{{trace_id}}?x\" }}\n")).unwrap();
    let run = fleet.run(&["trace", &TRACE.to_uppercase()]).await.ends(0);
    assert_eq!(run.out, format!("https://t.example.com/{TRACE}?x\n"));
    let run = fleet.run(&["trace", "4bf9"]).await.ends(1);
    run.says(&["error: `4bf9` is only the beginning of an id\n", "hint: a link needs all of its 32 digits"]);
    fs::write(&file, manifest).unwrap();
}
