//! Commands in a running task, and tunnels into it.

use anyhow::Context as _;
use aws_sdk_ecs::types::{Container, DesiredStatus, ManagedAgentName, Task};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::Aws;
use super::error::failed;
use super::session::{Plugin, Ticket};
use super::tasks::{container, id};
use crate::error::Hinted;

impl Aws {
    /// Runs a command in a task of a service, or in this task, at the terminal; says how the session ended.
    ///
    /// # Errors
    /// No plugin; a task that takes no sessions; a session that AWS refuses.
    pub(crate) async fn exec(&self, typed: &str, command: &[String]) -> anyhow::Result<u8> {
        let plugin = Plugin::find().await?;
        let task = self.with_sessions(typed).await?;
        let call = self.clients.ecs().execute_command().cluster(self.cluster()).task(id(&task)).interactive(true);
        let call = call.set_container(container(&task).and_then(|container| container.name.clone()));
        let answer = call.command(shell_words(command)).send().await;
        let answer = answer.map_err(|error| failed(&format!("run a command in task `{}`", id(&task)), error))?;
        let session = answer.session.unwrap_or_else(|| aws_sdk_ecs::types::Session::builder().build());
        let ticket = Ticket {
            id: session.session_id.unwrap_or_default(),
            url: session.stream_url.unwrap_or_default(),
            token: session.token_value.unwrap_or_default(),
        };
        // Ctrl-C and the like are for the command, which the plugin tells of them.
        let _unmoved = [SignalKind::interrupt(), SignalKind::quit()].map(signal);
        let status = self.attend(&plugin, &ticket, &json!({ "Target": self.session_target(&task) })).await?;
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
    }

    /// A task that takes sessions: of a service the newest one.
    ///
    /// # Errors
    /// There is none, and how there would be.
    pub(crate) async fn with_sessions(&self, typed: &str) -> anyhow::Result<Task> {
        if typed.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let chosen = self.chosen_tasks(&[typed.to_owned()]).await?;
            return takes_sessions(chosen.into_iter().next().context("no task was chosen")?);
        }
        let on_ecs = self.manifests.services[&self.manifests.named(typed)?].ecs_name();
        let mut running = self.ecs_tasks(Some(&on_ecs), DesiredStatus::Running).await?;
        running.sort_by_key(|task| (task.enable_execute_command(), task.started_at().copied()));
        let hint = format!("`natsctl deploy {typed}` deploys it, `natsctl events {typed}` tells what ECS does");
        let newest = running.pop().ok_or_else(|| Hinted::new(format!("no task of `{typed}` runs"), hint))?;
        takes_sessions(newest)
    }

    /// What Systems Manager calls the container of a task.
    pub(crate) fn session_target(&self, task: &Task) -> String {
        let runtime = container(task).and_then(|container| container.runtime_id()).unwrap_or_default();
        format!("ecs:{}_{}_{runtime}", self.cluster(), id(task))
    }
}

fn takes_sessions(task: Task) -> anyhow::Result<Task> {
    if !task.enable_execute_command() {
        let hint =
            "set `execute_command: true` in the manifest of its service, and deploy it: a new task takes sessions";
        return Err(Hinted::new(format!("task `{}` takes no sessions", id(&task)), hint).into());
    }
    let agents = container(&task).map(Container::managed_agents).unwrap_or_default();
    let agent = agents.iter().find(|agent| agent.name() == Some(&ManagedAgentName::ExecuteCommandAgent));
    match agent.and_then(|agent| agent.last_status()) {
        Some(status) if status != "RUNNING" => {
            let message = format!("the agent for sessions of task `{}` is {status}", id(&task));
            let hint =
                "wait a moment; if it stays so, the task's role lacks `ssmmessages:*` or its network the way there";
            Err(Hinted::new(message, hint).into())
        }
        _ => Ok(task),
    }
}

/// One text, of which the agent makes the same words again.
fn shell_words(command: &[String]) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,@%+".contains(letter);
    let quoted = |word: &String| match word.as_str() {
        word if !word.is_empty() && word.chars().all(plain) => word.to_owned(),
        word => format!("'{}'", word.replace('\'', r"'\''")),
    };
    command.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::ManagedAgent;

    use super::*;

    fn task(enabled: bool, agent: &str) -> Task {
        let agent = ManagedAgent::builder().name(ManagedAgentName::ExecuteCommandAgent).last_status(agent).build();
        let container = Container::builder().name("auth").managed_agents(agent).build();
        Task::builder().task_arn("a/0123").enable_execute_command(enabled).containers(container).build()
    }

    #[track_caller]
    fn check(task: Task, expected: &str) {
        let said = takes_sessions(task).map_or_else(|error| error.to_string(), |_| "yes".to_owned());
        assert_eq!(said, expected);
    }

    #[test]
    fn a_task_takes_sessions_if_it_was_told_to_and_its_agent_runs() {
        check(task(true, "RUNNING"), "yes");
        check(task(true, "PENDING"), "the agent for sessions of task `0123` is PENDING");
        check(task(false, "RUNNING"), "task `0123` takes no sessions");
    }

    #[test]
    fn words_stay_words() {
        let words = ["/app", "--name", "a b", "it's", ""].map(str::to_owned);
        assert_eq!(shell_words(&words), r"/app --name 'a b' 'it'\''s' ''");
    }
}
