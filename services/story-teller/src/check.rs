//! Proves that an arc can be told: all combinations of beat and flags that can come about are looked at.

use std::collections::BTreeMap;

use sdk::Error;

use crate::arc::Graph;

/// The most combinations of beat and flags.
const MAX_STATES: usize = 4_096;
/// Combinations that are looked at in one turn: about 0.2 ms.
const TURN: usize = 256;

/// A beat and the flags that are set there.
type State = (usize, u16);

/// An exploration that is under way.
#[derive(Debug)]
pub(crate) struct Exploration {
    graph: Graph,
    /// Where each combination is in `states`.
    numbers: BTreeMap<State, usize>,
    states: Vec<State>,
    /// From where each combination is reached.
    reached_from: Vec<Vec<usize>>,
    next: usize,
}

impl Exploration {
    pub(crate) fn new(graph: Graph) -> Self {
        let first = (graph.first, 0);
        Self {
            graph,
            numbers: BTreeMap::from([(first, 0)]),
            states: vec![first],
            reached_from: vec![Vec::new()],
            next: 0,
        }
    }

    /// Looks at some more combinations. Returns whether all were looked at.
    ///
    /// # Errors
    /// FAILED_PRECONDITION that names a beat at which a player would be stuck; INVALID_ARGUMENT if there are too many
    /// combinations.
    pub(crate) fn advance(&mut self) -> Result<bool, Error> {
        let end = self.states.len().min(self.next + TURN);
        while self.next < end {
            let (beat, flags) = self.states[self.next];
            let ways = self.graph.beats[beat].ways.iter();
            let reached: Vec<State> = ways.filter_map(|way| Some((way.to, way.taken(flags)?))).collect();
            if reached.is_empty() && !self.graph.beats[beat].is_ending {
                let id = &self.graph.beats[beat].id;
                return Err(refused(
                    id,
                    "is a dead end: it can be reached so that no choice can be taken, and is no ending",
                ));
            }
            for state in reached {
                let number = self.number(state)?;
                self.reached_from[number].push(self.next);
            }
            self.next += 1;
        }
        Ok(self.next == self.states.len())
    }

    fn number(&mut self, state: State) -> Result<usize, Error> {
        let new = self.states.len();
        let number = *self.numbers.entry(state).or_insert(new);
        if number == new {
            if new == MAX_STATES {
                return Err(Error::invalid(format_args!(
                    "the arc has more than {MAX_STATES} combinations of beat and flags: use fewer flags"
                )));
            }
            self.states.push(state);
            self.reached_from.push(Vec::new());
        }
        Ok(number)
    }

    /// What was found, when all combinations were looked at.
    ///
    /// # Errors
    /// FAILED_PRECONDITION that names a beat which cannot be reached, or from which no ending can be.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let mut is_reached = vec![false; self.graph.beats.len()];
        let mut ends = vec![false; self.states.len()];
        let mut open = Vec::new();
        for (number, (beat, _)) in self.states.iter().enumerate() {
            is_reached[*beat] = true;
            if self.graph.beats[*beat].is_ending {
                ends[number] = true;
                open.push(number);
            }
        }
        while let Some(number) = open.pop() {
            for from in &self.reached_from[number] {
                if !std::mem::replace(&mut ends[*from], true) {
                    open.push(*from);
                }
            }
        }
        if let Some(beat) = is_reached.iter().position(|is_reached| !is_reached) {
            return Err(refused(&self.graph.beats[beat].id, "cannot be reached"));
        }
        match ends.iter().position(|ends| !ends) {
            Some(number) => {
                let (beat, _) = self.states[number];
                Err(refused(&self.graph.beats[beat].id, "can be reached so that no ending can be any more"))
            }
            None => Ok(()),
        }
    }
}

fn refused(beat: &str, why: &str) -> Error {
    Error::failed_precondition(format_args!("beat `{beat}` {why}")).with_detail("beat", beat)
}

#[cfg(test)]
mod tests {
    use sdk::Code;

    use super::*;
    use crate::testing::arc;

    #[track_caller]
    fn check(beats: &[&str], expected: Result<(), (Code, &str)>) {
        let outcome = Graph::new(&arc("a", beats)).and_then(|graph| {
            let mut exploration = Exploration::new(graph);
            while !exploration.advance()? {}
            exploration.finish()
        });
        match (outcome, expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err((code, because))) => {
                assert!(error.code() == code && error.message().contains(because), "{error}");
            }
            (outcome, expected) => panic!("{outcome:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn an_arc_that_can_be_told_is_accepted() {
        check(&["start: left>cave right>end", "cave: back>start", "end."], Ok(()));
        check(&["start: take>start+key open>end?key", "end."], Ok(()));
        check(&["end."], Ok(()));
    }

    #[test]
    fn an_arc_in_which_a_player_gets_stuck_is_refused() {
        let failed = |because| Err((Code::FailedPrecondition, because));
        check(&["start: on>end", "end.", "attic."], failed("beat `attic` cannot be reached"));
        check(&["start: on>cave out>end", "cave:", "end."], failed("beat `cave` is a dead end"));
        check(&["start: on>door", "door: open>end?key", "end."], failed("beat `door` is a dead end"));
        check(&["start: on>end in>loop", "loop: round>loop", "end."], failed("beat `loop` can be reached so that no"));
        // Both ways lead on at first, and not after the key was lost.
        check(
            &["start: take>hall+key", "hall: lose>hall-key wait>hall open>end?key", "end."],
            failed("beat `hall` can be"),
        );
    }

    #[test]
    fn an_arc_of_the_wrong_form_is_refused() {
        let invalid = |because| Err((Code::InvalidArgument, because));
        check(&[], invalid("at least one beat"));
        check(&["start: on>nowhere"], invalid("choice `on` of beat `start` names beat `nowhere`"));
        check(&["start: on>end on>end", "end."], invalid("choice `on` of beat `start` is given twice"));
        check(&["end.", "end."], invalid("beat `end` is given twice"));
        let many = (0..17).map(|flag| format!(" c{flag}>start+f{flag}")).collect::<String>();
        check(&[&format!("start: on>end{}", &many[..many.len() / 2]), "end."], Ok(()));
        check(&[&format!("start:{many}")], invalid("at most 16"));
        let thirteen = (0..13).map(|flag| format!(" c{flag}>start+f{flag}")).collect::<String>();
        check(&[&format!("start: on>end{thirteen}"), "end."], invalid("more than 4096 combinations"));
    }
}
