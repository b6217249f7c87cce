use proptest::prelude::*;
use proto::payment::v1::{OpenAccountRequest, RefundRequest};

use super::*;

const NOW: Timestamp = Timestamp { seconds: 1_800_000_000, nanos: 0 };

fn account(id: &str, kind: AccountKind, balance_minor: i64) -> Account {
    let request =
        OpenAccountRequest { meta: None, account_id: id.to_owned(), kind: kind.into(), currency: "EUR".to_owned() };
    Account { balance_minor, ..opened(request, NOW).unwrap() }
}

fn euros(minor_units: i64) -> Option<Money> {
    Some(Money { currency: "EUR".to_owned(), minor_units })
}

fn charge(amount: Option<Money>) -> Result<Movement, Error> {
    let (account_id, payee_account_id) = ("alice".to_owned(), "shop".to_owned());
    Movement::charge(ChargeRequest { meta: None, account_id, payee_account_id, amount, description: String::new() })
}

fn wallets(alice: i64, shop: i64) -> [Account; 2] {
    [("alice", alice), ("shop", shop)].map(|(id, balance)| account(id, AccountKind::Wallet, balance))
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>, code: Code, because: &str) {
    let error = outcome.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    let said = error.detail(reason::KEY).unwrap_or(error.message());
    assert!(said.contains(because), "{error:?}");
}

#[test]
fn a_charge_moves_money_and_tells_both_accounts() {
    let posted = charge(euros(30)).unwrap().post("e2", wallets(100, 5), None, NOW).unwrap();
    assert_eq!(posted.accounts.clone().map(|account| (account.balance_minor, account.entries)), [(70, 1), (35, 1)]);
    let postings: Vec<_> = posted.entry.postings.iter().map(|it| (it.amount_minor, it.balance_minor)).collect();
    assert_eq!(postings, [(-30, 70), (30, 35)]);
    let next = charge(euros(1)).unwrap().post("e3", posted.accounts, None, NOW).unwrap();
    assert_eq!(previous(&next.entry, "alice"), Some("e2"));
    assert_eq!(previous(&next.entry, "bob"), None);
}

#[test]
fn what_a_movement_must_not_do_is_refused() {
    let post = |amount, accounts| charge(amount).unwrap().post("e", accounts, None, NOW);
    refused(post(euros(101), wallets(100, 0)), Code::FailedPrecondition, "insufficient_funds");
    refused(post(euros(1), wallets(100, i64::MAX)), Code::OutOfRange, "too large");
    let yen = Some(Money { currency: "JPY".to_owned(), minor_units: 1 });
    refused(post(yen, wallets(100, 0)), Code::FailedPrecondition, "currency_mismatch");
    let bank = || account("bank", AccountKind::External, 0);
    let [_, shop] = wallets(0, 0);
    assert_eq!(post(euros(7), [bank(), shop]).unwrap().accounts[0].balance_minor, -7);
}

#[test]
fn amounts_and_currencies_are_checked() {
    for minor_units in [0, -1, MAX_AMOUNT + 1, i64::MIN] {
        refused(charge(euros(minor_units)), Code::InvalidArgument, "amount.minor_units is");
    }
    for currency in ["", "eur", "EURO", "XAU", "XXX", "XTS", "CHW", "\u{1b}"] {
        let amount = Some(Money { currency: currency.to_owned(), minor_units: 1 });
        refused(charge(amount), Code::InvalidArgument, "must be the code of a currency in ISO 4217");
    }
    refused(charge(None), Code::InvalidArgument, "amount is missing");
    for (currency, digits) in [("EUR", 2), ("JPY", 0), ("KWD", 3)] {
        assert_eq!(minor_digits("currency", currency), Ok(digits));
    }
}

