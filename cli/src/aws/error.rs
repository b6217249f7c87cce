//! Errors of AWS calls, for people: the object, the reason, the request, and a hint.

use std::error::Error;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::error::Hinted;

/// The error of a failed call; `what` completes "failed to …".
pub(crate) fn failed<E>(what: &str, error: SdkError<E, HttpResponse>) -> anyhow::Error
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let Some(meta) = error.as_service_error().map(ProvideErrorMetadata::meta) else {
        return unanswered(what, error);
    };
    let Some(code) = meta.code().map(str::to_owned) else {
        let status = error.raw_response().map_or(0, |answer| answer.status().as_u16());
        let message = format!("failed to {what}: the answer with HTTP status {status} is none of AWS");
        return Hinted::new(message, PROXY).into();
    };
    let mut message = format!("failed to {what}: {code}");
    if let Some(text) = meta.message() {
        message.push_str(&format!(": {}", text.trim_end_matches('.')));
    }
    if let Some(request) = meta.extra("aws_request_id") {
        message.push_str(&format!(" (request {request})"));
    }
    Hinted::new(message, advice(&code, meta.message().unwrap_or_default())).into()
}

/// The error code of AWS; `None` if there was no answer.
pub(crate) fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.as_service_error().and_then(|error| error.meta().code())
}

/// Whether the call may have succeeded although its answer says nothing of it.
pub(crate) fn is_uncertain<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => true,
        SdkError::ServiceError(error) => error.raw().status().is_server_error(),
        _ => false,
    }
}

fn unanswered<E>(what: &str, error: SdkError<E, HttpResponse>) -> anyhow::Error
where
    E: Error + Send + Sync + 'static,
{
    let reasons = chain(&error);
    let text = reasons.join(": ");
    let about_credentials =
        |text: &str| text.contains("credential") || text.contains("Credential") || text.contains("sso");
    let (reason, hint) = if about_credentials(&text) {
        let hint = "log in (`aws sso login`), or set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
        (credentials(&text, &last(&reasons)), hint)
    } else {
        let reason = match &error {
            SdkError::TimeoutError(_) => "no answer in time".to_owned(),
            SdkError::ResponseError(_) => format!("the answer is no answer of AWS: {}", last(&reasons)),
            _ => last(&reasons),
        };
        (reason, PROXY)
    };
    tracing::debug!(%text, "no answer");
    Hinted::new(format!("failed to {what}: {reason}"), hint).into()
}

/// What is wrong with the credentials; `text` is all that the SDK says, `last` its cause. There are none only where no source of
/// credentials was configured: of one that was and failed, the cause is what counts.
fn credentials(text: &str, last: &str) -> String {
    if text.contains("expired") {
        return "the credentials have expired".to_owned();
    }
    let Some((_, attempts)) = last.split_once("Attempted:") else {
        return format!("the credentials cannot be had: {last}");
    };
    const NOT_ENABLED: &str = "the credential provider was not enabled";
    let cause = |line: &str| {
        let (provider, reason) = line.trim().split_once(": ")?;
        let reason = match reason.strip_prefix(NOT_ENABLED) {
            // A profile that was asked for; the default one need not be there.
            Some(reason) if reason.contains("was not defined") && !reason.contains("`default`") => {
                reason.trim_start_matches(": ")
            }
            Some(_) => return None,
            None => reason,
        };
        // A machine that is no instance does not answer for one.
        (provider != "Ec2InstanceMetadata").then(|| reason.to_owned())
    };
    let causes: Vec<String> = attempts.lines().filter_map(cause).collect();
    if causes.is_empty() {
        return "there are no credentials".to_owned();
    }
    format!("the credentials cannot be had: {}", causes.join("; "))
}

fn chain(error: &dyn Error) -> Vec<String> {
    let mut reasons = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        reasons.push(error.to_string());
        cause = error.source();
    }
    reasons
}

fn last(reasons: &[String]) -> String {
    reasons.last().cloned().unwrap_or_default()
}

fn advice(code: &str, message: &str) -> &'static str {
    match code {
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
            "the caller lacks this right; docs/iam.md has the policy of each command"
        }
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => {
            "the credentials have expired: log in again (`aws sso login`); running the command again is safe"
        }
        "UnrecognizedClientException" | "InvalidClientTokenId" | "AuthFailure" => {
            "AWS does not know these credentials: see AWS_PROFILE and AWS_ACCESS_KEY_ID"
        }
        "RequestTimeTooSkewed" => CLOCK,
        "SignatureDoesNotMatch" | "InvalidSignatureException" | "SignatureException"
            if message.contains("expired") || message.contains("not yet current") =>
        {
            CLOCK
        }
        "SignatureDoesNotMatch" | "InvalidSignatureException" => "the secret key does not belong to the access key",
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" | "RequestLimitExceeded" => {
            "AWS limits how many calls it takes: run it again, with a smaller `--max-parallel`"
        }
        "ClusterNotFoundException" => {
            "the cluster is not there or INACTIVE: `terraform apply` in the environment's folder; `natsctl verify` shows it"
        }
        _ => "`natsctl verify` says what is missing; running the command again is safe",
    }
}

const PROXY: &str =
    "see that this machine reaches AWS (proxy, VPN, AWS_ENDPOINT_URL); running the command again is safe";
const CLOCK: &str = "the clock of this machine is off: set it (`timedatectl set-ntp true`)";
