use futures::future::join_all;
use proto::payment::v1::{AccountKind, Money};
use sdk::Event as _;
use sdk::testing::{NatsServer, Time, as_request};
use std::time::Duration;

use super::*;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.bucket("ledger", 1).await;
    server.stream("AUDIT", &[Posted::SUBJECT, AccountOpened::SUBJECT]).await;
    server.outboxes(&["ledger"], "AUDIT").await;
    server
}

/// A service in whose ledger alice has 100 cents, which came from the bank.
async fn service(server: &NatsServer, time: &Time) -> Service {
    let service = Service::new(server.fleet_at("payment", time).await).await.unwrap();
    for (id, kind) in [("bank", AccountKind::External), ("alice", AccountKind::Wallet), ("shop", AccountKind::Wallet)] {
        service.opened(id, kind, "EUR").await.unwrap();
    }
    service.transferred("deposit", "bank", "alice", 100).await.unwrap();
    service
}

impl Service {
    async fn opened(&self, id: &str, kind: AccountKind, currency: &str) -> Result<Account, Error> {
        let request = OpenAccountRequest {
            meta: None,
            account_id: id.to_owned(),
            kind: kind.into(),
            currency: currency.to_owned(),
        };
        Ok(as_request(None, self.open_account(request)).await?.account.unwrap())
    }

    async fn transferred(&self, key: &str, from: &str, to: &str, minor_units: i64) -> Result<Entry, Error> {
        let request = TransferRequest {
            from_account_id: from.to_owned(),
            to_account_id: to.to_owned(),
            amount: Some(Money { currency: "EUR".to_owned(), minor_units }),
            ..TransferRequest::default()
        };
        Ok(as_request(Some(key), self.transfer(request)).await?.entry.unwrap())
    }

    async fn charged(&self, key: Option<&str>, minor_units: i64) -> Result<Entry, Error> {
        let request = ChargeRequest {
            account_id: "alice".to_owned(),
            payee_account_id: "shop".to_owned(),
            amount: Some(Money { currency: "EUR".to_owned(), minor_units }),
            ..ChargeRequest::default()
        };
        Ok(as_request(key, self.charge(request)).await?.entry.unwrap())
    }

    async fn refunded(&self, key: &str, charge_id: &str, amount_minor: i64) -> Result<Entry, Error> {
        let request = RefundRequest { charge_id: charge_id.to_owned(), amount_minor, ..RefundRequest::default() };
        Ok(as_request(Some(key), self.refund(request)).await?.entry.unwrap())
    }

    async fn balances(&self) -> [i64; 3] {
        let mut balances = [0; 3];
        for (balance, id) in balances.iter_mut().zip(["bank", "alice", "shop"]) {
            let request = BalanceRequest { meta: None, account_id: id.to_owned() };
            *balance = self.balance(request).await.unwrap().account.unwrap().balance_minor;
        }
        balances
    }

    async fn page(&self, page_size: u32, page_token: &str) -> Result<HistoryResponse, Error> {
        let page_token = page_token.to_owned();
        self.history(HistoryRequest { meta: None, account_id: "alice".to_owned(), page_size, page_token }).await
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>, code: Code, because: &str) {
    let error = outcome.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert!(error.detail(sdk::reason::KEY) == Some(because) || error.message().contains(because), "{error:?}");
}

#[tokio::test]
async fn money_is_charged_and_refunded_with_an_audit_event_for_each_entry() {
    let server = server().await;
    let service = service(&server, &Time::default()).await;
    let charge = service.charged(Some("c"), 30).await.unwrap();
    assert_eq!(service.balances().await, [-100, 70, 30]);
    let refund = service.refunded("r", &charge.id, 10).await.unwrap();
    assert_eq!(service.balances().await, [-100, 80, 20]);

    let page = service.page(2, "").await.unwrap();
    assert_eq!(page.entries.iter().map(|entry| &entry.id).collect::<Vec<_>>(), [&refund.id, &charge.id]);
    assert_eq!(page.entries[1].refunded_minor, 10);
    let rest = service.page(2, &page.next_page_token).await.unwrap();
    assert_eq!((rest.entries.len(), &*rest.next_page_token), (1, ""));

    let stored = server.stored_from(&["ledger"], "AUDIT").await;
    let subjects: Vec<&str> = stored.iter().map(|stored| &*stored.subject).collect();
    let (opened, posted) = ("audit.payment.account_opened.v1", "audit.payment.posted.v1");
    assert_eq!(subjects, [opened, opened, opened, posted, posted, posted]);
}

#[tokio::test]
async fn an_idempotency_key_is_remembered_for_ever() {
    let server = server().await;
    let time = Time::default();
    let service = service(&server, &time).await;
    let first = service.charged(Some("c"), 30).await.unwrap();
    let check = async || {
        assert_eq!(service.charged(Some("c"), 30).await.unwrap(), first);
        refused(service.charged(Some("c"), 31).await, Code::FailedPrecondition, "idempotency_key_reused");
        refused(
            service.transferred("c", "alice", "shop", 30).await,
            Code::FailedPrecondition,
            "idempotency_key_reused",
        );
    };
    check().await;
    time.pass(10 * YEAR);
    check().await;
    assert_eq!(service.balances().await, [-100, 70, 30]);
}

#[tokio::test]
async fn what_the_ledger_refuses_says_why_and_changes_nothing() {
    let server = server().await;
    let service = service(&server, &Time::default()).await;
    let charge = service.charged(Some("c"), 30).await.unwrap();
    refused(service.charged(None, 1).await, Code::InvalidArgument, "idempotency key is missing");
    refused(service.charged(Some("k"), 71).await, Code::FailedPrecondition, "insufficient_funds");
    refused(service.refunded("k", &charge.id, 31).await, Code::FailedPrecondition, "refund_exceeds_charge");
    refused(service.refunded("k", &"0".repeat(24), 1).await, Code::NotFound, "does not exist");
    refused(service.refunded("k", "x", 1).await, Code::InvalidArgument, "charge_id must be the id of an entry");
    refused(service.transferred("k", "alice", "nobody", 1).await, Code::NotFound, "account `nobody` does not exist");
    refused(service.opened("alice", AccountKind::Wallet, "JPY").await, Code::AlreadyExists, "currency EUR");
    refused(service.opened("new", AccountKind::Unspecified, "EUR").await, Code::InvalidArgument, "kind is missing");
    refused(service.page(101, "").await, Code::InvalidArgument, "page_size is 101, it must be 1 to 100");
    assert_eq!(service.balances().await, [-100, 70, 30]);
}

#[tokio::test]
async fn two_tasks_lose_and_double_nothing() {
    let server = server().await;
    let time = Time::default();
    let services = [service(&server, &time).await, service(&server, &time).await];
    // Each key twice, by two tasks at once.
    let charges = (0..40_usize).map(|number| {
        let service = &services[number % 2];
        async move {
            let key = format!("c{}", number / 2);
            loop {
                match service.charged(Some(&key), 3).await {
                    Err(error) if error.code() == Code::Aborted => {}
                    outcome => return outcome,
                }
            }
        }
    });
    for outcome in join_all(charges).await {
        outcome.unwrap();
    }
    assert_eq!(services[0].balances().await, [-100, 40, 60]);
    let audited = server.stored_from(&["ledger"], "AUDIT").await;
    assert_eq!(audited.iter().filter(|stored| stored.subject == Posted::SUBJECT).count(), 21);
}
