//! What all tasks have in common, whichever platform runs them: ports, user, version.

/// Port of the health checks and the metrics of a task in a container.
pub const HEALTH_PORT: u16 = 8080;

/// Port of a container on which the gateway takes HTTP requests.
pub const GATEWAY_PORT: u16 = 8000;

/// Id of the user, and of the group, that services run as in a container: without privileges, never root.
pub const USER: u32 = 65532;

/// Digits of a digest or an id that are enough for people and for versions.
pub const SHORT_DIGITS: usize = 12;

/// [`USER`] and its group, as OCI images and ECS write them.
pub fn user_and_group() -> String {
    format!("{USER}:{USER}")
}

/// The version that a task reports on the bus: of the package, and of what exactly was built of it.
///
/// `digest` is hexadecimal, with or without `sha256:`.
pub fn version(package_version: &str, digest: &str) -> String {
    format!("{package_version}+{}", short(digest.trim_start_matches("sha256:")))
}

/// The first digits of a digest or an id.
pub fn short(text: &str) -> &str {
    text.char_indices().nth(SHORT_DIGITS).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_the_first_digits_of_the_digest() {
        assert_eq!(version("0.1.0", "sha256:0123456789abcdef"), "0.1.0+0123456789ab");
        assert_eq!(version("0.1.0", "0123456789abcdef"), "0.1.0+0123456789ab");
        assert_eq!(short("abc"), "abc");
    }
}
