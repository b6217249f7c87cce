//! `natsctl explain`

use clap::Args;

use crate::commands::invocation::Invocation;
use crate::explain::{self, Child, Explanation};
use crate::screen::{Report, table};

/// Explain a setting of the manifests: type, unit, range, default, meaning, examples
///
/// A path begins with `services`, `fleet` or `environments`, and names the keys: `services.autoscaling.max`. What is a name of yours can
/// be left out: `services.buckets.ttl`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Which setting; without it, the kinds of manifests are listed
    #[arg(value_name = "PATH")]
    path: Option<String>,
}

impl Explain {
    pub(crate) fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let Some(path) = self.path else {
            let roots = explain::roots();
            return Ok(Report::new(&roots, children(&roots)));
        };
        let explained = explain::explain(&path, &invocation.manifests_dir()?)?;
        let text: Vec<String> = explained.iter().map(text).collect();
        Ok(Report::new(&explained, text.join("\n\n")))
    }
}

fn text(explanation: &Explanation) -> String {
    match explanation.children() {
        [] => explanation.text(),
        below => format!("{}\n\n{}", explanation.text(), children(below)),
    }
}

fn children(children: &[Child]) -> String {
    let rows = children.iter().map(|child| vec![child.path.clone(), child.r#type.clone(), child.description.clone()]);
    table(&["setting", "type", "meaning"], rows)
}
