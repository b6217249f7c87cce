//! Ends a text before the first of its stop texts, also where one spans several pieces, and holds back no more than it must.

/// Lets pieces through until a stop text appears.
#[derive(Debug)]
pub(crate) struct Gate {
    stops: Vec<String>,
    /// What may be the beginning of a stop text.
    held: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// This may be shown now; perhaps nothing.
    On(String),
    /// This is the rest: a stop text came behind it.
    Stopped(String),
}

impl Gate {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    pub(crate) fn push(&mut self, piece: &str) -> Passed {
        self.held.push_str(piece);
        let first = self.stops.iter().filter_map(|stop| self.held.find(stop)).min();
        if let Some(at) = first {
            self.held.truncate(at);
            return Passed::Stopped(std::mem::take(&mut self.held));
        }
        let keep = self.stops.iter().map(|stop| begun(&self.held, stop)).max().unwrap_or(0);
        let behind = self.held.split_off(self.held.len() - keep);
        Passed::On(std::mem::replace(&mut self.held, behind))
    }

    /// What is held back when no more comes.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest end of `text` that `stop` begins with.
fn begun(text: &str, stop: &str) -> usize {
    let lengths = stop.char_indices().map(|(at, _)| at).rev();
    lengths.into_iter().find(|&length| text.ends_with(&stop[..length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything that comes through, and whether a stop text ended it.
    fn through(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut gate = Gate::new(stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut text = String::new();
        for piece in pieces {
            match gate.push(piece) {
                Passed::On(more) => text.push_str(&more),
                Passed::Stopped(rest) => return (text + &rest, true),
            }
        }
        (text + &gate.finish(), false)
    }

    #[track_caller]
    fn check(stops: &[&str], pieces: &[&str], text: &str, stopped: bool) {
        assert_eq!(through(stops, pieces), (text.to_owned(), stopped));
    }

    #[test]
    fn a_text_ends_before_the_first_stop_text() {
        check(&[], &["a", "b"], "ab", false);
        check(&["."], &["One", ".", " Two"], "One", true);
        check(&["dragon slept"], &["The", " dragon", " slept", "."], "The ", true);
        check(&["b c", "a"], &["x b c a"], "x ", true);
        check(&["€!"], &["5 €", " ", "6 €", "!"], "5 € 6 ", true);
    }

    #[test]
    fn what_only_began_like_a_stop_text_is_shown() {
        check(&["aab"], &["a", "a", "a", "b"], "a", true);
        check(&["abc"], &["ab", "ab"], "abab", false);
    }

    #[test]
    fn no_more_is_held_back_than_may_be_a_stop_text() {
        let mut gate = Gate::new(vec!["stop here".to_owned()]);
        assert_eq!(gate.push("do not stop"), Passed::On("do not ".to_owned()));
        assert_eq!(gate.push(" there"), Passed::On("stop there".to_owned()));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(pieces in prop::collection::vec("[ab]{0,3}", 0..9), stops in prop::collection::vec("[ab]{1,4}", 0..3)) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let whole = pieces.concat();
            let first = stops.iter().filter_map(|stop| whole.find(stop)).min();
            let (text, stopped) = through(&stops, &pieces.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!(stopped, first.is_some());
            // Another stop text may begin earlier and end later than the one that is seen first.
            prop_assert!(whole.starts_with(&text));
            if let Some(first) = first {
                prop_assert!(text.len() >= first);
                prop_assert!(stops.iter().all(|stop| !text.contains(stop)));
            } else {
                prop_assert_eq!(text, whole);
            }
        }
    }
}
