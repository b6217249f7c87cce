//! The SDK's clients, one for each service of AWS: made when first used.

use std::ffi::OsString;
use std::sync::OnceLock;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};

use crate::error::Hinted;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(4);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(15);
/// How long a call may take with all its attempts.
const CALL: Duration = Duration::from_secs(90);
/// Attempts of a call that was throttled or that failed in AWS, unless `AWS_MAX_ATTEMPTS` says otherwise.
const ATTEMPTS: u32 = 8;

/// Name of the application in the user agent of every call, which CloudTrail records after `app/`.
pub(crate) const APP: &str = "natsctl";

macro_rules! clients {
    ($($(#[$doc:meta])* $name:ident: $package:ident,)+) => {
        /// The clients of one caller in one region.
        pub(crate) struct Clients {
            config: SdkConfig,
            $($name: OnceLock<$package::Client>,)+
        }

        impl Clients {
            fn with(config: SdkConfig) -> Self {
                Self { config, $($name: OnceLock::new(),)+ }
            }

            $($(#[$doc])*
            pub(crate) fn $name(&self) -> &$package::Client {
                self.$name.get_or_init(|| $package::Client::new(&self.config))
            })+
        }
    };
}

clients! {
    /// Scalable targets and their policies.
    autoscaling: aws_sdk_applicationautoscaling,
    /// Audit events.
    cloudtrail: aws_sdk_cloudtrail,
    /// Alarms.
    cloudwatch: aws_sdk_cloudwatch,
    /// The ledger.
    dynamodb: aws_sdk_dynamodb,
    /// Subnets and security groups.
    ec2: aws_sdk_ec2,
    /// Repositories.
    ecr: aws_sdk_ecr,
    /// Targets of load balancers.
    balancers: aws_sdk_elasticloadbalancingv2,
    /// Services, tasks and task definitions.
    ecs: aws_sdk_ecs,
    /// Roles.
    iam: aws_sdk_iam,
    /// Logs of tasks.
    logs: aws_sdk_cloudwatchlogs,
    /// Secrets.
    secrets: aws_sdk_secretsmanager,
    /// Topics for those who hear how a change ended.
    sns: aws_sdk_sns,
    /// The handover, and sessions.
    ssm: aws_sdk_ssm,
    /// The caller's identity.
    sts: aws_sdk_sts,
}

/// The ECS cluster of an environment, and the client that reaches it.
#[derive(Clone, Copy)]
pub(crate) struct Cluster<'a> {
    pub(crate) ecs: &'a aws_sdk_ecs::Client,
    pub(crate) name: &'a str,
}

impl Clients {
    /// With credentials from the usual chain: environment, profile, SSO, container, instance.
    ///
    /// # Errors
    /// `AWS_MAX_ATTEMPTS` is no number of attempts.
    pub(crate) async fn new(region: &str) -> Result<Self, Hinted> {
        // Before the SDK reads it, which panics.
        let attempts = attempts(std::env::var_os("AWS_MAX_ATTEMPTS"))?;
        let loaded = aws_config::defaults(BehaviorVersion::v2026_01_12()).region(Region::new(region.to_owned()));
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_attempt_timeout(ATTEMPT)
            .operation_timeout(CALL);
        let loaded = loaded.timeout_config(timeouts.build()).load().await;
        // Not the adaptive mode: after one throttled call it holds back all calls of the client, for half a minute.
        let retries = RetryConfig::standard().with_max_attempts(attempts);
        let mut configured = loaded.into_builder().retry_config(retries);
        configured.set_app_name(AppName::new(APP).ok());
        Ok(Self::with(configured.build()))
    }
}

/// How often a call is made at most, by `AWS_MAX_ATTEMPTS`.
fn attempts(variable: Option<OsString>) -> Result<u32, Hinted> {
    let Some(text) = variable.filter(|text| !text.is_empty()) else { return Ok(ATTEMPTS) };
    let number = text.to_str().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
    number.ok_or_else(|| {
        let message = format!("AWS_MAX_ATTEMPTS is `{}`, which is no number of attempts", text.to_string_lossy());
        Hinted::new(message, format!("set it to 1 or more, or unset it: natsctl makes up to {ATTEMPTS}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_a_number_from_1() {
        for (text, expected) in
            [(None, Some(ATTEMPTS)), (Some(""), Some(ATTEMPTS)), (Some("1"), Some(1)), (Some("20"), Some(20))]
        {
            assert_eq!(attempts(text.map(OsString::from)).ok(), expected, "{text:?}");
        }
        for text in ["0", "-1", "abc", "1.5", "99999999999"] {
            let refusal = attempts(Some(text.into())).unwrap_err();
            assert_eq!(refusal.to_string(), format!("AWS_MAX_ATTEMPTS is `{text}`, which is no number of attempts"));
        }
    }
}
