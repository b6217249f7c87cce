//! What may change and what may not, on small protocols.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;

const COMMON: &str = r#"syntax = "proto3";
package common.v1;
message Meta { string request_id = 1; }
"#;

const QUEST: &str = r#"syntax = "proto3";
package quest.v1;
import "common/v1/common.proto";
service Quest {
  rpc Get(GetRequest) returns (GetResponse) { option idempotency_level = NO_SIDE_EFFECTS; }
  rpc BatchGet(GetRequest) returns (stream GetResponse);
}
message GetRequest {
  common.v1.Meta meta = 1;
  string quest_id = 2;
  map<string, int64> facts = 3;
  optional uint32 level = 4;
  reserved 9, 11 to 12;
}
message GetResponse {
  repeated string items = 2;
  State state = 3;
  oneof change {
    string text = 4;
  }
}
message Generated {
  common.v1.Meta meta = 1;
}
enum State {
  STATE_UNSPECIFIED = 0;
  STATE_ACTIVE = 1;
}
"#;

fn tree(quest: &str) -> TempDir {
    let tree = tempfile::tempdir().unwrap();
    for (package, text) in [("common", COMMON), ("quest", quest)] {
        let folder = tree.path().join(package).join("v1");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{package}.proto")), text).unwrap();
    }
    tree
}

/// Each problem as `file:line: message`.
fn shown(tree: &TempDir, problems: &Problems) -> Vec<String> {
    let problem = |problem: &Problem| {
        let file = problem.file.strip_prefix(tree.path()).unwrap_or(&problem.file);
        format!("{}:{}: {}", file.display(), problem.line, problem.message)
    };
    problems.iter().map(problem).collect()
}

/// What `check` says when `from` becomes `to` in the protocol that was accepted; without problems, what was added.
#[track_caller]
fn check(from: &str, to: &str, expected: &[&str]) {
    assert!(QUEST.contains(from), "`{from}` is not in the protocol");
    let tree = tree(QUEST);
    accept(tree.path()).unwrap();
    fs::write(tree.path().join("quest/v1/quest.proto"), QUEST.replacen(from, to, 1)).unwrap();
    let said = match super::check(tree.path()) {
        Ok(changes) => changes.added,
        Err(problems) => shown(&tree, &problems),
    };
    assert_eq!(said, expected);
}

#[test]
fn a_contract_is_one_fact_a_line() {
    let tree = tree(QUEST);
    accept(tree.path()).unwrap();
    let text = fs::read_to_string(tree.path().join(LOCK)).unwrap();
    let facts: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let expected = [
        "rpc svc.quest.v1.batch_get quest.v1.GetRequest -> quest.v1.GetResponse stream",
        "rpc svc.quest.v1.get quest.v1.GetRequest -> quest.v1.GetResponse idempotent",
        "event evt.quest.generated.v1 quest.v1.Generated",
        "message common.v1.Meta",
        "message quest.v1.Generated",
        "message quest.v1.GetRequest",
        "message quest.v1.GetResponse",
        "field common.v1.Meta 1 request_id string single",
        "field quest.v1.Generated 1 meta common.v1.Meta single",
        "field quest.v1.GetRequest 1 meta common.v1.Meta single",
        "field quest.v1.GetRequest 2 quest_id string single",
        "field quest.v1.GetRequest 3 facts map<string,int64> map",
        "field quest.v1.GetRequest 4 level uint32 optional",
        "field quest.v1.GetResponse 2 items string repeated",
        "field quest.v1.GetResponse 3 state quest.v1.State single",
        "field quest.v1.GetResponse 4 text string oneof=change",
        "reserved quest.v1.GetRequest 9 to 9",
        "reserved quest.v1.GetRequest 11 to 12",
        "enum quest.v1.State 0 STATE_UNSPECIFIED",
        "enum quest.v1.State 1 STATE_ACTIVE",
    ];
    assert_eq!(facts, expected);
}

