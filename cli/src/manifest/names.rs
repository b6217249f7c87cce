//! The forms that names have: the same for editors, for people and for the check.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

macro_rules! named {
    ($($(#[$doc:meta])* $name:ident: $form:expr;)+) => {
        $($(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl std::ops::Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $form.pattern, "description": $form.expected })
            }
        })+

        /// The forms that names have.
        pub(super) static FORMS: &[Form] = &[$($form),+];
    };
}

named! {
    /// Name of a service or of the project.
    Name: Form {
        pattern: "^[a-z][a-z0-9-]{1,47}$",
        expected: "2 to 48 lower-case letters, digits and `-`, a letter first",
        letter: u8::is_ascii_lowercase,
        others: b"-",
        length: (2, 48),
    };
    /// Name of a bucket.
    BucketName: Form {
        pattern: "^[a-z][a-z0-9_-]{0,47}$",
        expected: "up to 48 lower-case letters, digits, `-` and `_`, a letter first",
        letter: u8::is_ascii_lowercase,
        others: b"_-",
        length: (1, 48),
    };
    /// Subject of an event.
    EventSubject: Form {
        pattern: "^[a-z][a-z0-9._]{0,127}$",
        expected: "the subject of an event, for example `evt.quest.generated.v1`",
        letter: u8::is_ascii_lowercase,
        others: b"._",
        length: (1, 128),
    };
    /// Name of an environment variable.
    Variable: Form {
        pattern: "^[A-Za-z_][A-Za-z0-9_.-]{0,127}$",
        expected: "letters, digits, `_`, `.` and `-`, a letter or `_` first",
        letter: is_letter_or_underscore,
        others: b"_.-",
        length: (1, 128),
    };
    /// Name of a secret.
    SecretName: Form {
        pattern: "^[a-z][a-z0-9/_-]{0,127}$",
        expected: "up to 128 lower-case letters, digits, `-`, `_` and `/`, a letter first",
        letter: u8::is_ascii_lowercase,
        others: b"/_-",
        length: (1, 128),
    };
    /// Name of a cache.
    CacheName: Form {
        pattern: "^[a-z][a-z0-9-]{0,31}$",
        expected: "up to 32 lower-case letters, digits and `-`, a letter first",
        letter: u8::is_ascii_lowercase,
        others: b"-",
        length: (1, 32),
    };
    /// Name of a service or a family on ECS.
    EcsName: Form {
        pattern: "^[A-Za-z][A-Za-z0-9_-]{0,254}$",
        expected: "up to 255 letters, digits, `-` and `_`, a letter first",
        letter: u8::is_ascii_alphabetic,
        others: b"-_",
        length: (1, 255),
    };
    /// Name of a container or a volume.
    ContainerName: Form {
        pattern: "^[A-Za-z0-9_-]{1,255}$",
        expected: "up to 255 letters, digits, `-` and `_`",
        letter: is_letter_or_digit,
        others: b"-_",
        length: (1, 255),
    };
    /// Name of an option, a label or the like.
    Text: Form {
        pattern: "^[ -~]{1,512}$",
        expected: "up to 512 characters of ASCII",
        letter: is_printable,
        others: b"",
        length: (1, 512),
    };
}

fn is_letter_or_underscore(byte: &u8) -> bool {
    byte.is_ascii_alphabetic() || *byte == b'_'
}

fn is_letter_or_digit(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_".contains(byte)
}

fn is_printable(byte: &u8) -> bool {
    (b' '..=b'~').contains(byte)
}

/// The form of a name: the same for editors (the pattern), for people and for the check.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) pattern: &'static str,
    pub(super) expected: &'static str,
    letter: fn(&u8) -> bool,
    others: &'static [u8],
    length: (usize, usize),
}

impl Form {
    /// Whether a text has this form.
    pub(super) fn fits(&self, text: &str) -> bool {
        let (shortest, longest) = self.length;
        (shortest..=longest).contains(&text.len())
            && text.as_bytes().first().is_some_and(self.letter)
            && text.bytes().all(|byte| (self.letter)(&byte) || byte.is_ascii_digit() || self.others.contains(&byte))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_does_not_look_like_a_name_is_none() {
        for (form, text) in [
            (0, "a"),
            (0, "A1"),
            (0, "1a"),
            (0, "a_b"),
            (0, "ä1"),
            (1, ""),
            (1, "_a"),
            (2, "evt-a"),
            (3, "1A"),
            (3, "A B"),
            (3, "-A"),
            (5, "a_b"),
        ] {
            assert!(!FORMS[form].fits(text), "{text}");
        }
        assert!(!FORMS[0].fits(&"a".repeat(49)));
    }

    proptest! {
        #[test]
        fn the_pattern_for_editors_allows_nothing_that_is_refused_here((form, text) in matching()) {
            prop_assert!(FORMS[form].fits(&text), "{}", text);
        }
    }

    fn matching() -> impl Strategy<Value = (usize, String)> {
        (0..FORMS.len()).prop_flat_map(|form| {
            let pattern = FORMS[form].pattern.trim_start_matches('^').trim_end_matches('$');
            (Just(form), proptest::string::string_regex(pattern).unwrap())
        })
    }
}
