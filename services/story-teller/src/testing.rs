//! Arcs in short, for tests.

use proto::story::v1::{Arc, Beat, Choice};

/// An arc of beats as `start: take>start+key open>end?key` and endings as `end.`: a choice, where it leads, and a flag that it
/// sets (`+`), clears (`-`) or requires (`?`). It begins at the first one.
pub(crate) fn arc(id: &str, beats: &[&str]) -> Arc {
    let beats: Vec<Beat> = beats.iter().map(|beat| parsed(beat)).collect();
    Arc {
        id: id.to_owned(),
        title: "A story".to_owned(),
        first_beat: beats.first().map(|beat| beat.id.clone()).unwrap_or_default(),
        beats,
        revision: 0,
    }
}

fn parsed(text: &str) -> Beat {
    let (id, choices) = text.split_once(':').unwrap_or((text.trim_end_matches('.'), ""));
    Beat {
        id: id.to_owned(),
        text: format!("This is {id}"),
        choices: choices.split_whitespace().map(choice).collect(),
        is_ending: text.ends_with('.'),
    }
}

fn choice(text: &str) -> Choice {
    let (id, rest) = text.split_once('>').unwrap();
    let mut choice = Choice { id: id.to_owned(), text: format!("Choose {id}"), ..Choice::default() };
    let at = rest.find(['+', '-', '?']).unwrap_or(rest.len());
    choice.to = rest[..at].to_owned();
    let flags = match rest.get(at..=at) {
        Some("+") => &mut choice.sets,
        Some("-") => &mut choice.clears,
        Some(_) => &mut choice.requires,
        None => return choice,
    };
    flags.push(rest[at + 1..].to_owned());
    choice
}
