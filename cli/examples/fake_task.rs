//! A task that behaves as its environment says, for the tests of the local platform.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use listenfd::ListenFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    say(&setting("PRINT").unwrap_or_else(|| "hello".to_owned())).await?;
    let mut inherited = ListenFd::from_env();
    for index in 0..inherited.len() {
        if let Some(listener) = inherited.take_tcp_listener(index)? {
            listener.set_nonblocking(true)?;
            tokio::spawn(serve(TcpListener::from_std(listener)?));
        }
    }
    let crash = async {
        match millis("CRASH_AFTER_MS") {
            Some(wait) => tokio::time::sleep(wait).await,
            None => std::future::pending().await,
        }
    };
    let stop = async {
        loop {
            terminate.recv().await;
            say("asked to stop").await?;
            if setting("IGNORE_TERM").is_none() {
                return anyhow::Ok(());
            }
        }
    };
    tokio::select! {
        () = crash => {
            say("out of luck").await?;
            let code = setting("EXIT_CODE").and_then(|code| code.parse().ok()).unwrap_or(1);
            Ok(ExitCode::from(code))
        }
        stopped = stop => {
            stopped?;
            tokio::time::sleep(millis("DRAIN_MS").unwrap_or_default()).await;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn serve(listener: TcpListener) {
    let ready_at = tokio::time::Instant::now() + millis("READY_AFTER_MS").unwrap_or_default();
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream, tokio::time::Instant::now() >= ready_at));
    }
}

async fn answer(mut stream: TcpStream, ready: bool) -> std::io::Result<()> {
    let mut request = [0; 1024];
    let read = stream.read(&mut request).await?;
    let request = String::from_utf8_lossy(&request[..read]).into_owned();
    let (status, body) = match request.split_whitespace().nth(1).unwrap_or_default() {
        "/readyz" if !ready || setting("NEVER_READY").is_some() => ("503 Service Unavailable", "not yet".to_owned()),
        "/livez" if setting("SICK_IF").is_some_and(|file| PathBuf::from(file).exists()) => {
            ("503 Service Unavailable", "sick".to_owned())
        }
        "/env" => ("200 OK", std::env::vars().map(|(name, _)| name + "\n").collect()),
        _ => ("200 OK", setting("TASK_ID").unwrap_or_default()),
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await
}

async fn say(text: &str) -> std::io::Result<()> {
    let mut out = tokio::io::stdout();
    out.write_all(format!("{text}\n").as_bytes()).await?;
    out.flush().await
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn millis(name: &str) -> Option<Duration> {
    Some(Duration::from_millis(setting(name)?.parse().ok()?))
}
