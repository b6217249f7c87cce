//! Compiles the `.proto` files of a folder, with their comments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use miette::Diagnostic as _;
use prost_types::FileDescriptorSet;

use crate::problem::{Place, Problem, Problems, position, read};

/// Compiles all `.proto` files in a folder; what they import is among the result.
///
/// # Errors
/// Everything that is wrong with any of the files.
pub(super) fn compile(folder: &Path) -> Result<FileDescriptorSet, Problems> {
    let files = files(folder).map_err(|error| {
        let message = format!("cannot read `{}`: {error}", folder.display());
        Problem::new(&Place::start_of(folder), message)
    })?;
    let mut compiler = protox::Compiler::new([folder]).map_err(|error| refused(folder, &error))?;
    compiler.include_source_info(true).include_imports(true);
    // The compiler reads whatever there is under such a name.
    let unreadable: Vec<Problem> = files.iter().filter_map(|file| read(file).err()).collect();
    Problems::from(unreadable).none_or(())?;
    let broken = files.iter().filter_map(|file| compiler.open_file(file).err());
    let broken: Vec<Problem> = broken.map(|error| refused(folder, &error)).collect();
    Problems::from(broken).none_or(())?;
    Ok(compiler.file_descriptor_set())
}

/// The comments before services, rpcs and messages, by their full names: `quest.v1.Quest`, `quest.v1.Quest/Generate`.
///
/// # Errors
/// Everything that is wrong with any of the files.
pub(crate) fn comments(folder: &Path) -> Result<BTreeMap<String, String>, Problems> {
    let mut comments = BTreeMap::new();
    for file in compile(folder)?.file {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        let written: BTreeMap<&[i32], &str> = locations
            .filter_map(|location| Some((location.path.as_slice(), location.leading_comments.as_deref()?.trim())))
            .collect();
        let mut add = |name: String, path: &[i32]| {
            if let Some(comment) = written.get(path) {
                comments.insert(name, (*comment).to_owned());
            }
        };
        let package = file.package();
        for (index, message) in (0..).zip(&file.message_type) {
            add(format!("{package}.{}", message.name()), &[path::MESSAGE, index]);
        }
        for (index, service) in (0..).zip(&file.service) {
            let name = format!("{package}.{}", service.name());
            for (method_index, method) in (0..).zip(&service.method) {
                add(format!("{name}/{}", method.name()), &[path::SERVICE, index, path::METHOD, method_index]);
            }
            add(name, &[path::SERVICE, index]);
        }
    }
    Ok(comments)
}

fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(self::files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What the compiler says, at the place that it means.
fn refused(folder: &Path, error: &protox::Error) -> Problem {
    let Some(file) = error.file().map(|file| folder.join(file)) else {
        return Problem::new(&Place::start_of(folder), error.to_string());
    };
    let label = error.labels().and_then(|mut labels| labels.next());
    let (line, column) = match (label, read(&file)) {
        (Some(label), Ok(text)) => position(&text, label.offset()),
        _ => (1, 1),
    };
    let problem = Problem::new(&Place { file, line, column }, error.to_string());
    match error.help() {
        Some(help) => problem.hint(help.to_string()),
        None => problem,
    }
}

/// Numbers of fields in `descriptor.proto`, of which paths consist.
pub(super) mod path {
    pub(in crate::contract) const PACKAGE: i32 = 2;
    pub(in crate::contract) const MESSAGE: i32 = 4;
    pub(in crate::contract) const ENUM: i32 = 5;
    pub(in crate::contract) const SERVICE: i32 = 6;
    pub(in crate::contract) const METHOD: i32 = 2;
    pub(in crate::contract) const VALUE: i32 = 2;
    pub(in crate::contract) const FIELD: i32 = 2;
    pub(in crate::contract) const NESTED_MESSAGE: i32 = 3;
    pub(in crate::contract) const NESTED_ENUM: i32 = 4;
    pub(in crate::contract) const RESERVED_RANGE: i32 = 9;
}