#[test]
fn additions_are_fine() {
    check("x", "x", &[]);
    check(
        "string quest_id = 2;",
        "string quest_id = 2; bytes key = 5;",
        &["field quest.v1.GetRequest 5 key bytes single"],
    );
    check("STATE_ACTIVE = 1;", "STATE_ACTIVE = 1; STATE_DONE = 2;", &["enum quest.v1.State 2 STATE_DONE"]);
    check(
        "returns (stream GetResponse);",
        "returns (stream GetResponse) { option idempotency_level = IDEMPOTENT; }",
        &["rpc svc.quest.v1.batch_get quest.v1.GetRequest -> quest.v1.GetResponse idempotent stream"],
    );
}

#[test]
fn a_field_stays_what_it_is() {
    let at = |line: usize, what: &str| format!("quest/v1/quest.proto:{line}: field {what}");
    let check = |from: &str, to: &str, line: usize, what: &str| check(from, to, &[&at(line, what)]);
    check("  string quest_id = 2;\n", "", 8, "`quest_id` = 2 of `quest.v1.GetRequest` was removed");
    check("quest_id = 2", "quest_id = 7", 10, "`quest_id` of `quest.v1.GetRequest` was renumbered from 2 to 7");
    check("quest_id = 2", "id = 2", 10, "`id` = 2 of `quest.v1.GetRequest` was renamed from `quest_id` to `id`");
    check(
        "string quest_id",
        "bytes quest_id",
        10,
        "`quest_id` = 2 of `quest.v1.GetRequest` changed its type from `string` to `bytes`",
    );
    check(
        "string quest_id",
        "repeated string quest_id",
        10,
        "`quest_id` = 2 of `quest.v1.GetRequest` changed from `single` to `repeated`",
    );
    check("optional uint32", "uint32", 12, "`level` = 4 of `quest.v1.GetRequest` changed from `optional` to `single`");
    check(
        "map<string, int64>",
        "map<string, string>",
        11,
        "`facts` = 3 of `quest.v1.GetRequest` changed its type from `map<string,int64>` to `map<string,string>`",
    );
    check(
        "quest_id = 2;",
        "quest_id = 2 [json_name = \"id\"];",
        10,
        "`quest_id` = 2 of `quest.v1.GetRequest` changed from `single` to `single json=id`",
    );
    check(
        "oneof change {\n    string text = 4;",
        "oneof update {\n    string text = 4;",
        19,
        "`text` = 4 of `quest.v1.GetResponse` changed from `oneof=change` to `oneof=update`",
    );
}

#[test]
fn an_rpc_stays_what_it_is() {
    let at = |line: usize, what: &str| format!("quest/v1/quest.proto:{line}: rpc {what}");
    let check = |from: &str, to: &str, line: usize, what: &str| check(from, to, &[&at(line, what)]);
    check("  rpc BatchGet(GetRequest) returns (stream GetResponse);\n", "", 4, "`svc.quest.v1.batch_get` was removed");
    check("(stream GetResponse)", "(GetResponse)", 6, "`svc.quest.v1.batch_get` does not stream any more");
    check(
        "Get(GetRequest) returns (GetResponse)",
        "Get(GetRequest) returns (stream GetResponse)",
        5,
        "`svc.quest.v1.get` streams, it answered once",
    );
    check(
        "{ option idempotency_level = NO_SIDE_EFFECTS; }",
        ";",
        5,
        "`svc.quest.v1.get` is not idempotent any more, but peers repeat it",
    );
    check(
        "rpc BatchGet(GetRequest)",
        "rpc BatchGet(GetResponse)",
        6,
        "`svc.quest.v1.batch_get` takes `quest.v1.GetResponse`, it took `quest.v1.GetRequest`",
    );
    check(
        "returns (stream GetResponse)",
        "returns (stream GetRequest)",
        6,
        "`svc.quest.v1.batch_get` answers `quest.v1.GetRequest`, it answered `quest.v1.GetResponse`",
    );
}

