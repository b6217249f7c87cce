//! What manifests name and Terraform does not make: secrets by their ARNs, parameters of Systems Manager, and versions of secrets. Whether
//! they are there is asked without reading a value, so a key inside a secret is not looked at.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_secretsmanager::config::Region;
use aws_sdk_ssm::types::ParameterStringFilter;
use futures::{StreamExt as _, TryStreamExt as _};

use super::Finding;
use super::secrets::{Listed, Versions};
use crate::aws::error::{code, failed};
use crate::aws::{AT_ONCE, Aws};
use crate::model::secret::SecretReference;

/// What a filter of DescribeParameters takes at once.
const NAMES_PER_CALL: usize = 50;
/// Codes by which AWS says that the caller may not ask.
const DENIED: [&str; 2] = ["AccessDeniedException", "AccessDenied"];

/// Region and account of an ARN, and what is behind them.
struct Arn<'a> {
    region: &'a str,
    account: &'a str,
    resource: &'a str,
}

impl<'a> Arn<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let (_, _, _) = (parts.next().filter(|first| *first == "arn")?, parts.next()?, parts.next()?);
        Some(Self { region: parts.next()?, account: parts.next()?, resource: parts.next()? })
    }
}

/// What asking for a secret gives.
pub(super) enum Answer {
    There(Versions),
    Absent,
    /// The caller may not ask.
    Denied(anyhow::Error),
    Failed(anyhow::Error),
}

pub(super) async fn check(aws: &Aws, listed: &anyhow::Result<Listed>) -> anyhow::Result<Vec<Finding>> {
    let named: BTreeSet<&SecretReference> =
        aws.manifests.services.values().flat_map(|service| service.all_secrets()).collect();
    let mut findings = Vec::new();
    if let Ok(listed) = listed {
        // Whether they exist is shown with the other secrets of the environment.
        let versioned = named.iter().filter(|one| asks_for_version(one));
        let own = versioned.filter_map(|one| Some((*one, listed.by_name.get(&aws.handover.secret(one.own_name()?))?)));
        let problems =
            own.filter_map(|(one, secret)| lacking(&aws.handover.secret(one.own_name()?), one, &secret.versions));
        findings.extend(problems);
    }
    let by_arn: BTreeSet<&str> = named.iter().filter_map(|one| arn(one)).collect();
    let asked = by_arn.into_iter().map(|arn| async move { (arn, secret(aws, arn).await) });
    let answers: BTreeMap<&str, Answer> = futures::stream::iter(asked).buffered(AT_ONCE).collect().await;
    findings.extend(judge_secrets(&named, &answers, &aws.handover.account));
    findings.extend(parameters(aws, &named).await);
    Ok(findings)
}

fn asks_for_version(reference: &SecretReference) -> bool {
    matches!(reference, SecretReference::Secret { stage, version, .. } if stage.is_some() || version.is_some())
}

/// The ARN of a secret that is named by it.
fn arn(reference: &SecretReference) -> Option<&str> {
    match reference {
        SecretReference::Secret { secret, .. } if reference.own_name().is_none() => Some(secret),
        _ => None,
    }
}

async fn secret(aws: &Aws, arn: &str) -> Answer {
    let region = Arn::parse(arn).map(|arn| Region::new(arn.region.to_owned()));
    let config = aws_sdk_secretsmanager::config::Builder::new().region(region);
    let call = aws.clients.secrets().describe_secret().secret_id(arn).customize().config_override(config);
    match call.send().await {
        Ok(found) if found.deleted_date().is_some() => Answer::Absent,
        Ok(found) => Answer::There(Versions::of(found.version_ids_to_stages())),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) => {
            Answer::Absent
        }
        Err(error) if code(&error).is_some_and(|code| DENIED.contains(&code)) => {
            Answer::Denied(failed(&format!("describe the secret `{arn}`"), error))
        }
        Err(error) => Answer::Failed(failed(&format!("describe the secret `{arn}`"), error)),
    }
}

