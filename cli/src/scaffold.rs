//! A new service: contract, crate, manifest and tests, made of templates. It stores one kind of record, which shows where the business
//! goes; what it is not about is the SDK's.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::error::{Hinted, at};

/// Files of a service and their templates: where they go, below the workspace, and what they contain.
const FILES: [(&str, &str); 6] = [
    ("proto/{{folder}}/{{file}}.proto", include_str!("scaffold/service.proto.template")),
    ("services/{{name}}/Cargo.toml", include_str!("scaffold/Cargo.toml.template")),
    ("services/{{name}}/src/main.rs", include_str!("scaffold/main.rs.template")),
    ("services/{{name}}/src/item.rs", include_str!("scaffold/item.rs.template")),
    ("services/{{name}}/src/tests.rs", include_str!("scaffold/tests.rs.template")),
    ("manifests/services/{{name}}.yaml", include_str!("scaffold/manifest.yaml.template")),
];

/// Names that are taken by what the template contains, or by the repository.
const RESERVED: [&str; 9] = ["common", "gateway", "get", "google", "item", "proto", "put", "sdk", "service"];

/// Longest name of a service.
const MAX_NAME: usize = 40;

/// What a service is called, in each of the forms that it is written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceName {
    /// `high-scores`
    name: String,
    /// `high.scores.v1`
    package: String,
    /// `HighScores`
    class: String,
}

impl ServiceName {
    /// `name` in lower case with hyphens; `package` is made of it if it is not given.
    ///
    /// # Errors
    /// One of them is no such name, or is taken.
    pub(crate) fn new(name: &str, package: Option<&str>) -> Result<Self, Hinted> {
        let hint = "write lower-case words with hyphens, for example `high-scores`";
        if !words(name, '-') || name.len() > MAX_NAME {
            return Err(Hinted::new(format!("`{name}` is no name of a service"), hint));
        }
        if RESERVED.contains(&name) || is_keyword(name) {
            return Err(Hinted::new(format!("`{name}` has another meaning here or in Rust"), "choose another name"));
        }
        let package = package.map_or_else(|| format!("{}.v1", name.replace('-', ".")), str::to_owned);
        let domain = package.strip_suffix(".v1");
        if !domain.is_some_and(|domain| words(domain, '.') && !domain.split('.').any(is_keyword)) {
            let message = format!("`{package}` is no package of a new service");
            return Err(Hinted::new(
                message,
                "write lower-case words with dots and the version, for example `high.scores.v1`",
            ));
        }
        let class = name.split('-').map(capitalized).collect();
        Ok(Self { name: name.to_owned(), package, class })
    }

    /// `high-scores`
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn fill(&self, template: &str) -> String {
        let domain = self.package.trim_end_matches(".v1");
        let replacements = [
            ("{{name}}", self.name.clone()),
            ("{{package}}", self.package.clone()),
            ("{{trait}}", self.class.clone()),
            ("{{module}}", self.package.replace('.', "::")),
            ("{{folder}}", self.package.replace('.', "/")),
            ("{{file}}", domain.rsplit('.').next().unwrap_or(domain).to_owned()),
            ("{{bucket}}", format!("{}_items", self.name.replace('-', "_"))),
        ];
        replacements.iter().fold(template.to_owned(), |text, (placeholder, value)| text.replace(placeholder, value))
    }

    /// The files of the service, below the workspace.
    fn files(&self) -> impl Iterator<Item = (PathBuf, String)> {
        FILES.iter().map(|(path, template)| (self.fill(path).into(), self.fill(template)))
    }
}

/// Writes the files of a service into a workspace, and returns where they are. Nothing is replaced.
///
/// # Errors
/// A file exists already, and then nothing is written; or one cannot be written, and those before it are removed again.
pub(crate) fn write(service: &ServiceName, workspace: &Path) -> anyhow::Result<Vec<PathBuf>> {
    preview(service, workspace)?;
    let mut written = Vec::new();
    for (path, text) in service.files() {
        let path = workspace.join(path);
        if let Err(error) = create(&path, &text) {
            written.iter().for_each(|path: &PathBuf| drop(fs::remove_file(path)));
            return Err(error.into());
        }
        written.push(path);
    }
    Ok(written)
}

