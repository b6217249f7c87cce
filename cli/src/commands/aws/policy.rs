//! `natsctl policy`

use clap::Args;

use crate::aws::calls::{Group, Scope, rights};
use crate::aws::verify::named_roles;
use crate::commands::invocation::Invocation;
use crate::screen::{Report, table};

/// Show the IAM permissions that commands need
///
/// Without a group, a table of all API calls; with one, the IAM policy for the commands of that group, in this environment.
#[derive(Debug, Args)]
pub(crate) struct Policy {
    /// Print the policy for these commands as JSON
    #[arg(value_enum)]
    group: Option<Group>,
}

impl Policy {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let aws = invocation.aws().await?;
        let roles = named_roles(&aws.manifests);
        let scope = Scope { handover: &aws.handover, roles: &roles };
        if let Some(group) = self.group {
            let policy = group.policy(scope);
            return Ok(Report::new(&policy, format!("{policy:#}")));
        }
        let rights = rights(scope);
        let rows = rights.iter().map(|right| {
            let changes = if right.changes { "yes" } else { "" };
            vec![right.call.clone(), changes.to_owned(), right.groups.join(", "), right.resources.join(" ")]
        });
        Ok(Report::new(&rights, table(&["call", "changes", "for", "on"], rows)))
    }
}
