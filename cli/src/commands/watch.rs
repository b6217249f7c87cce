//! What is shown until Ctrl-C: asked again and again, in place at a terminal, with `--output json` one document on each line.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::screen::status::{Space, unknown};
use crate::screen::watch::Canvas;
use crate::screen::{self, Format, Report, error_document};

/// How often this machine is asked.
pub(super) const EVERY: Duration = Duration::from_secs(2);

/// Something about an environment that can be shown again and again.
pub(super) trait Watched: Serialize {
    /// For people; `at` is when it was asked.
    fn text(&self, at: Timestamp, space: Space) -> String;
}

/// Shows the first, and from then on what `ask` answers. An error is shown with how it was before, and asking goes on.
///
/// # Errors
/// It cannot be shown. There is no other end than Ctrl-C.
pub(super) async fn watch<T: Watched>(
    environment: &str,
    format: Format,
    every: Duration,
    first: T,
    mut ask: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<Report> {
    let mut seen = Seen { environment, last: Some((first, Timestamp::now())), error: None };
    let mut resized = signal(SignalKind::window_change())?;
    let mut canvas = Canvas::new();
    loop {
        match format {
            Format::Table => draw_until(&mut canvas, &seen, every, &mut resized).await?,
            Format::Json | Format::Prometheus => {
                screen::line(&seen.json()?)?;
                tokio::time::sleep(every).await;
            }
        }
        seen.is_now(ask().await);
    }
}

/// Draws, for so long, and again whenever the window has another size.
async fn draw_until<T: Watched>(
    canvas: &mut Canvas,
    seen: &Seen<'_, T>,
    pause: Duration,
    resized: &mut Signal,
) -> anyhow::Result<()> {
    let until = tokio::time::Instant::now() + pause;
    loop {
        canvas.draw(&seen.text(canvas.size().map_or(Space::Unlimited, Space::Window)))?;
        tokio::select! {
            () = tokio::time::sleep_until(until) => return Ok(()),
            _ = resized.recv() => {}
        }
    }
}

/// What is known of what is watched.
struct Seen<'a, T> {
    environment: &'a str,
    /// How it was when it was last asked successfully, and when.
    last: Option<(T, Timestamp)>,
    /// Why it is not known now.
    error: Option<anyhow::Error>,
}

impl<T: Watched> Seen<'_, T> {
    fn is_now(&mut self, asked: anyhow::Result<T>) {
        match asked {
            Ok(value) => (self.last, self.error) = (Some((value, Timestamp::now())), None),
            Err(error) => self.error = Some(error),
        }
    }

    fn text(&self, space: Space) -> String {
        let last = self.last.as_ref().map(|(value, at)| (*at, |space| value.text(*at, space)));
        match (&self.error, last) {
            (Some(error), last) => unknown(self.environment, &format!("{error:#}"), last, space),
            (None, Some((_, text))) => text(space),
            (None, None) => String::new(),
        }
    }

    /// On one line, with the time.
    fn json(&self) -> anyhow::Result<String> {
        let mut document = match (&self.error, &self.last) {
            (Some(error), _) => error_document(error),
            (None, Some((value, _))) => serde_json::to_value(value)?,
            (None, None) => json!({}),
        };
        document["time"] = json!(Timestamp::now().to_string());
        Ok(serde_json::to_string(&document)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::error::{Code, Hinted};

    #[derive(Serialize)]
    struct Weather {
        temperature: i32,
    }

    impl Watched for Weather {
        fn text(&self, _: Timestamp, _: Space) -> String {
            format!("{} °C", self.temperature)
        }
    }

    fn parsed(seen: &Seen<'_, Weather>) -> Value {
        let mut document: Value = serde_json::from_str(&seen.json().unwrap()).unwrap();
        assert!(document["time"].take().is_string());
        document
    }

    #[test]
    fn an_error_is_shown_like_any_other_and_then_forgotten() {
        let mut seen = Seen { environment: "test", last: None, error: None };
        seen.is_now(Ok(Weather { temperature: 7 }));
        assert_eq!(seen.text(Space::Unlimited), "7 °C");
        seen.is_now(Err(Hinted::new("it is gone", "deploy it").code(Code::NotDeployed).into()));
        let text = seen.text(Space::Unlimited);
        assert!(text.starts_with("environment test: UNKNOWN: it is gone\nas it was at "), "{text}");
        assert!(text.ends_with(":\n7 °C"), "{text}");
        let error = json!({ "code": "not_deployed", "message": "it is gone", "causes": [], "hint": "deploy it" });
        assert_eq!(parsed(&seen), json!({ "error": error, "time": null }));
        seen.is_now(Ok(Weather { temperature: 8 }));
        assert_eq!(parsed(&seen), json!({ "temperature": 8, "time": null }));
    }
}
