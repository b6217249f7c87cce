//! Examples of each command, in its help. All of them are parsed by a test.

/// Command, what is done, and what is typed for it.
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    ("validate", &[("all problems, also those of another environment", "natsctl validate --env production")]),
    (
        "plan",
        &[
            ("what a deployment of everything would change", "natsctl plan"),
            ("the same for programs", "natsctl plan quest-system -o json"),
            ("review a plan, and carry out exactly that", "natsctl plan --save plan.json"),
        ],
    ),
    (
        "deploy",
        &[
            ("everything, after a build of what has changed", "natsctl deploy --all"),
            ("what would be done", "natsctl deploy --all -n"),
            ("two services, with binaries of the last build", "natsctl deploy quest-system gateway --no-build"),
            ("what an interruption has left undone", "natsctl deploy --resume"),
        ],
    ),
    (
        "status",
        &[
            ("once, with an exit code that says whether all is well", "natsctl status"),
            ("two services", "natsctl status quest-system gateway"),
            ("at a glance, until Ctrl-C", "natsctl status -w"),
            ("for programs", "natsctl status -o json"),
        ],
    ),
    (
        "logs",
        &[
            ("new lines of two services", "natsctl logs -f quest-system gateway"),
            ("warnings and errors of the last quarter of an hour", "natsctl logs --since 15m --level warn"),
            ("five minutes of two services", "natsctl logs gateway auth --since 17:00 --until 17:05"),
            ("why the tasks before have ended", "natsctl logs quest-system --previous -n 20"),
            ("one task, as the service wrote it", "natsctl logs quest-system/734c --raw"),
        ],
    ),
    (
        "top",
        &[
            ("what the services do now, in place, until Ctrl-C", "natsctl top"),
            ("one measurement for programs", "natsctl top quest-system gateway -o json"),
        ],
    ),
    ("trace", &[("one request, by the id in a log line", "natsctl trace 4bf92f3577b34da6a3ce929d0e0e4736")]),
    ("history", &[("who changed what, and how it ended", "natsctl history")]),
    (
        "stop",
        &[
            ("one task, which is replaced", "natsctl stop quest-system-1f2e"),
            ("all tasks of a service at once, without a question", "natsctl stop --all quest-system -y"),
        ],
    ),
    ("restart", &[("new tasks of the same revision, without downtime", "natsctl restart quest-system")]),
    ("scale", &[("four tasks until the next deployment", "natsctl scale quest-system 4")]),
    (
        "rollback",
        &[
            ("back to the last revision that succeeded", "natsctl rollback quest-system"),
            ("to another one", "natsctl rollback quest-system --to 3"),
        ],
    ),
    ("down", &[("stop everything on this machine", "natsctl down"), ("delete its data, too", "natsctl down --data")]),
    (
        "env",
        &[
            ("how a client connects", "natsctl env"),
            ("variables for this shell", "eval \"$(natsctl env --format shell)\""),
            ("a context for the program `nats`", "natsctl env --format nats-context"),
        ],
    ),
    ("demo", &[("a session of the game, call by call", "natsctl demo")]),
    ("smoke", &[("test what was deployed", "natsctl smoke --env production")]),
    (
        "call",
        &[
            (
                "any method, public or not",
                "natsctl call quest.v1.Quest/Generate '{\"playerId\": \"ada\", \"level\": 7}'",
            ),
            ("a request from standard input", "natsctl call quest.v1.generate -"),
        ],
    ),
    (
        "bench",
        &[("64 requests at a time", "natsctl bench npc.behavior.v1.Behavior/Plan '{\"npcId\": \"smith\"}' -c 64")],
    ),
    ("nats status", &[("who leads, and who is behind", "natsctl nats status")]),
    (
        "nats check",
        &[
            ("for cron and CI", "natsctl nats check"),
            ("metrics for the node exporter", "natsctl nats check -o prometheus"),
        ],
    ),
    (
        "nats roll",
        &[
            ("restart all servers one by one", "natsctl nats roll --restart"),
            ("in which order, and what is in the way", "natsctl nats roll --restart -n"),
        ],
    ),
    ("nats lame-duck", &[("empty one server, and restart it", "natsctl nats lame-duck nats-2")]),
    (
        "nats step-down",
        &[
            ("another leader for a bucket's stream", "natsctl nats step-down KV_quests --to nats-3"),
            ("another meta leader", "natsctl nats step-down --meta"),
        ],
    ),
    ("dlq list", &[("what failed in the last two hours", "natsctl dlq list --since 2h")]),
    ("dlq show", &[("one event, and why it failed", "natsctl dlq show 17")]),
    (
        "dlq replay",
        &[
            ("which would be handled again", "natsctl dlq replay --service npc-behavior -n"),
            ("one of them", "natsctl dlq replay 17"),
        ],
    ),
    ("dlq drop", &[("delete two of them", "natsctl dlq drop 17 18")]),
    ("proto check", &[("fail if peers would break", "natsctl proto check")]),
    ("proto accept", &[("make the current contracts those that peers rely on", "natsctl proto accept")]),
    (
        "new service",
        &[("contract, crate, manifest and tests", "natsctl new service high-scores --package game.scores.v1")],
    ),
    (
        "explain",
        &[
            ("what can be set", "natsctl explain"),
            ("one setting: type, range, default, examples", "natsctl explain services.autoscaling.max"),
        ],
    ),
    ("schema", &[("schemas for editors, after a change of the types", "natsctl schema")]),
    ("docs", &[("in CI: fail if a document is not current", "natsctl docs --check")]),
    ("man", &[("where `man` finds them", "natsctl man --dir ~/.local/share/man/man1")]),
    ("doctor", &[("what is missing on this machine", "natsctl doctor")]),
    (
        "completions",
        &[
            ("in ~/.bashrc", "source <(natsctl completions bash)"),
            ("in ~/.zshrc", "source <(natsctl completions zsh)"),
            ("for fish", "natsctl completions fish > ~/.config/fish/completions/natsctl.fish"),
        ],
    ),
    ("verify", &[("before the first deployment", "natsctl verify --env production")]),
    ("policy", &[("a policy for those who deploy", "natsctl policy deploy --env production")]),
    (
        "build",
        &[
            ("build images and push them", "natsctl build --all --push --env production"),
            ("write them to a folder", "natsctl build gateway --oci-dir target/images"),
        ],
    ),
    ("register", &[("revisions that are deployed later", "natsctl register --all --env production")]),
    ("revisions", &[("the newest five", "natsctl revisions quest-system --limit 5 --env production")]),
    ("deregister", &[("all but the newest twenty", "natsctl deregister --all --keep 20 --env production")]),
    (
        "diff",
        &[
            ("what runs, compared with the manifest", "natsctl diff quest-system --env production"),
            ("two revisions", "natsctl diff quest-system --from 41 --to 42 --env production"),
        ],
    ),
    ("drift", &[("who changed what by hand", "natsctl drift --env production")]),
    ("import", &[("a manifest of what ECS has", "natsctl import shop --as shop --env production")]),
    ("tasks", &[("why tasks stopped", "natsctl tasks --stopped quest-system --env production")]),
    ("events", &[("what ECS does, as it happens", "natsctl events -f quest-system --env production")]),
    ("run", &[("a one-off task", "natsctl run quest-system --timeout 10m --env production -- migrate --check")]),
    ("exec", &[("a command in the newest task", "natsctl exec quest-system --env production -- /app --version")]),
    (
        "tunnel",
        &[
            ("NATS at a local port", "natsctl tunnel nats 4222 --env production"),
            ("the health check of a task", "natsctl tunnel quest-system --env production"),
        ],
    ),
    ("nats plan", &[("which nodes differ", "natsctl nats plan --env production")]),
    ("nats apply", &[("bring NATS to what the manifests say", "natsctl nats apply --env production")]),
    ("nats identities", &[("make those that are missing", "natsctl nats identities --env production")]),
];

