//! A plan in a file: saved by one command, reviewed, and carried out by another.

use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Hinted};
use crate::input;
use crate::model::change::Change;
use crate::model::plan::Plan;

/// A plan, with what it is a plan of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedPlan {
    pub(crate) environment: String,
    pub(crate) change: Change,
    pub(crate) plan: Plan,
}

impl SavedPlan {
    /// Reads what [`SavedPlan::write`] wrote.
    ///
    /// # Errors
    /// A file that cannot be read, or that is no plan.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let hint = "`natsctl plan --save FILE` writes one, and so do `--dry-run --save FILE` of other commands";
        let text = input::read(file).map_err(|error| error.or_hint(hint))?;
        Ok(serde_json::from_slice(&text)
            .map_err(|error| Hinted::new(format!("`{}` is not a saved plan: {error}", file.display()), hint))?)
    }

    /// Writes the plan, readable for people too.
    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        std::fs::write(file, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("failed to write `{}`", file.display()))
    }

    /// Refuses to carry out anything but what was reviewed.
    ///
    /// # Errors
    /// The plan is of another environment or another change, or the environment has changed since.
    pub(crate) fn refuse_others(&self, environment: &str, change: &Change, plan: &Plan) -> Result<(), Hinted> {
        if self.environment != environment {
            let message = format!("the plan is of environment `{}`, not `{environment}`", self.environment);
            return Err(Hinted::new(message, "name its environment with `--env`").code(Code::Refused));
        }
        if self.change != *change {
            let hint = "run the command that it was saved by, with the same services and options";
            return Err(
                Hinted::new("the plan is of another change than this command asks for", hint).code(Code::Refused)
            );
        }
        if self.plan == *plan {
            return Ok(());
        }
        let message = format!("the environment has changed since the plan was made; now it would be:\n{plan}");
        let hint = "review it, and save a new plan with `--save FILE`; nothing was changed";
        Err(Hinted::new(message, hint).code(Code::Refused))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_is_no_saved_plan_names_itself_and_how_to_write_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plan.json");
        let whole =
            SavedPlan { environment: "local".to_owned(), change: Change::Down { data: false }, plan: Plan::default() };
        whole.write(&file).unwrap();
        assert_eq!(SavedPlan::read(&file).unwrap(), whole);
        let text = fs::read(&file).unwrap();
        let check = |hint: &str| {
            let error = SavedPlan::read(&file).unwrap_err();
            assert!(format!("{error:#}").contains(&format!("`{}`", file.display())), "{error:#}");
            assert!(crate::error::hint(&error).unwrap().contains(hint), "{error:#}");
        };
        for content in [b"".as_slice(), &text[..text.len() / 2], b"\0\xff{nonsense", b"{}"] {
            fs::write(&file, content).unwrap();
            check("--save FILE");
        }
        fs::remove_file(&file).unwrap();
        check("--save FILE");
        fs::create_dir(&file).unwrap();
        check("regular file");
    }
}