#[test]
fn events_types_and_values_stay() {
    check(
        "message Generated {",
        "message Made {",
        &[
            "quest/v1/quest.proto:2: event `evt.quest.generated.v1` was removed",
            "quest/v1/quest.proto:2: message `quest.v1.Generated` was removed",
        ],
    );
    check(
        "STATE_ACTIVE = 1;",
        "",
        &["quest/v1/quest.proto:25: value `STATE_ACTIVE` = 1 of `quest.v1.State` was removed"],
    );
    check(
        "STATE_ACTIVE = 1;",
        "STATE_RUNNING = 1;",
        &["quest/v1/quest.proto:27: value 1 of `quest.v1.State` was renamed from `STATE_ACTIVE` to `STATE_RUNNING`"],
    );
    check(
        "  reserved 9, 11 to 12;\n",
        "  reserved 11 to 12;\n",
        &["quest/v1/quest.proto:8: number 9 of `quest.v1.GetRequest` is not reserved any more"],
    );
}

#[test]
fn everything_that_breaks_is_said_at_once() {
    let tree = tree(QUEST);
    accept(tree.path()).unwrap();
    fs::remove_dir_all(tree.path().join("quest")).unwrap();
    let problems = super::check(tree.path()).unwrap_err();
    let expected = [
        "contract.lock:3: rpc `svc.quest.v1.batch_get` was removed",
        "contract.lock:4: rpc `svc.quest.v1.get` was removed",
        "contract.lock:5: event `evt.quest.generated.v1` was removed",
        "contract.lock:7: message `quest.v1.Generated` was removed",
        "contract.lock:8: message `quest.v1.GetRequest` was removed",
        "contract.lock:9: message `quest.v1.GetResponse` was removed",
        "contract.lock:21: enum `quest.v1.State` was removed",
    ];
    assert_eq!(shown(&tree, &problems), expected);
    let hint = problems.iter().next().unwrap().hint.clone().unwrap();
    assert!(hint.contains("contract.lock:3, and `natsctl proto accept`"), "{hint}");
}

#[test]
fn what_does_not_compile_is_said_where_it_is() {
    let broken = tree(&QUEST.replace("string quest_id = 2;", "string quest_id = 1;"));
    let said = shown(&broken, &accept(broken.path()).unwrap_err());
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("quest/v1/quest.proto:"), "{said:?}");

    let broken = tree("syntax = \"proto3\";\npackage quest.v1;\nmessage A {\n  strin\n}\n");
    let said = shown(&broken, &super::check(broken.path()).unwrap_err());
    assert!(said[0].starts_with("quest/v1/quest.proto:5: "), "{said:?}");
}

#[test]
fn without_an_accepted_contract_nothing_is_compatible() {
    let tree = tree(QUEST);
    let said = shown(&tree, &super::check(tree.path()).unwrap_err());
    assert_eq!(said, ["contract.lock:1: no contract was accepted yet"]);
    assert_eq!(accept(tree.path()).unwrap().added.len(), 20);
    assert_eq!(accept(tree.path()).unwrap(), Changes::default());

    fs::write(tree.path().join(LOCK), "<<<<<<< HEAD\nfield a.B x y\n").unwrap();
    let said = shown(&tree, &super::check(tree.path()).unwrap_err());
    assert_eq!(
        said,
        ["contract.lock:1: this is no line of a contract", "contract.lock:2: this is no line of a contract"]
    );
}

#[test]
fn the_protocol_of_the_fleet_is_what_was_accepted_and_what_is_compiled_in() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let changes = super::check(&folder).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(changes, Changes::default(), "`natsctl proto accept` was not run");

    let contract = describe(&folder).unwrap_or_else(|problems| panic!("{problems}")).contract;
    let subjects = |kind: FactKind| -> BTreeSet<String> {
        contract.keys().filter(|key| key.kind == kind).map(|key| key.of.clone()).collect()
    };
    let methods = proto::SERVICES.iter().flat_map(|service| service.methods);
    assert_eq!(subjects(FactKind::Rpc), methods.map(|method| method.subject.to_owned()).collect());
    let events = proto::EVENTS.iter();
    assert_eq!(subjects(FactKind::Event), events.map(|event| event.subject.to_owned()).collect());
}