#[test]
fn a_movement_needs_two_accounts_and_a_short_description() {
    let transfer = |to: &str, description: &str| {
        Movement::transfer(TransferRequest {
            from_account_id: "alice".to_owned(),
            to_account_id: to.to_owned(),
            amount: euros(1),
            description: description.to_owned(),
            ..TransferRequest::default()
        })
    };
    assert!(transfer("bob", &"x".repeat(256)).is_ok());
    refused(transfer("alice", ""), Code::InvalidArgument, "two accounts");
    refused(transfer("a.b", ""), Code::InvalidArgument, "to_account_id must be");
    refused(transfer("bob", &"x".repeat(257)), Code::InvalidArgument, "at most 256");
}

fn refund(charge: &Entry, amount_minor: i64) -> Result<Movement, Error> {
    let RefundRequest { description, .. } = RefundRequest::default();
    Movement::refund(charge, amount_minor, description)
}

#[test]
fn no_more_than_was_paid_is_refunded() {
    let paid = charge(euros(30)).unwrap().post("e1", wallets(100, 0), None, NOW).unwrap();
    let [alice, shop] = paid.accounts;
    let first = refund(&paid.entry, 20).unwrap().post("e2", [shop, alice], Some(paid.entry.clone()), NOW).unwrap();
    assert_eq!(first.entry.charge_id, "e1");
    let charge = first.charge.unwrap();
    assert_eq!(charge.refunded_minor, 20);
    refused(
        refund(&charge, 11).unwrap().post("e3", first.accounts.clone(), Some(charge.clone()), NOW),
        Code::FailedPrecondition,
        "refund_exceeds_charge",
    );
    assert!(refund(&charge, 10).unwrap().post("e3", first.accounts, Some(charge), NOW).is_ok());
    refused(refund(&first.entry, 1), Code::NotFound, "charge `e2` does not exist");
    refused(refund(&paid.entry, 0), Code::InvalidArgument, "amount_minor is 0");
}

#[test]
fn an_account_is_not_opened_as_something_else() {
    let wallet = account("a", AccountKind::Wallet, 7);
    assert_eq!(check_same(&wallet, &account("a", AccountKind::Wallet, 0)), Ok(()));
    refused(check_same(&wallet, &account("a", AccountKind::External, 0)), Code::AlreadyExists, "ACCOUNT_KIND_WALLET");
}

proptest! {
    #[test]
    fn the_sum_of_all_balances_is_zero_whatever_is_posted(moves in prop::collection::vec((0..4_usize, 0..4_usize, 1..200_i64), 0..60)) {
        let mut accounts: Vec<Account> = (0..4).map(|number| account(&format!("a{number}"), AccountKind::Wallet, 0)).collect();
        accounts[0] = account("a0", AccountKind::External, 0);
        let mut entries = Vec::new();
        for (number, (from, to, amount)) in moves.into_iter().enumerate() {
            let request = TransferRequest {
                from_account_id: format!("a{from}"),
                to_account_id: format!("a{to}"),
                amount: euros(amount),
                ..TransferRequest::default()
            };
            let pair = [accounts[from].clone(), accounts[to].clone()];
            let posted = Movement::transfer(request).and_then(|it| it.post(&format!("e{number}"), pair, None, NOW));
            if let Ok(Posted { entry, accounts: [payer, payee], .. }) = posted {
                prop_assert_eq!(entry.postings.iter().map(|posting| posting.amount_minor).sum::<i64>(), 0);
                (accounts[from], accounts[to]) = (payer, payee);
                entries.push(entry);
            }
        }
        prop_assert_eq!(accounts.iter().map(|account| account.balance_minor).sum::<i64>(), 0);
        prop_assert!(accounts[1..].iter().all(|account| account.balance_minor >= 0));
        for account in &accounts {
            let postings = entries.iter().flat_map(|entry| &entry.postings).filter(|it| it.account_id == account.id);
            prop_assert_eq!(postings.map(|posting| posting.amount_minor).sum::<i64>(), account.balance_minor);
        }
    }
}
