//! Documents that are made of something else are current. `UPDATE=1 cargo test --package natsctl --test it docs::` writes them.

mod costs;
mod tables;

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn the_table_of_costs_is_made_of_the_prices() {
    current(&root().join("docs/costs.md"), &costs::document(&read(&root().join("terraform/costs/prices.yaml"))));
}

#[test]
fn every_size_that_is_paid_for_is_one_that_terraform_makes() {
    let prices = costs::Prices::parse(&read(&root().join("terraform/costs/prices.yaml")));
    for (environment, rows) in &prices.environments {
        let made = read(&root().join(format!("terraform/environments/{environment}/main.tf")));
        for size in rows.iter().map(|row| &row.price).filter(|price| price.contains('.')) {
            assert!(
                made.contains(&format!("\"{size}\"")),
                "`{environment}` has no `{size}`: see terraform/costs/prices.yaml"
            );
        }
    }
}

#[test]
fn every_module_has_a_table_of_its_inputs_and_outputs() {
    for folder in modules() {
        let readme = folder.join("README.md");
        let text = read(&readme);
        let (before, rest) =
            text.split_once(tables::BEGIN).unwrap_or_else(|| panic!("{} has no place for it", readme.display()));
        let (_, after) =
            rest.split_once(tables::END).unwrap_or_else(|| panic!("{} has no end of it", readme.display()));
        let table = tables::document(&sources(&folder, "variables"), &sources(&folder, "outputs"));
        current(&readme, &format!("{before}{}\n{table}{}{after}", tables::BEGIN, tables::END));
    }
}

/// Asserts that a file is as it should be, or writes it.
fn current(file: &Path, expected: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(file, expected).unwrap();
        return;
    }
    let found = fs::read_to_string(file).unwrap_or_default();
    let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    let hint = "run `UPDATE=1 cargo test --package natsctl --test it docs::`";
    assert!(found == expected, "{} is not current: {hint}\n{differs:#?}", file.display());
}

/// Folders with Terraform's modules and environments.
fn modules() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = ["modules", "environments"]
        .iter()
        .flat_map(|kind| fs::read_dir(root().join("terraform").join(kind)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    assert!(folders.len() > 5, "these are not all: {folders:?}");
    folders
}

/// `variables.tf`, and `variables_<purpose>.tf` if it was split.
fn sources(folder: &Path, kind: &str) -> String {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "tf"))
        .filter(|path| path.file_stem().unwrap().to_string_lossy().starts_with(kind))
        .collect();
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