/// The files that [`write`] would write.
///
/// # Errors
/// One of them exists already.
pub(crate) fn preview(service: &ServiceName, workspace: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (path, _) in service.files() {
        let path = workspace.join(path);
        match path.try_exists() {
            Ok(false) => {}
            Ok(true) => {
                let message = format!("`{}` exists already", path.display());
                return Err(Hinted::new(message, "choose another name, or remove what is there").into());
            }
            Err(error) => return Err(error).with_context(|| format!("cannot look at `{}`", path.display())),
        }
        files.push(path);
    }
    Ok(files)
}

fn create(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(at("make", folder))?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(at("make", path))?;
    file.write_all(text.as_bytes()).map_err(at("write", path))
}

/// Whether it is words of lower-case letters and digits that begin with a letter.
fn words(text: &str, between: char) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|letter: char| letter.is_ascii_lowercase())
            && word.bytes().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
    };
    text.split(between).all(is_word)
}

fn capitalized(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_uppercase() + rest
}

/// Keywords of Rust, which no module may be called.
fn is_keyword(word: &str) -> bool {
    const KEYWORDS: [&str; 43] = [
        "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn",
        "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro",
        "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super",
        "trait", "true", "try", "type",
    ];
    const MORE: [&str; 8] = ["typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield"];
    KEYWORDS.contains(&word) || MORE.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_package_and_trait() {
        let check = |name: &str, package: Option<&str>, expected: Result<(&str, &str), &str>| match (
            ServiceName::new(name, package),
            expected,
        ) {
            (Ok(found), Ok(expected)) => assert_eq!((found.package.as_str(), found.class.as_str()), expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, _) => panic!("{name} {package:?}: {found:?}"),
        };
        check("greeter", None, Ok(("greeter.v1", "Greeter")));
        check("high-scores", None, Ok(("high.scores.v1", "HighScores")));
        check("high-scores", Some("game.scores.v1"), Ok(("game.scores.v1", "HighScores")));
        check("Greeter", None, Err("`Greeter` is no name of a service"));
        check("greeter-", None, Err("is no name of a service"));
        check("../greeter", None, Err("is no name of a service"));
        check("1st", None, Err("is no name of a service"));
        check(&"g".repeat(41), None, Err("is no name of a service"));
        check("item", None, Err("has another meaning"));
        check("type", None, Err("has another meaning"));
        check("story-type", None, Err("`story.type.v1` is no package"));
        check("greeter", Some("greeter"), Err("`greeter` is no package"));
        check("greeter", Some("greeter.v2"), Err("is no package"));
    }

    #[test]
    fn nothing_is_replaced_and_nothing_is_half_written() {
        let workspace = tempfile::tempdir().unwrap();
        let service = ServiceName::new("greeter", None).unwrap();
        let manifest = workspace.path().join("manifests/services/greeter.yaml");
        fs::create_dir_all(manifest.parent().unwrap()).unwrap();
        fs::write(&manifest, "mine").unwrap();
        let error = write(&service, workspace.path()).unwrap_err();
        assert!(error.to_string().contains("greeter.yaml` exists already"), "{error}");
        assert!(!workspace.path().join("proto").exists());

        fs::remove_file(&manifest).unwrap();
        // Its folder is a file.
        fs::remove_dir(manifest.parent().unwrap()).unwrap();
        fs::write(manifest.parent().unwrap(), "").unwrap();
        write(&service, workspace.path()).unwrap_err();
        assert!(!workspace.path().join("proto/greeter/v1/greeter.proto").exists());

        fs::remove_file(manifest.parent().unwrap()).unwrap();
        assert_eq!(write(&service, workspace.path()).unwrap().len(), FILES.len());
        assert!(fs::read_to_string(manifest).unwrap().contains("serves: [greeter.v1]"));
    }

    #[test]
    fn no_placeholder_is_left() {
        let service = ServiceName::new("high-scores", None).unwrap();
        for (path, text) in service.files() {
            assert!(!text.contains("{{") && !path.to_str().unwrap().contains("{{"), "{}", path.display());
        }
    }
}
