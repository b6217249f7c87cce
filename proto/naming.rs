//! How subjects follow from names in `.proto` files. Used by the build of this crate and by whoever reads `.proto` files later.

/// `BatchGet` gives `batch_get`, as in subjects.
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

/// `ai.model.v1` and `Selected` give `evt.ai.model.selected.v1`; `None` if the package has no version.
pub fn event_subject(package: &str, message: &str) -> Option<String> {
    let (domain, version) = package.rsplit_once('.')?;
    Some(format!("evt.{domain}.{}.{version}", snake(message)))
}
