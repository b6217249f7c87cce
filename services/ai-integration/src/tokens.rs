//! Splits text into tokens: words and single punctuation characters, separated by white space.

/// The tokens of a text, in order.
pub(crate) fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let length = if first.is_alphanumeric() { word(rest) } else { first.len_utf8() };
        let (token, after) = rest.split_at(length);
        rest = after;
        Some(token)
    })
}

pub(crate) fn count(text: &str) -> u32 {
    u32::try_from(tokens(text).count()).unwrap_or(u32::MAX)
}

/// The length of the word at the start. An apostrophe or a hyphen belongs to it if a letter or digit follows.
fn word(text: &str) -> usize {
    let mut end = 0;
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        let joins =
            matches!(letter, '\'' | '’' | '-') && letters.peek().is_some_and(|(_, next)| next.is_alphanumeric());
        if !letter.is_alphanumeric() && !joins {
            break;
        }
        end = at + letter.len_utf8();
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(tokens(text).collect::<Vec<_>>(), expected, "{text:?}");
    }

    #[test]
    fn words_and_punctuation_are_tokens() {
        check("", &[]);
        check(" \n\t", &[]);
        check("Hello, world!", &["Hello", ",", "world", "!"]);
        check("the well-kept inn's door", &["the", "well-kept", "inn's", "door"]);
        check("wait... 'tis - no-", &["wait", ".", ".", ".", "'", "tis", "-", "no", "-"]);
        check("größe 3,5 € 🗡", &["größe", "3", ",", "5", "€", "🗡"]);
    }
}
