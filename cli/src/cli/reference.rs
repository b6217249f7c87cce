//! `docs/commands.md`: every command with its arguments, options and examples, as `--help` shows them.

use std::fmt::Write as _;

use super::{EXIT_CODES, command, examples};

/// Name of the document in the folder of documents.
const DOCUMENT: &str = "commands.md";

const HEAD: &str = "\
# Commands

Made by `natsctl docs` from the command line itself; [cli.md](cli.md) is the overview. Options of every command are listed once, first.
";

/// Its name and what is in it; `None` in a natsctl that does not have all commands.
pub(super) fn current() -> Option<(&'static str, String)> {
    cfg!(feature = "aws").then(|| (DOCUMENT, document()))
}

fn document() -> String {
    let mut root = command().disable_help_subcommand(true);
    root.build();
    let mut page = HEAD.to_owned();
    // Writing to a string does not fail.
    let _ = write!(page, "\n## natsctl\n\n");
    rows(&mut page, root.get_arguments().filter(|arg| arg.is_global_set()));
    let _ = write!(page, "\n```text\n{EXIT_CODES}\n```\n");
    for inner in root.get_subcommands() {
        section(&mut page, inner, inner.get_name());
    }
    page
}

fn section(page: &mut String, command: &clap::Command, path: &str) {
    if command.has_subcommands() {
        command.get_subcommands().for_each(|inner| section(page, inner, &format!("{path} {}", inner.get_name())));
        return;
    }
    let about = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string).unwrap_or_default();
    let _ = write!(page, "\n## {path}\n\n{}\n\n```text\n{}\n```\n", paragraphs(&about), usage(command));
    let own: Vec<&clap::Arg> =
        command.get_arguments().filter(|arg| !arg.is_global_set() && !is_built_in(arg)).collect();
    if !own.is_empty() {
        page.push('\n');
        rows(page, own.into_iter());
    }
    let examples = examples::of(path);
    if !examples.is_empty() {
        let lines: String = examples.iter().map(|(what, typed)| format!("# {what}\n{typed}\n")).collect();
        let _ = write!(page, "\n```sh\n{lines}```\n");
    }
}

fn paragraphs(about: &str) -> String {
    about.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn is_built_in(arg: &clap::Arg) -> bool {
    ["help", "version"].contains(&arg.get_id().as_str())
        && arg.get_help().is_some_and(|help| help.to_string().starts_with("Print "))
}

fn usage(command: &clap::Command) -> String {
    command.clone().render_usage().to_string().trim_start_matches("Usage: ").trim().to_owned()
}

fn rows<'a>(page: &mut String, args: impl Iterator<Item = &'a clap::Arg>) {
    page.push_str("| argument | meaning |\n| --- | --- |\n");
    for arg in args {
        let _ = writeln!(page, "| `{}` | {} |", cell(&typed(arg)), cell(&meaning(arg)));
    }
}

/// What is typed: `-e, --env <NAME>`.
fn typed(arg: &clap::Arg) -> String {
    let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    // Clap writes long option and value, or a positional argument.
    format!("{short}{arg}")
}

fn meaning(arg: &clap::Arg) -> String {
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<String> = match arg.get_action().takes_values() {
        true => arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect(),
        false => Vec::new(),
    };
    if !values.is_empty() {
        let _ = write!(text, ": {}", values.join(", "));
    }
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        let _ = write!(text, "; by default `{}`", defaults.join(" "));
    }
    if let Some(variable) = arg.get_env() {
        let _ = write!(text, "; variable `{}`", variable.to_string_lossy());
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

#[cfg(all(test, feature = "aws"))]
mod tests {
    use super::*;

    #[test]
    fn the_reference_of_the_commands_is_current() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/commands.md");
        let found = std::fs::read_to_string(file).unwrap_or_default();
        let expected = document();
        let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
        assert!(found == expected, "docs/commands.md is not current: run `natsctl docs`\n{differs:#?}");
    }
}
