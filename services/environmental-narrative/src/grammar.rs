//! Sentences with alternatives: `The {sky|air} over $place {is|grows} dark.` stands for four sentences, in which `$place` is
//! replaced by what is known of it.

use std::collections::BTreeMap;

/// What the variables of a sentence stand for, by name.
pub(crate) type Values = BTreeMap<&'static str, String>;

/// A parsed sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern<'a>(Vec<Vec<&'a str>>);

impl<'a> Pattern<'a> {
    /// Braces do not nest.
    pub(crate) fn new(text: &'a str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((fixed, after)) = rest.split_once('{') {
            let (alternatives, after) = after.split_once('}').unwrap_or((after, ""));
            parts.push(vec![fixed]);
            parts.push(alternatives.split('|').collect());
            rest = after;
        }
        parts.push(vec![rest]);
        Self(parts)
    }

    /// How many sentences it stands for.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(Vec::len).product()
    }

    /// One of them, by its number below [`Pattern::len`].
    pub(crate) fn sentence(&self, number: usize, values: &Values) -> String {
        let mut left = number;
        let mut text = String::new();
        for alternatives in &self.0 {
            text.push_str(alternatives[left % alternatives.len()]);
            left /= alternatives.len();
        }
        filled(&text, values)
    }

    /// Whether all of its variables have a value.
    pub(crate) fn is_answered_by(&self, values: &Values) -> bool {
        self.0.iter().flatten().all(|text| variables(text).all(|name| values.contains_key(name)))
    }
}

/// The text with its variables replaced. A value is taken as it is: what looks like a variable in it is none.
fn filled(text: &str, values: &Values) -> String {
    let mut parts = text.split('$');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let name = name(part);
        filled.push_str(values.get(name).map_or("", String::as_str));
        filled.push_str(&part[name.len()..]);
    }
    let mut letters = filled.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => filled,
    }
}

fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split('$').skip(1).map(name)
}

/// The name at the beginning of a text.
fn name(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_ascii_lowercase()).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[track_caller]
    fn check(pattern: &str, expected: &[&str]) {
        let values = Values::from([("place", "the $mill {old}".to_owned())]);
        let pattern = Pattern::new(pattern);
        let sentences: BTreeSet<String> = (0..pattern.len()).map(|number| pattern.sentence(number, &values)).collect();
        assert_eq!(sentences, expected.iter().copied().map(str::to_owned).collect());
        assert_eq!(pattern.len(), expected.len());
    }

    #[test]
    fn a_pattern_stands_for_all_combinations() {
        check("It rains.", &["It rains."]);
        check("{a|b} c {d|e|f}.", &["A c d.", "A c e.", "A c f.", "B c d.", "B c e.", "B c f."]);
        check("{|very }wet", &["Wet", "Very wet"]);
        check("$place, {near|far}", &["The $mill {old}, near", "The $mill {old}, far"]);
    }

    #[test]
    fn a_pattern_needs_values_for_its_variables() {
        let values = Values::from([("place", "x".to_owned())]);
        assert!(Pattern::new("at {$place|home}").is_answered_by(&values));
        assert!(!Pattern::new("at {$place|$others}").is_answered_by(&values));
    }
}
