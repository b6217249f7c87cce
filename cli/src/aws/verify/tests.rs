use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::{KeySchemaElement, KeyType, TableDescription, TableStatus};
use aws_sdk_ecs::types::Cluster;
use aws_sdk_iam::types::{EvaluationResult, PolicyEvaluationDecisionType, ResourceSpecificResult};

use super::secrets::{Secret, Use};
use super::*;

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[track_caller]
fn check_findings(found: &[Finding], expected: &[(&str, State, &str)]) {
    let found: Vec<_> = found.iter().map(|one| (one.what.as_str(), one.state, one.found.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn what_exists_is_one_finding_and_what_is_missing_one_each() {
    let wanted = names(&["a", "b", "c"]);
    check_findings(
        &all_exist(Kind { one: "thing", many: "things" }, &wanted, &wanted, ""),
        &[("things", State::Ok, "3 of 3")],
    );
    check_findings(
        &all_exist(Kind { one: "thing", many: "things" }, &wanted, &names(&["b", "other"]), ""),
        &[
            ("things", State::Ok, "1 of 3"),
            ("thing `a`", State::Missing, "not there"),
            ("thing `c`", State::Missing, "not there"),
        ],
    );
}

#[test]
fn a_cluster_must_be_active() {
    let found =
        |status: &str| Cluster::builder().status(status).capacity_providers("FARGATE").running_tasks_count(4).build();
    let judged = |status| infrastructure::judge_cluster("c", Some(&found(status)));
    check_findings(&[judged("ACTIVE")], &[("cluster `c`", State::Ok, "ACTIVE, capacity by FARGATE, 4 tasks run")]);
    check_findings(&[judged("INACTIVE")], &[("cluster `c`", State::Missing, "INACTIVE")]);
    check_findings(&[infrastructure::judge_cluster("c", None)], &[("cluster `c`", State::Missing, "not there")]);
}

#[test]
fn subnets_must_be_in_the_vpc_of_the_handover() {
    let found = [("subnet-1".to_owned(), "vpc-1".to_owned()), ("subnet-2".to_owned(), "vpc-2".to_owned())];
    let wanted = ["subnet-1".to_owned(), "subnet-2".to_owned()];
    check_findings(
        &infrastructure::in_vpc(infrastructure::SUBNETS, &wanted, &found, "vpc-1"),
        &[("subnets", State::Ok, "2 of 2"), ("subnet `subnet-2`", State::Missing, "in VPC `vpc-2`, not in `vpc-1`")],
    );
}

#[test]
fn the_ledger_must_be_active_with_its_keys() {
    let table = |status, range: &str| {
        let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap();
        let keys = vec![key("pk", KeyType::Hash), key(range, KeyType::Range)];
        TableDescription::builder().table_status(status).set_key_schema(Some(keys)).build()
    };
    let judged = |table: TableDescription| infrastructure::judge_ledger("t", Some(&table)).found;
    assert_eq!(judged(table(TableStatus::Active, "sk")), "ACTIVE");
    assert_eq!(judged(table(TableStatus::Creating, "sk")), "CREATING");
    assert_eq!(judged(table(TableStatus::Active, "other")), "its keys are not `pk` and `sk`");
}

#[test]
fn a_role_must_trust_tasks() {
    let policy = |principal: &str| {
        format!(
            r#"{{"Statement":[{{"Effect":"Allow","Principal":{{"Service":{principal}}},"Action":"sts:AssumeRole"}}]}}"#
        )
    };
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    assert!(roles::trusts_tasks(&policy(r#""ecs-tasks.amazonaws.com""#)));
    assert!(roles::trusts_tasks(&encoded(&policy(r#"["ec2.amazonaws.com","ecs-tasks.amazonaws.com"]"#))));
    assert!(!roles::trusts_tasks(&policy(r#""ec2.amazonaws.com""#)));
    assert!(!roles::trusts_tasks("nonsense"));

    let refused = Err(anyhow::anyhow!("refused"));
    let found = [("good", Ok(Some(true))), ("gone", Ok(None)), ("bad", Ok(Some(false))), ("hidden", refused)];
    let findings = roles::judge_trust(&found.map(|(name, found)| (name.to_owned(), found)));
    let states: Vec<State> = findings.iter().map(|one| one.state).collect();
    assert_eq!(states, [State::Ok, State::Missing, State::Missing, State::Unknown]);
    assert_eq!(findings[0].found, "1 of 4, for tasks of ECS");
    let all = ["a", "b"].map(|name| (name.to_owned(), Err(anyhow::anyhow!("refused"))));
    check_findings(&roles::judge_trust(&all), &[("roles", State::Unknown, "refused")]);
}

#[test]
fn a_right_that_lacks_is_named_with_its_resource() {
    let allowed = PolicyEvaluationDecisionType::Allowed;
    let denied = PolicyEvaluationDecisionType::ImplicitDeny;
    let of = |name: &str, decision: &PolicyEvaluationDecisionType| {
        let result = ResourceSpecificResult::builder().eval_resource_name(name);
        result.eval_resource_decision(decision.clone()).build().unwrap()
    };
    let result = |decision: &PolicyEvaluationDecisionType, specific| {
        let result = EvaluationResult::builder().eval_action_name("s3:GetObject").eval_decision(decision.clone());
        result.eval_resource_name("*").set_resource_specific_results(Some(specific)).build().unwrap()
    };
    let right = |on: &str| ("s3:GetObject".to_owned(), on.to_owned());
    assert_eq!(roles::lacking(&result(&allowed, Vec::new())), []);
    assert_eq!(roles::lacking(&result(&denied, Vec::new())), [right("*")]);
    assert_eq!(roles::lacking(&result(&allowed, vec![of("a", &allowed), of("b", &denied)])), [right("b")]);
}

#[test]
fn a_session_is_looked_up_as_its_role() {
    let of = |caller: &str| roles::principal(caller);
    assert_eq!(
        of("arn:aws:sts::123456789012:assumed-role/deployer/ci").as_deref(),
        Some("arn:aws:iam::123456789012:role/deployer")
    );
    assert_eq!(of("arn:aws:iam::123456789012:user/ann").as_deref(), Some("arn:aws:iam::123456789012:user/ann"));
    assert_eq!(of("arn:aws:iam::123456789012:root"), None);
}

#[test]
fn secrets_must_be_there_and_have_a_value() {
    let secret = |has_value| Secret { arn: "arn".to_owned(), has_value, versions: secrets::Versions::default() };
    let there = BTreeMap::from([("full".to_owned(), secret(true)), ("empty".to_owned(), secret(false))]);
    let wanted = ["full", "empty", "gone"].map(|name| (name.to_owned(), Use::Identity)).into();
    check_findings(
        &secrets::judge(&wanted, &there, "production"),
        &[
            ("secrets", State::Ok, "1 of 3 have a value"),
            ("secret `empty`", State::Missing, "has no value"),
            ("secret `gone`", State::Missing, "not there"),
        ],
    );
}

#[test]
fn an_identity_has_all_its_parts() {
    let all = names(&["urls", "ca", "cert", "key", "creds"]);
    let contents = BTreeMap::from([("a".to_owned(), all), ("b".to_owned(), names(&["urls", "ca"]))]);
    check_findings(
        &secrets::judge_identities(&contents, "production"),
        &[
            ("identities on NATS", State::Ok, "1 of 2 are complete"),
            ("secret `b`", State::Missing, "has no cert, key, creds"),
        ],
    );
}

#[test]
fn nats_must_require_tls_where_it_is_reached() {
    let judged = |greeting| nats::judge("nats:4222", greeting, false).state;
    assert_eq!(judged(Some("INFO {\"version\":\"2.15.1\",\"tls_required\":true}\r\n")), State::Ok);
    assert_eq!(judged(Some("INFO {\"version\":\"2.15.1\"}\r\n")), State::Missing);
    assert_eq!(judged(Some("HTTP/1.1 400 Bad Request\r\n")), State::Missing);
    assert_eq!(judged(None), State::Note);
}

#[test]
fn what_could_not_be_checked_is_no_success() {
    let unknown = Finding::unknown("roles", &anyhow::anyhow!("refused"));
    assert!(!Verified::of("production".to_owned(), vec![unknown]).complete);
    let note = Finding::note("NATS", "not reached", "a tunnel");
    let verified = Verified::of("production".to_owned(), vec![note]);
    assert!(verified.complete);
    assert!(verified.text().contains("nothing is missing"), "{}", verified.text());
}
