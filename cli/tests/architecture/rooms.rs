//! The rooms of natsctl's house, the modules at the top of `cli/src`: each uses only rooms of the layers below its own.
//!
//! Read from the text of the sources, so that code behind `cfg` counts too: every path in a `use` declaration or in code
//! that begins with `crate::`, `super::`, `self::` or, in a `use`, with the name of a child.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first. Rooms of one layer do not use each other.
const LAYERS: &[&[&str]] = &[
    &["error", "cleanup"],
    &["input", "scaffold"],
    &["problem"],
    &["model"],
    &["manifest", "contract"],
    &["handover"],
    &["nats", "image", "reference", "explain"],
    &["http"],
    &["screen", "demo"],
    &["pipeline"],
    &["local", "aws"],
    &["commands"],
    &["cli"],
    &["lib"],
];

#[test]
fn a_room_uses_only_rooms_below_it() {
    let upward: Vec<String> = arrows().iter().filter(|arrow| arrow.is_upward()).map(ToString::to_string).collect();
    assert!(upward.is_empty(), "these use rooms that are not below their own:\n{}", upward.join("\n"));
}

#[test]
fn files_of_different_rooms_do_not_use_each_other_in_a_circle() {
    let arrows = arrows();
    let mut used: BTreeMap<&Module, BTreeSet<&Module>> = BTreeMap::new();
    for arrow in &arrows {
        used.entry(&arrow.from).or_default().insert(&arrow.to);
    }
    let circular = arrows.iter().filter(|arrow| !arrow.is_inside() && reaches(&used, &arrow.to, &arrow.from));
    let circular: Vec<String> = circular.map(ToString::to_string).collect();
    assert!(circular.is_empty(), "these are part of a circle:\n{}", circular.join("\n"));
}

#[test]
fn every_room_has_a_layer() {
    let rooms: BTreeSet<String> = modules().keys().map(|module| room(module).to_owned()).collect();
    assert_eq!(rooms, LAYERS.iter().copied().flatten().map(ToString::to_string).collect());
}

#[test]
fn paths_are_read_however_they_are_written() {
    let text = "\
        pub(crate) mod child;\n\
        use child::Thing;\n\
        use crate::{nats, model::{self, plan::{Plan as P, *}}}; // use crate::ignored;\n\
        fn f() { self::g(&super::h()); crate::screen::note(\"https://crate.test\"); }\n\
        mod tests {\n    use super::super::other;\n    use super::*;\n}\n";
    let found: Vec<String> = references(text, &module("aws::run")).map(|found| found.1.join("::")).collect();
    let expected = [
        "aws::run::child::Thing",
        "nats",
        "model",
        "model::plan::Plan",
        "model::plan",
        "aws::run::g",
        "aws::h",
        "screen::note",
        "aws::other",
        "aws::run",
    ];
    assert_eq!(found, expected);
}

/// The names on the way from the crate's root, which itself has none.
type Module = Vec<String>;

/// A file uses something of another one.
struct Arrow {
    file: PathBuf,
    line: usize,
    path: Module,
    from: Module,
    to: Module,
}

impl Arrow {
    fn is_inside(&self) -> bool {
        room(&self.from) == room(&self.to)
    }

    fn is_upward(&self) -> bool {
        !self.is_inside() && layer(room(&self.to)) >= layer(room(&self.from))
    }
}

impl fmt::Display for Arrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cli/src/{}:{}: crate::{}", self.file.display(), self.line, self.path.join("::"))
    }
}

fn room(module: &Module) -> &str {
    module.first().map_or("lib", String::as_str)
}

fn layer(room: &str) -> usize {
    LAYERS.iter().position(|rooms| rooms.contains(&room)).unwrap_or_else(|| panic!("`{room}` has no layer"))
}

fn module(path: &str) -> Module {
    path.split("::").map(str::to_owned).collect()
}

/// Everything that a file of natsctl uses of another one.
fn arrows() -> Vec<Arrow> {
    let modules = modules();
    let mut arrows = Vec::new();
    for (from, file) in &modules {
        let text = fs::read_to_string(file).unwrap();
        for (line, path) in references(&text, from) {
            let module = (0..=path.len()).rev().map(|length| path[..length].to_vec()).find(|m| modules.contains_key(m));
            let to = module.expect("the root is a module");
            if to != *from {
                let file = file.strip_prefix(src()).unwrap().to_owned();
                arrows.push(Arrow { file, line, path, from: from.clone(), to });
            }
        }
    }
    arrows
}

/// The files of natsctl's library, by their modules.
fn modules() -> BTreeMap<Module, PathBuf> {
    let files = super::files("cli/src", "rs").into_iter().filter(|file| !file.ends_with("main.rs"));
    files.map(|file| (module_of(file.strip_prefix(src()).unwrap()), file)).collect()
}