/// One finding for the secrets that are as they should be, and one for each of the others.
pub(super) fn judge_secrets(
    named: &BTreeSet<&SecretReference>,
    answers: &BTreeMap<&str, Answer>,
    account: &str,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (arn, answer) in answers {
        let what = format!("secret `{arn}`");
        let is_foreign = Arn::parse(arn).is_some_and(|arn| arn.account != account);
        match answer {
            Answer::There(_) => {}
            Answer::Absent => findings.push(Finding::missing(what, "not there", "create it, or correct the manifest")),
            // Its own account allows the execution role to read it, and need not allow the caller to ask.
            Answer::Denied(_) if is_foreign => {
                let found = "of another account, which does not say whether it is there";
                findings.push(Finding::note(
                    what,
                    found,
                    "its policy and that of its key must allow the execution role",
                ));
            }
            Answer::Denied(error) | Answer::Failed(error) => findings.push(Finding::unknown(what, error)),
        }
    }
    let there = named.iter().filter_map(|one| match answers.get(arn(one)?)? {
        Answer::There(versions) => Some((*one, versions)),
        _ => None,
    });
    let lacking: Vec<Finding> = there.filter_map(|(one, versions)| lacking(arn(one)?, one, versions)).collect();
    let good = answers.values().filter(|answer| matches!(answer, Answer::There(_))).count();
    if good > 0 {
        findings.insert(0, Finding::ok("secrets by ARN", format!("{good} of {} are there", answers.len())));
    }
    findings.extend(lacking);
    findings
}

/// That a secret lacks the version that a reference asks for.
fn lacking(name: &str, reference: &SecretReference, versions: &Versions) -> Option<Finding> {
    let SecretReference::Secret { stage, version, .. } = reference else { return None };
    let found = versions.lacking(stage.as_deref(), version.as_deref())?;
    let hint =
        format!("correct the manifest; `aws secretsmanager list-secret-version-ids --secret-id {name}` shows them");
    Some(Finding::missing(format!("secret `{name}`"), found, hint))
}

/// Whether the parameters exist that manifests name.
async fn parameters(aws: &Aws, named: &BTreeSet<&SecretReference>) -> Vec<Finding> {
    let (mut by_region, mut findings) = (BTreeMap::<&str, BTreeSet<&str>>::new(), Vec::new());
    let mut wanted = 0;
    for reference in named {
        let SecretReference::Parameter(name) = reference else { continue };
        let region = match Arn::parse(name) {
            Some(arn) if arn.account != aws.handover.account => {
                let (what, found) =
                    (format!("parameter `{name}`"), "of another account, which cannot be asked from here");
                findings.push(Finding::note(what, found, "it must be shared with this account"));
                continue;
            }
            Some(arn) => arn.region,
            None => &aws.handover.region,
        };
        by_region.entry(region).or_default().insert(name);
        wanted += 1;
    }
    let mut good = 0;
    for (region, names) in by_region {
        match existing(aws, region, &names).await {
            Ok(existing) => {
                let is_there = |name: &&&str| spellings(name).iter().any(|spelling| existing.contains(spelling));
                let (there, absent): (Vec<&str>, Vec<&str>) = names.iter().partition(is_there);
                good += there.len();
                findings.extend(absent.into_iter().map(|name| {
                    let hint = "`aws ssm put-parameter` makes it, or correct the manifest";
                    Finding::missing(format!("parameter `{name}`"), format!("not there, in {region}"), hint)
                }));
            }
            Err(error) => findings.push(Finding::unknown(format!("parameters in {region}"), &error)),
        }
    }
    if good > 0 {
        findings.insert(0, Finding::ok("parameters", format!("{good} of {wanted} are there")));
    }
    findings
}

/// The names that a parameter may have: an ARN does not say whether a name without other `/` begins with one.
fn spellings(name: &str) -> Vec<String> {
    match Arn::parse(name).and_then(|arn| arn.resource.strip_prefix("parameter/")) {
        Some(name) => vec![name.to_owned(), format!("/{name}")],
        None => vec![name.to_owned()],
    }
}

