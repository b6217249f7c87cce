//! Changes of production, at a terminal: named, shown, and done only when they are confirmed.

use std::collections::BTreeSet;
use std::fs;

use super::fleet::Fleet;
use crate::emulator::Emulator;
use crate::terminal::pty::{LARGE, SMALL, Terminal};

const DEPLOY: [&str; 4] = ["deploy", "--all", "--proof", "ecs"];

fn writes(emulator: &Emulator) -> BTreeSet<String> {
    let is_write = |name: &String| ["Create", "Update", "Register", "Put"].iter().any(|verb| name.contains(verb));
    emulator.counts().into_keys().filter(is_write).collect()
}

#[test]
fn nothing_is_done_until_the_plan_is_confirmed() {
    let fleet = Fleet::of(7);
    let emulator = fleet.emulator();
    for (keys, code, said) in
        [("n\r", Some(1), "not confirmed, so nothing was changed"), ("\x03", Some(130), "interrupted")]
    {
        emulator.reset_calls();
        let mut terminal = Terminal::start(&fleet.command(&emulator, &DEPLOY), SMALL);
        let question = terminal.until("do this? [y/N]");
        assert_eq!(question.trim_end(), "do this? [y/N]");
        terminal.types(keys);
        let ended = terminal.ended();
        assert_eq!(ended.code, code, "{}", ended.text());
        assert!(ended.text().contains(said), "{}", ended.text());
        assert_eq!(writes(&emulator), BTreeSet::new(), "{}", ended.text());
    }
    let mut terminal = Terminal::start(&fleet.command(&emulator, &DEPLOY), LARGE);
    terminal
        .until("environment production: account 123456789012, us-east-1, as arn:aws:iam::123456789012:user/natsctl");
    terminal.until("+ create service quest-system");
    terminal.until("do this? [y/N]");
    terminal.types("y\r");
    let ended = terminal.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.text());
    assert!(ended.text().contains("deployed in "), "{}", ended.text());
    // Nothing is asked where nothing would be done.
    let ended = Terminal::start(&fleet.command(&emulator, &DEPLOY), LARGE).ended();
    assert!(ended.code == Some(0) && !ended.text().contains("[y/N]"), "{}", ended.text());
}

#[test]
fn an_option_or_the_manifest_answers_before_the_question() {
    let fleet = Fleet::of(7);
    let emulator = fleet.emulator();
    let ended = Terminal::start(&fleet.command(&emulator, &[&DEPLOY[..], &["--yes"]].concat()), LARGE).ended();
    assert!(ended.code == Some(0) && !ended.text().contains("[y/N]"), "{}", ended.text());
    let file = fleet.manifests().join("environments/production.yaml");
    fs::write(&file, fs::read_to_string(&file).unwrap() + "confirm: false\n").unwrap();
    let ended =
        Terminal::start(&fleet.command(&emulator, &["scale", "quest-system", "3", "--proof", "ecs"]), LARGE).ended();
    assert!(ended.code == Some(0) && !ended.text().contains("[y/N]"), "{}", ended.text());
}

#[test]
fn a_topic_hears_how_a_change_ended() {
    let fleet = Fleet::of(7);
    let emulator = fleet.emulator();
    let topic = "arn:aws:sns:us-east-1:123456789012:deployments";
    let missing = fleet.natsctl(&emulator, &[&DEPLOY[..], &["--notify", topic]].concat()).succeeded();
    assert!(missing.stderr.contains("the message about this change could not be sent"), "{missing:#?}");
    let made = emulator.aws(&["sns", "create-topic", "--name", "deployments"]).expect("the aws CLI");
    assert_eq!(made["TopicArn"], topic);
    let arguments = ["scale", "quest-system", "3", "--proof", "ecs", "--notify", topic];
    let scaled = fleet.natsctl(&emulator, &arguments).succeeded();
    assert!(!scaled.stderr.contains("could not be sent"), "{scaled:#?}");
    assert_eq!(emulator.counts()["sns:Publish"], 2);
}
