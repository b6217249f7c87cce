use proto::payment::v1::{ChargeRequest, ChargeResponse, Entry, Money, RefundRequest};

use super::*;
use crate::testing::{METHODS, call, input, json};

fn charge() -> Call {
    call("payment.v1.Payment/Charge", &[("account_id", "alice")])
}

fn refund() -> Call {
    METHODS.checked("c", call("payment.v1.Payment/Refund", &[("amount_minor", "5")])).unwrap()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>, message: &str) {
    let error = outcome.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, message));
}

#[test]
fn what_the_manifest_says_is_called_may_be_called() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/services");
    let manifest = |name: &str| std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
    let own = manifest("orchestration");
    let calls = own.lines().find_map(|line| line.strip_prefix("calls: [")?.strip_suffix(']')).unwrap();
    let mut called: Vec<String> = Vec::new();
    for service in calls.split(", ") {
        let text = manifest(service);
        let serves = text.lines().find_map(|line| line.strip_prefix("serves: [")?.strip_suffix(']')).unwrap();
        called.extend(serves.split(", ").map(str::to_owned));
    }
    called.sort_unstable();
    assert_eq!(called, SERVICES.map(|service| service.package));
}

#[test]
fn a_method_is_named_in_full_or_by_its_subject() {
    for name in ["payment.v1.Payment/Charge", "svc.payment.v1.charge"] {
        let checked = METHODS.checked("c", Call { method: name.to_owned(), ..charge() }).unwrap();
        assert_eq!(checked.method, "payment.v1.Payment/Charge");
        let request = ChargeRequest::decode(encoded(checked.request.as_ref())).unwrap();
        assert_eq!(request.account_id, "alice");
    }
    assert!(accepted().all(|method| method.idempotent && !method.streaming) && accepted().count() > 20);
}

#[test]
fn a_method_that_may_not_be_called_is_refused_with_those_that_may() {
    let check = |name: &str, message: &str| refused(METHODS.checked("step `a`", call(name, &[])), message);
    let services = "it must be a method of payment.v1.Payment, quest.v1.Quest, state.manager.v1.StateManager, \
                    story.v1.StoryTeller, time.v1.TimeManager, world.state.v1.WorldState";
    check("auth.v1.Auth/Login", &format!("method of step `a` is `auth.v1.Auth/Login`, {services}"));
    check("\0", &format!("method of step `a` is `\\0`, {services}"));
    let payment = "it must be one of payment.v1.Payment/OpenAccount, payment.v1.Payment/Transfer, \
                   payment.v1.Payment/Charge, payment.v1.Payment/Refund, payment.v1.Payment/Balance, \
                   payment.v1.Payment/History";
    for name in ["payment.v1.Payment/Rob", "svc.payment.v1.rob"] {
        check(name, &format!("method of step `a` is `{name}`, {payment}"));
    }
    // Streams are not called.
    let error = METHODS.checked("c", call("world.state.v1.WorldState/Snapshot", &[])).unwrap_err();
    assert!(!error.message().contains("WorldState/Snapshot,"), "{error}");
}

#[test]
fn a_request_is_checked_and_loses_its_metadata() {
    let request = ChargeRequest {
        meta: Some(proto::common::v1::Meta { idempotency_key: "k".to_owned(), ..Default::default() }),
        amount: Some(Money { currency: "EUR".to_owned(), minor_units: 7 }),
        ..ChargeRequest::default()
    };
    let bytes =
        |bytes: Vec<u8>| Call { request: Some(Payload { form: Some(Form::Encoded(bytes.into())) }), ..charge() };
    let checked = METHODS.checked("c", bytes(request.encode_to_vec())).unwrap();
    let expected = ChargeRequest { meta: None, ..request };
    assert_eq!(ChargeRequest::decode(encoded(checked.request.as_ref())), Ok(expected));
    assert_eq!(encoded(METHODS.checked("c", Call { request: None, ..charge() }).unwrap().request.as_ref()), "");

    let no_request = "request of c is no `payment.v1.ChargeRequest`: ";
    for call in [bytes(vec![0xff]), bytes(vec![0xf8, 0x01, 0x01]), call("payment.v1.Payment/Charge", &[("nmae", "x")])]
    {
        let error = METHODS.checked("c", call).unwrap_err();
        assert!(error.message().starts_with(no_request), "{error}");
    }
    let large = ChargeRequest { description: "x".repeat(MAX_REQUEST), ..ChargeRequest::default() };
    let error = METHODS.checked("c", bytes(large.encode_to_vec())).unwrap_err();
    assert_eq!(error.message(), "request of c has 16388 bytes, at most 16384 are allowed");
    let inputs = vec![input("a", "b", "c"); 9];
    refused(METHODS.checked("c", Call { inputs, ..charge() }), "there are 9 inputs of c, at most 8 are allowed");
}

#[test]
fn an_input_fits_both_messages() {
    let check = |from: &str, to: &str| METHODS.check_input("c", &refund(), &input("a", from, to), &charge());
    assert_eq!(check("entry.id", "charge_id"), Ok(()));
    refused(
        check("entry.refunded_minor", "charge_id"),
        "input of c sets `charge_id`, which is string, to `entry.refunded_minor`, which is int64",
    );
    let response = |path| format!("`from` of an input of c: `payment.v1.ChargeResponse` has no single field `{path}`");
    for path in ["", "entry.nothing", "entry.postings", "entry.postings.amount_minor", "error", "entry.id.x"] {
        refused(check(path, "charge_id"), &response(path));
    }
    refused(
        check("entry.id", "meta.idempotency_key"),
        "`to` of an input of c: `payment.v1.RefundRequest` has no single field `meta.idempotency_key`",
    );
}

#[test]
fn a_request_is_filled_in_from_a_response() {
    let response = |entry: Option<Entry>| Bytes::from(ChargeResponse { error: None, entry }.encode_to_vec());
    let fill = |from: &str, response: &Bytes| {
        let filled = METHODS.filled(&refund(), &input("a", from, "charge_id"), &charge(), response)?;
        Ok(RefundRequest::decode(encoded(Some(&filled))).unwrap())
    };
    let entry = Entry { id: "e1".to_owned(), ..Entry::default() };
    let filled = RefundRequest { charge_id: "e1".to_owned(), amount_minor: 5, ..RefundRequest::default() };
    assert_eq!(fill("entry.id", &response(Some(entry))), Ok(filled));
    // A field without presence has its default.
    assert_eq!(fill("entry.id", &response(Some(Entry::default()))).unwrap().charge_id, "");
    let error: Error = fill("entry.id", &response(None)).unwrap_err();
    assert_eq!(error.message(), "the response of step `a` has no `entry.id`");
    let long = Entry { id: "x".repeat(MAX_REQUEST), ..Entry::default() };
    assert_eq!(fill("entry.id", &response(Some(long))).unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(fill("entry.id", &Bytes::from_static(&[0xff])).unwrap_err().code(), Code::DataLoss);
}

#[test]
fn what_is_stored_is_shown_in_json_if_it_is_readable() {
    assert_eq!(METHODS.shown(refund()).request, Some(json(&[("amountMinor", "5")])));
    let stored = Payload { form: Some(Form::Encoded(Bytes::from_static(&[0xff]))) };
    assert_eq!(METHODS.shown_response(&charge(), stored.clone()), stored);
    let removed = Call { method: "payment.v1.Payment/Removed".to_owned(), ..refund() };
    assert_eq!(METHODS.shown(removed.clone()), removed);
}
