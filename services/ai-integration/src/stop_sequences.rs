//! Ends a text before the first stop sequence, even if the sequence spans several pieces, and buffers as little as
//! possible.

/// Passes text on until a stop sequence occurs.
#[derive(Debug)]
pub(crate) struct StopFilter {
    stops: Vec<String>,
    /// Text that may be the start of a stop sequence.
    pending: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filtered {
    /// The text that can be released, possibly empty.
    Text(String),
    /// The text before a stop sequence. The text ends here.
    Stopped(String),
}

impl StopFilter {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops, pending: String::new() }
    }

    pub(crate) fn push(&mut self, piece: &str) -> Filtered {
        self.pending.push_str(piece);
        let first = self.stops.iter().filter_map(|stop| self.pending.find(stop)).min();
        if let Some(at) = first {
            self.pending.truncate(at);
            return Filtered::Stopped(std::mem::take(&mut self.pending));
        }
        let keep = self.stops.iter().map(|stop| partial_match(&self.pending, stop)).max().unwrap_or(0);
        let rest = self.pending.split_off(self.pending.len() - keep);
        Filtered::Text(std::mem::replace(&mut self.pending, rest))
    }

    /// The pending text, when the input has ended.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.pending)
    }
}

/// The length of the longest prefix of `stop` that `text` ends with.
fn partial_match(text: &str, stop: &str) -> usize {
    let lengths = stop.char_indices().map(|(at, _)| at).rev();
    lengths.into_iter().find(|&length| text.ends_with(&stop[..length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The whole filtered text, and whether a stop sequence ended it.
    fn filtered(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut filter = StopFilter::new(stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut text = String::new();
        for piece in pieces {
            match filter.push(piece) {
                Filtered::Text(more) => text.push_str(&more),
                Filtered::Stopped(rest) => return (text + &rest, true),
            }
        }
        (text + &filter.finish(), false)
    }

    #[track_caller]
    fn check(stops: &[&str], pieces: &[&str], text: &str, stopped: bool) {
        assert_eq!(filtered(stops, pieces), (text.to_owned(), stopped));
    }

    #[test]
    fn a_text_ends_before_the_first_stop_sequence() {
        check(&[], &["a", "b"], "ab", false);
        check(&["."], &["One", ".", " Two"], "One", true);
        check(&["dragon slept"], &["The", " dragon", " slept", "."], "The ", true);
        check(&["b c", "a"], &["x b c a"], "x ", true);
        check(&["€!"], &["5 €", " ", "6 €", "!"], "5 € 6 ", true);
    }

    #[test]
    fn partial_stop_sequences_are_released() {
        check(&["aab"], &["a", "a", "a", "b"], "a", true);
        check(&["abc"], &["ab", "ab"], "abab", false);
    }

    #[test]
    fn only_possible_stop_sequences_are_buffered() {
        let mut filter = StopFilter::new(vec!["stop here".to_owned()]);
        assert_eq!(filter.push("do not stop"), Filtered::Text("do not ".to_owned()));
        assert_eq!(filter.push(" there"), Filtered::Text("stop there".to_owned()));
    }

    proptest! {
        #[test]
        fn the_text_does_not_depend_on_its_pieces(pieces in prop::collection::vec("[ab]{0,3}", 0..9), stops in prop::collection::vec("[ab]{1,4}", 0..3)) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let whole = pieces.concat();
            let first = stops.iter().filter_map(|stop| whole.find(stop)).min();
            let (text, stopped) = filtered(&stops, &pieces.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!(stopped, first.is_some());
            // Another stop sequence may start earlier and end later than the one that is found first.
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
