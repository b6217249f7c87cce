//! `natsctl man`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use clap_mangen::Man as Page;
use serde_json::json;

use crate::screen::Report;

/// Write the manual pages
///
/// One page for natsctl, and one for each of its commands: `natsctl-deploy.1`, `natsctl-nats-roll.1`.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write them into this folder; without it, the page of natsctl itself goes to standard output
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    /// `command` is natsctl with all of its commands.
    pub(crate) fn run(self, command: clap::Command) -> anyhow::Result<Report> {
        let pages = pages(command)?;
        let Some(dir) = self.dir else {
            let page = pages.into_iter().next().map(|(_, page)| page).unwrap_or_default();
            return Ok(Report::new(&json!({ "page": page }), page));
        };
        std::fs::create_dir_all(&dir).with_context(|| format!("failed to make `{}`", dir.display()))?;
        let write = |(name, page): (String, String)| {
            let file = dir.join(name);
            std::fs::write(&file, page).with_context(|| format!("failed to write `{}`", file.display()))?;
            Ok(file.display().to_string())
        };
        let written: Vec<String> = pages.into_iter().map(write).collect::<anyhow::Result<_>>()?;
        let text = written.join("\n");
        Ok(Report::new(&json!({ "written": written }), text))
    }
}

/// Names of files, and the pages in them; the one of natsctl itself first.
fn pages(command: clap::Command) -> anyhow::Result<Vec<(String, String)>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    render(&command, &mut pages)?;
    Ok(pages)
}

fn render(command: &clap::Command, pages: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    // A command's name as it is typed is that of its page, with `-` between the words.
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let page = Page::new(command.clone()).title(name.to_uppercase()).manual("natsctl".to_owned());
    let mut text = Vec::new();
    page.render(&mut text)?;
    let text = String::from_utf8(text).context("a manual page is not UTF-8")?;
    // What follows the options are examples, and for natsctl itself its exit codes.
    let heading = if name == "natsctl" { ".SH \"EXIT STATUS\"" } else { ".SH EXAMPLES" };
    pages.push((format!("{name}.1"), text.replace(".SH EXTRA", heading)));
    command.get_subcommands().try_for_each(|inner| render(inner, pages))
}