/// Those of these parameters that exist.
async fn existing(aws: &Aws, region: &str, names: &BTreeSet<&str>) -> anyhow::Result<BTreeSet<String>> {
    let all: Vec<String> = names.iter().flat_map(|name| spellings(name)).collect();
    let pages = all.chunks(NAMES_PER_CALL).map(|names| async move {
        let filter = ParameterStringFilter::builder().key("Name").option("Equals");
        let filter = filter.set_values(Some(names.to_vec())).build()?;
        let config = aws_sdk_ssm::config::Builder::new().region(Region::new(region.to_owned()));
        let call = aws.clients.ssm().describe_parameters().parameter_filters(filter).max_results(50);
        let answer = call.customize().config_override(config).send().await;
        let answer = answer.map_err(|error| failed("describe the parameters that manifests name", error))?;
        let found = answer.parameters.unwrap_or_default();
        anyhow::Ok(found.into_iter().filter_map(|parameter| parameter.name).collect::<Vec<_>>())
    });
    let pages: Vec<Vec<String>> = futures::stream::iter(pages).buffered(AT_ONCE).try_collect().await?;
    Ok(pages.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::verify::State;

    const OWN: &str = "arn:aws:secretsmanager:us-east-1:123456789012:secret:shop/db-AbCdEf";
    const OTHER: &str = "arn:aws:secretsmanager:eu-west-1:999999999999:secret:shared/token-QwErTy";

    /// What is found of one secret that manifests name in this way.
    #[track_caller]
    fn check(value_from: &str, answer: Answer, expected: &[(State, &str)]) {
        let reference = SecretReference::from_value_from(value_from);
        let answers = BTreeMap::from([(arn(&reference).unwrap(), answer)]);
        let findings = judge_secrets(&BTreeSet::from([&reference]), &answers, "123456789012");
        let found: Vec<_> = findings.iter().map(|one| (one.state, one.found.as_str())).collect();
        assert_eq!(found, expected);
    }

    fn there() -> Answer {
        let stages = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let versions = [("v2".to_owned(), stages(&["AWSCURRENT"])), ("v1".to_owned(), stages(&["AWSPREVIOUS"]))];
        Answer::There(Versions::of(Some(&versions.into())))
    }

    #[test]
    fn a_secret_that_is_named_by_its_arn_must_be_there_with_the_version() {
        let good = (State::Ok, "1 of 1 are there");
        check(OWN, there(), &[good]);
        check(&format!("{OWN}:key:AWSPREVIOUS:"), there(), &[good]);
        check(&format!("{OWN}:::v1"), there(), &[good]);
        check(&format!("{OWN}::BLUE:"), there(), &[good, (State::Missing, "has no version with the stage `BLUE`")]);
        check(&format!("{OWN}:::v9"), there(), &[good, (State::Missing, "has no version `v9` with a stage")]);
        let both = (State::Missing, "version `v1` does not have the stage `AWSCURRENT`");
        check(&format!("{OWN}::AWSCURRENT:v1"), there(), &[good, both]);
        check(OWN, Answer::There(Versions::of(None)), &[good, (State::Missing, "has no value")]);
        check(OWN, Answer::Absent, &[(State::Missing, "not there")]);
        check(OTHER, Answer::Absent, &[(State::Missing, "not there")]);
    }

    #[test]
    fn a_refusal_is_no_absence() {
        let denied = || Answer::Denied(anyhow::anyhow!("refused"));
        check(OWN, denied(), &[(State::Unknown, "refused")]);
        check(OTHER, denied(), &[(State::Note, "of another account, which does not say whether it is there")]);
        check(OTHER, Answer::Failed(anyhow::anyhow!("no answer")), &[(State::Unknown, "no answer")]);
    }

    #[test]
    fn an_arn_may_mean_two_names() {
        assert_eq!(spellings("/shop/token"), ["/shop/token"]);
        assert_eq!(spellings("arn:aws:ssm:us-east-1:123456789012:parameter/token"), ["token", "/token"]);
    }
}
