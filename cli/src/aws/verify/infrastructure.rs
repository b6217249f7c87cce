//! The infrastructure that Terraform makes: cluster, network, log group, ledger, alarms.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::{KeyType, TableDescription, TableStatus};
use aws_sdk_ec2::types::Filter;
use aws_sdk_ecs::types::Cluster;

use super::{APPLY, Finding, Kind, all_exist};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::handover::prefix;
use crate::manifest::ServiceManifest;
use crate::problem::counted;

pub(super) const SUBNETS: Kind = Kind { one: "subnet", many: "subnets" };
const GROUPS: Kind = Kind { one: "security group", many: "security groups" };

pub(super) async fn cluster(aws: &Aws) -> anyhow::Result<Vec<Finding>> {
    let answer = aws.clients.ecs().describe_clusters().clusters(aws.cluster()).send().await;
    let answer = answer.map_err(|error| failed(&format!("describe the cluster `{}`", aws.cluster()), error))?;
    Ok(vec![judge_cluster(aws.cluster(), answer.clusters().first())])
}

pub(super) fn judge_cluster(name: &str, found: Option<&Cluster>) -> Finding {
    let what = format!("cluster `{name}`");
    let Some(cluster) = found else { return Finding::missing(what, "not there", APPLY) };
    match cluster.status() {
        Some("ACTIVE") => {
            let providers = cluster.capacity_providers().join(", ");
            let providers = if providers.is_empty() { "Fargate".to_owned() } else { providers };
            Finding::ok(
                what,
                format!("ACTIVE, capacity by {providers}, {} run", counted(cluster.running_tasks_count(), "task")),
            )
        }
        status => Finding::missing(what, status.unwrap_or("without a status"), APPLY),
    }
}

pub(super) async fn log_group(aws: &Aws) -> anyhow::Result<Vec<Finding>> {
    let wanted = &aws.handover.log_group;
    let mut pages =
        aws.clients.logs().describe_log_groups().log_group_name_prefix(wanted).into_paginator().items().send();
    while let Some(group) = pages.next().await {
        let group = group.map_err(|error| failed(&format!("describe the log group `{wanted}`"), error))?;
        if group.log_group_name() == Some(wanted) {
            let retention = group
                .retention_in_days()
                .map_or_else(|| "for ever".to_owned(), |days| format!("for {}", counted(days, "day")));
            return Ok(vec![Finding::ok(format!("log group `{wanted}`"), format!("kept {retention}"))]);
        }
    }
    Ok(vec![Finding::missing(format!("log group `{wanted}`"), "not there", APPLY)])
}

pub(super) async fn network(aws: &Aws) -> anyhow::Result<Vec<Finding>> {
    let wanted = &aws.handover.network;
    let by = |name: &str, ids: &[String]| Filter::builder().name(name).set_values(Some(ids.to_vec())).build();
    let subnets =
        aws.clients.ec2().describe_subnets().filters(by("subnet-id", &wanted.subnets)).into_paginator().items();
    let groups = aws.clients.ec2().describe_security_groups().filters(by("group-id", &wanted.security_groups));
    let groups = groups.into_paginator().items();
    let (subnets, groups) =
        futures::join!(subnets.send().collect::<Result<Vec<_>, _>>(), groups.send().collect::<Result<Vec<_>, _>>());
    let subnets = subnets.map_err(|error| failed("describe the subnets", error))?;
    let groups = groups.map_err(|error| failed("describe the security groups", error))?;
    let named =
        |id: Option<&str>, vpc: Option<&str>| (id.unwrap_or_default().to_owned(), vpc.unwrap_or_default().to_owned());
    let subnets: Vec<_> = subnets.iter().map(|subnet| named(subnet.subnet_id(), subnet.vpc_id())).collect();
    let groups: Vec<_> = groups.iter().map(|group| named(group.group_id(), group.vpc_id())).collect();
    let mut findings = in_vpc(SUBNETS, &wanted.subnets, &subnets, &wanted.vpc);
    findings.extend(in_vpc(GROUPS, &wanted.security_groups, &groups, &wanted.vpc));
    Ok(findings)
}

/// Whether these exist, and are in the VPC; `found` are pairs of id and VPC.
pub(super) fn in_vpc(kind: Kind, wanted: &[String], found: &[(String, String)], vpc: &str) -> Vec<Finding> {
    let existing: BTreeSet<String> = found.iter().map(|(id, _)| id.clone()).collect();
    let mut findings = all_exist(kind, &wanted.iter().cloned().collect(), &existing, APPLY);
    let elsewhere = found.iter().filter(|(_, of)| of != vpc);
    findings.extend(elsewhere.map(|(id, of)| {
        let hint = "the handover is older than the network: `terraform apply` in the environment's folder";
        Finding::missing(format!("{} `{id}`", kind.one), format!("in VPC `{of}`, not in `{vpc}`"), hint)
    }));
    findings
}

pub(super) async fn ledger(aws: &Aws) -> anyhow::Result<Vec<Finding>> {
    let name = &aws.handover.ledger;
    match aws.clients.dynamodb().describe_table().table_name(name).send().await {
        Ok(answer) => Ok(vec![judge_ledger(name, answer.table())]),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) => {
            Ok(vec![judge_ledger(name, None)])
        }
        Err(error) => Err(failed(&format!("describe the ledger `{name}`"), error)),
    }
}

pub(super) fn judge_ledger(name: &str, table: Option<&TableDescription>) -> Finding {
    let what = format!("ledger `{name}`");
    let Some(table) = table else { return Finding::missing(what, "not there", APPLY) };
    let key = |kind: &KeyType| {
        let mut keys = table.key_schema().iter().filter(|element| element.key_type() == kind);
        keys.next().map(|element| element.attribute_name())
    };
    match table.table_status() {
        Some(TableStatus::Active | TableStatus::Updating) => {}
        status => {
            let status = status.map_or("without a status", TableStatus::as_str);
            return Finding::missing(what, status, "wait until it is ACTIVE");
        }
    }
    if (key(&KeyType::Hash), key(&KeyType::Range)) == (Some("pk"), Some("sk")) {
        Finding::ok(what, "ACTIVE")
    } else {
        Finding::missing(what, "its keys are not `pk` and `sk`", APPLY)
    }
}

pub(super) async fn alarms(aws: &Aws) -> anyhow::Result<Vec<Finding>> {
    let prefix = prefix(&aws.handover.names.alarm);
    let call = aws.clients.cloudwatch().describe_alarms().alarm_name_prefix(prefix).max_records(100);
    let mut pages = call.into_paginator().send();
    let mut existing = BTreeSet::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| failed("describe the alarms", error))?;
        existing.extend(page.metric_alarms().iter().filter_map(|alarm| alarm.alarm_name()).map(str::to_owned));
        existing.extend(page.composite_alarms().iter().filter_map(|alarm| alarm.alarm_name()).map(str::to_owned));
    }
    let named = |service: &ServiceManifest| match &service.ecs.deployment.alarms {
        Some(alarms) => alarms.iter().cloned().collect::<Vec<_>>(),
        None => aws.handover.alarms(&service.name).collect(),
    };
    let wanted = aws.manifests.services.values().flat_map(named).collect();
    Ok(all_exist(Kind { one: "alarm", many: "alarms" }, &wanted, &existing, APPLY))
}
