//! What those hear of a change who do not look at its terminal.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use serde_json::Value;

use crate::e2e::fleet::Fleet;
use crate::terminal::pty::{LARGE, Terminal};

/// A webhook that takes so many messages, and gives their texts.
fn webhook(messages: usize) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/services/secret", listener.local_addr().unwrap());
    let texts = thread::spawn(move || {
        let take = |_| {
            let (stream, _) = listener.accept().unwrap();
            let mut request = BufReader::new(stream);
            let mut length = 0;
            for line in request.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()) {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                    length = value.parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            request.read_exact(&mut body).unwrap();
            request.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            serde_json::from_slice::<Value>(&body).unwrap()["text"].as_str().unwrap().to_owned()
        };
        (0..messages).map(take).collect()
    });
    (url, texts)
}

#[tokio::test]
async fn a_webhook_hears_how_a_change_ended_and_its_address_is_kept_nowhere() {
    let fleet = Fleet::new(1);
    let (url, texts) = webhook(2);
    fleet.deploy(&["--all", "--notify", &url]).await.ends(0);
    // Nothing was done, so nothing is said.
    fleet.deploy(&["--all", "--notify", &url]).await.ends(0);
    let broken = fleet.binaries_with("quest-system", "echo that is the reason; exit 1");
    fleet.run(&["deploy", "quest-system", "--binaries", &broken, "--notify", &url]).await.ends(1);
    let texts = texts.join().unwrap();
    assert!(texts[0].contains("test: `natsctl deploy --binaries") && texts[0].contains(": done in "), "{texts:#?}");
    assert!(texts[0].contains("created 1 node, "), "{texts:#?}");
    assert!(texts[1].contains("FAILED") && texts[1].contains("quest-system"), "{texts:#?}");
    let history = fleet.run(&["history", "--output", "json"]).await.ends(0).out;
    assert!(history.contains("--notify …") && !history.contains("secret"), "{history}");
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_changes_nothing_about_the_change() {
    let fleet = Fleet::new(1);
    fleet
        .deploy(&["--all", "--notify", "not an address"])
        .await
        .ends(1)
        .says(&["is no address of a webhook", "hint: "]);
    assert!(!fleet.state().join("supervisor.log").exists(), "it was refused before anything was done");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let run = fleet.deploy(&["--all", "--notify", &format!("http://{closed}/secret")]).await.ends(0);
    let run = run.says(&["warning: the message about this change could not be sent"]);
    assert!(!run.err.contains("secret"), "{}", run.err);
}

#[tokio::test]
async fn the_bell_rings_at_a_terminal_if_it_is_asked_for() {
    let fleet = Fleet::deployed(1).await;
    for (bell, arguments) in
        [(true, &["scale", "quest-system", "3", "--bell"][..]), (false, &["scale", "quest-system", "2"])]
    {
        let ended = Terminal::start(&fleet.command(arguments), LARGE).ended();
        assert_eq!((ended.code, ended.written.contains('\x07')), (Some(0), bell), "{}", ended.text());
    }
}