/// The examples of a command, as what is done and what is typed.
pub(super) fn of(path: &str) -> &'static [(&'static str, &'static str)] {
    EXAMPLES.iter().find(|(command, _)| *command == path).map_or(&[], |(_, examples)| examples)
}

/// Adds the examples to the help of a command and of all below it; `path` is what is typed for it, without `natsctl`.
pub(super) fn add(command: clap::Command, path: &str) -> clap::Command {
    let lines = of(path).iter().map(|(what, typed)| format!("\n  # {what}\n  {typed}"));
    let text = lines.collect::<String>();
    let command = if text.is_empty() { command } else { command.after_help(format!("Examples:{text}")) };
    command.mut_subcommands(|inner| {
        let path = format!("{path} {}", inner.get_name());
        add(inner, path.trim_start())
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::{Cli, command};
    use super::*;

    /// What is typed by each command that does something.
    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        if !command.has_subcommands() {
            found.push(path.to_owned());
        }
        for inner in command.get_subcommands() {
            leaves(inner, format!("{path} {}", inner.get_name()).trim_start(), found);
        }
    }

    /// Words as a shell makes them, without redirections and what is around a substitution.
    fn words(typed: &str) -> Vec<OsString> {
        let start = typed.find("natsctl").unwrap_or_default();
        let line = typed[start..].trim_end_matches([')', '"']).split(" > ").next().unwrap_or_default();
        let pieces = line.split('\'').enumerate();
        let words = pieces.flat_map(|(index, piece)| match index % 2 {
            0 => piece.split_whitespace().map(OsString::from).collect::<Vec<_>>(),
            _ => vec![OsString::from(piece)],
        });
        words.collect()
    }

    #[test]
    fn every_command_has_examples_that_it_takes() {
        let mut paths = Vec::new();
        leaves(&command(), "", &mut paths);
        for path in &paths {
            let examples = of(path);
            assert!(!examples.is_empty(), "`{path}` has no example in cli/src/cli/examples.rs");
            for (_, typed) in examples {
                assert!(typed.contains(&format!("natsctl {path}")), "`{typed}` is no example of `{path}`");
                if let Err(error) = Cli::from_arguments(&words(typed)) {
                    panic!("`{typed}`: {error}");
                }
            }
        }
        let unknown = EXAMPLES.iter().map(|(path, _)| *path).filter(|path| !paths.iter().any(|known| known == path));
        let unknown: Vec<&str> = unknown.collect();
        assert!(cfg!(not(feature = "aws")) || unknown.is_empty(), "no such commands: {unknown:?}");
    }

    #[test]
    fn examples_fit_a_terminal_of_80_columns() {
        let lines = EXAMPLES.iter().flat_map(|(_, examples)| examples.iter()).flat_map(|(what, typed)| [what, typed]);
        let wide: Vec<&&str> = lines.filter(|line| line.len() > 78).collect();
        assert!(wide.is_empty(), "{wide:?}");
    }
}
