//! ECS Exec: commands in a running task.

use anyhow::Context as _;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::clients::Cluster;
use super::error::failed;
use super::session::{Plugin, Session, SessionManager};
use super::tasks::{self, DesiredStatus, Task};
use super::{Aws, services};
use crate::error::Hinted;

/// Runs a command in a task of a service, or in this task, at the terminal; gives its exit code.
///
/// # Errors
/// No plugin; a task that takes no sessions; a session that AWS refuses.
pub(crate) async fn exec(aws: &Aws, typed: &str, command: &[String]) -> anyhow::Result<u8> {
    let plugin = Plugin::find().await?;
    let task = session_task(aws, typed).await?;
    let session = execute_command(aws.ecs_cluster(), &task, command).await?;
    // Ctrl-C and the like are for the command: the plugin passes them on.
    let _ignored = [SignalKind::interrupt(), SignalKind::quit()].map(signal);
    let target = json!({ "Target": session_target(aws.cluster(), &task) });
    let status = SessionManager::new(aws, &plugin).attach(&session, &target).await?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// The task with this id, or the newest one of a service, if it takes sessions.
///
/// # Errors
/// No such task, or one that takes no sessions; the hint says what is missing.
pub(crate) async fn session_task(aws: &Aws, typed: &str) -> anyhow::Result<Task> {
    let cluster = aws.ecs_cluster();
    if typed.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let chosen = tasks::chosen(cluster, &[typed.to_owned()]).await?;
        return takes_sessions(chosen.into_iter().next().context("no task was chosen")?.of(&aws.manifests));
    }
    let on_ecs = aws.manifests.service(typed)?.ecs_name();
    services::of_manifests(aws, [&typed.to_owned()]).await?;
    let mut running = tasks::of_service(cluster, Some(&on_ecs), DesiredStatus::Running).await?;
    running.sort_by_key(|task| (task.execute_command, task.started));
    let hint = format!("`natsctl deploy {typed}` deploys it, `natsctl events {typed}` shows its service events");
    let newest = running.pop().ok_or_else(|| Hinted::new(format!("no task of `{typed}` runs"), hint))?;
    takes_sessions(newest.of(&aws.manifests))
}

/// The name that Session Manager has for the container of a task.
pub(crate) fn session_target(cluster: &str, task: &Task) -> String {
    let runtime = task.container().map(|container| container.runtime_id.as_str()).unwrap_or_default();
    format!("ecs:{cluster}_{}_{runtime}", task.id)
}

async fn execute_command(cluster: Cluster<'_>, task: &Task, command: &[String]) -> anyhow::Result<Session> {
    let call = cluster.ecs.execute_command().cluster(cluster.name).task(&task.id).interactive(true);
    let call = call.set_container(task.container().map(|container| container.name.clone()));
    let answer = call.command(shell_words(command)).send().await;
    let answer = answer.map_err(|error| failed(&format!("run a command in task `{}`", task.id), error))?;
    let session = answer.session.context("ECS has started no session")?;
    Ok(Session {
        id: session.session_id.unwrap_or_default(),
        stream_url: session.stream_url.unwrap_or_default(),
        token: session.token_value.unwrap_or_default(),
    })
}

fn takes_sessions(task: Task) -> anyhow::Result<Task> {
    if !task.execute_command {
        let hint =
            "set `execute_command: true` in the manifest of its service, and deploy it: a new task takes sessions";
        return Err(Hinted::new(format!("task `{}` takes no sessions", task.id), hint).into());
    }
    match task.container().and_then(|container| container.exec_agent.as_deref()) {
        Some(status) if status != "RUNNING" => {
            let message = format!("the agent for sessions of task `{}` is {status}", task.id);
            let hint = "wait a moment; if it stays so, the task's role lacks `ssmmessages:*` or its network has no route to Session Manager";
            Err(Hinted::new(message, hint).into())
        }
        _ => Ok(task),
    }
}

/// The words as one text, which the agent splits into the same words again.
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
    use aws_sdk_ecs::types::{Container, ManagedAgent, ManagedAgentName, Task as SdkTask};

    use super::*;

    fn task(enabled: bool, agent: &str) -> Task {
        let agent = ManagedAgent::builder().name(ManagedAgentName::ExecuteCommandAgent).last_status(agent).build();
        let container = Container::builder().name("auth").managed_agents(agent).build();
        SdkTask::builder().task_arn("a/0123").enable_execute_command(enabled).containers(container).build().into()
    }

    #[track_caller]
    fn check(task: Task, expected: &str) {
        let outcome = takes_sessions(task).map_or_else(|error| error.to_string(), |_| "yes".to_owned());
        assert_eq!(outcome, expected);
    }

    #[test]
    fn a_task_takes_sessions_if_its_service_allows_it_and_its_agent_runs() {
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
