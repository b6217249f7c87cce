//! Workflows for tests.

use std::sync::LazyLock;
use std::time::SystemTime;

use proto::orchestration::v1::payload::Form;
use proto::orchestration::v1::{Call, Input, Payload, Step, Workflow};
use proto::well_known::{Struct, Value, value::Kind};
use sdk::Error;

use crate::methods::Methods;
use crate::workflow::Draft;

/// The methods of the fleet's contracts.
pub(crate) static METHODS: LazyLock<Methods> = LazyLock::new(|| Methods::new().unwrap());

/// A JSON object of texts.
pub(crate) fn json(fields: &[(&str, &str)]) -> Payload {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect();
    Payload { form: Some(Form::Json(Struct { fields })) }
}

/// A call whose request says these texts.
pub(crate) fn call(method: &str, fields: &[(&str, &str)]) -> Call {
    Call { method: method.to_owned(), request: Some(json(fields)), inputs: Vec::new() }
}

pub(crate) fn input(step_id: &str, from: &str, to: &str) -> Input {
    Input { step_id: step_id.to_owned(), from: from.to_owned(), to: to.to_owned() }
}

/// A step that charges for something, with three repeats, and gives the money back as its compensation.
pub(crate) fn charge(id: &str) -> Step {
    let refund = Call {
        inputs: vec![input(id, "entry.id", "charge_id")],
        ..call("payment.v1.Payment/Refund", &[("amount_minor", "5")])
    };
    Step {
        id: id.to_owned(),
        call: Some(call("payment.v1.Payment/Charge", &[("account_id", id)])),
        compensation: Some(refund),
        retries: Some(3),
        ..Step::default()
    }
}

/// A step that has nothing to undo.
pub(crate) fn accept(id: &str) -> Step {
    let call = call("quest.v1.Quest/Accept", &[("player_id", "p"), ("quest_id", id)]);
    Step { id: id.to_owned(), call: Some(call), ..Step::default() }
}

/// A workflow of charges, not begun.
pub(crate) fn workflow(ids: &[&str]) -> Workflow {
    of(ids.iter().map(|id| charge(id)).collect())
}

/// A workflow of these steps, not begun.
pub(crate) fn of(steps: Vec<Step>) -> Workflow {
    made(steps).unwrap()
}

/// The same, or why it is refused.
pub(crate) fn made(steps: Vec<Step>) -> Result<Workflow, Error> {
    let mut draft = Draft::new(&METHODS, steps.len())?;
    steps.into_iter().try_for_each(|step| draft.add(step))?;
    Ok(draft.finish("w", "run".to_owned(), SystemTime::UNIX_EPOCH))
}
