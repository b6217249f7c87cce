//! Derives subjects from names in `.proto` files. Shared by the build script of this crate and by tools that read
//! `.proto` files.

/// Converts a name to snake case, as used in subjects: `BatchGet` becomes `batch_get`.
pub fn snake(name: &str) -> String {
    let mut out = String::new();
    for (index, letter) in name.char_indices() {
        if letter.is_uppercase() && index > 0 {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

/// First token of the packages of audit events, and of their subjects.
const AUDIT: &str = "audit";

/// The subject of an event: `evt.ai.model.selected.v1` for `ai.model.v1` and `Selected`, and `audit.payment.posted.v1` for
/// `audit.payment.v1` and `Posted`. `None` if the package has no version.
pub fn event_subject(package: &str, message: &str) -> Option<String> {
    let (domain, version) = package.rsplit_once('.')?;
    let prefix = if is_audit(domain) { "" } else { "evt." };
    Some(format!("{prefix}{domain}.{}.{version}", snake(message)))
}

/// Whether a package, or a subject, is one of audit events, which are stored for a long time and not consumed.
pub fn is_audit(name: &str) -> bool {
    name.split('.').next() == Some(AUDIT)
}