fn module_of(file: &Path) -> Module {
    let mut names: Module = file.with_extension("").iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|name| name == "mod") || names == ["lib"] {
        names.pop();
    }
    names
}

fn src() -> PathBuf {
    super::root().join("cli/src")
}

fn reaches(used: &BTreeMap<&Module, BTreeSet<&Module>>, from: &Module, to: &Module) -> bool {
    let mut seen = BTreeSet::new();
    let mut left = vec![from];
    while let Some(module) = left.pop() {
        if module == to {
            return true;
        }
        if seen.insert(module) {
            left.extend(used.get(module).into_iter().flatten());
        }
    }
    false
}

/// Lines and paths, from the crate's root, of everything of this crate that the text of a module names.
fn references(text: &str, module: &Module) -> impl Iterator<Item = (usize, Module)> {
    let tokens = tokens(text, module);
    let word = |index: usize| tokens.get(index).map_or("", |token| token.text);
    let children: BTreeSet<&str> =
        (0..tokens.len()).filter(|i| word(*i) == "mod" && word(i + 2) == ";").map(|i| word(i + 1)).collect();
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let is_first = index == 0 || word(index - 1) != "::";
        let is_path = is_first && word(index + 1) == "::";
        let is_child = is_path && word(index.wrapping_sub(1)) == "use" && children.contains(token.text);
        if is_child || is_path && ["crate", "self", "super"].contains(&token.text) {
            let mut paths = Vec::new();
            tree(&tokens, index, &Vec::new(), &mut paths);
            found.extend(paths.into_iter().map(|path| (token.line, from_root(path, &token.module))));
        }
    }
    found.into_iter()
}

/// A word or a sign, with its line and the module that it is in.
struct Token<'a> {
    line: usize,
    text: &'a str,
    module: Module,
}

/// Words and signs without comments. Inline modules end where rustfmt puts their brace.
fn tokens<'a>(text: &'a str, module: &Module) -> Vec<Token<'a>> {
    let mut tokens = Vec::new();
    let mut module = module.clone();
    let mut inline: Vec<&str> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let indent = &line[..line.len() - line.trim_start().len()];
        if line.trim() == "}" && inline.last() == Some(&indent) {
            inline.pop();
            module.pop();
        }
        let words = words(line);
        let opened = words.iter().position(|word| *word == "mod").filter(|_| words.last() == Some(&"{"));
        let opened = opened.and_then(|at| words.get(at + 1).map(|name| (*name).to_owned()));
        tokens.extend(words.into_iter().map(|text| Token { line: index + 1, text, module: module.clone() }));
        if let Some(name) = opened {
            inline.push(indent);
            module.push(name);
        }
    }
    tokens
}

fn words(line: &str) -> Vec<&str> {
    let comment = line.starts_with("//").then_some(0).or_else(|| line.find(" //"));
    let mut rest = &line[..comment.unwrap_or(line.len())];
    let mut words = Vec::new();
    while let Some(first) = rest.chars().next() {
        let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let length = match first {
            ':' if rest.starts_with("::") => 2,
            letter if is_word(letter) => rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()),
            other => other.len_utf8(),
        };
        if !first.is_whitespace() {
            words.push(&rest[..length]);
        }
        rest = &rest[length..];
    }
    words
}

/// Adds every path of the tree that begins at `at`, each after `prefix`; gives where the tree ends.
fn tree(tokens: &[Token<'_>], mut at: usize, prefix: &Module, paths: &mut Vec<Module>) -> usize {
    let word = |index: usize| tokens.get(index).map_or("", |token| token.text);
    let mut path = prefix.clone();
    loop {
        match word(at) {
            "{" => {
                at += 1;
                while !["}", ""].contains(&word(at)) {
                    at = tree(tokens, at, &path, paths);
                    at += usize::from(word(at) == ",");
                }
                return at + 1;
            }
            name if name.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_') => {
                path.push(name.to_owned());
            }
            sign => {
                paths.push(path);
                return at + usize::from(sign == "*");
            }
        }
        if word(at + 1) != "::" {
            paths.push(path);
            return if word(at + 1) == "as" { at + 3 } else { at + 1 };
        }
        at += 2;
    }
}

/// A path as written in a module as one from the crate's root.
fn from_root(path: Module, module: &Module) -> Module {
    let mut base = if path[0] == "crate" { Vec::new() } else { module.clone() };
    for name in path {
        match name.as_str() {
            "crate" | "self" => {}
            "super" => drop(base.pop()),
            _ => base.push(name),
        }
    }
    base
}
