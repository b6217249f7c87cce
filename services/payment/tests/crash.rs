//! Tasks that are killed at any moment while they post: nothing is lost, and nothing is doubled.

use std::time::Duration;

use futures::future::join_all;
use proto::audit::payment::v1::{AccountOpened, Posted};
use proto::payment::v1::{
    Account, AccountKind, BalanceRequest, HistoryRequest, Money, OpenAccountRequest, Payment as _, PaymentClient,
    TransferRequest,
};
use sdk::testing::{NatsServer, Program, as_request, kills};
use sdk::{Code, Error, Event as _};
use tokio::time::timeout;

/// How often tasks are killed, unless `KILLS` says otherwise.
const KILLS: usize = 6;
/// Transfers for each kill.
const TRANSFERS: usize = 8;
const ACCOUNTS: usize = 6;
/// The account that all money comes from.
const BANK: usize = 0;

/// A task of the service.
fn task(server: &NatsServer) -> Program {
    Program::start(env!("CARGO_BIN_EXE_payment"), "payment", server)
}

fn id(account: usize) -> String {
    format!("a{account}")
}

/// Repeats a call until it has an outcome: while tasks die, calls have none.
async fn until_known<T>(key: Option<&str>, call: impl AsyncFn() -> Result<T, Error>) -> T {
    loop {
        match as_request(key, call()).await {
            Ok(done) => return done,
            Err(error) if matches!(error.code(), Code::Unavailable | Code::Aborted | Code::Internal) => {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(5..40))).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// One transfer: its key, and between which accounts it moves how much.
#[derive(Clone, Debug)]
struct Transfer {
    key: String,
    from: usize,
    to: usize,
    minor_units: i64,
}

impl Transfer {
    /// Money comes from the bank to each account in turn, so that all of them are written to at once.
    fn numbered(number: usize) -> Self {
        let to = 1 + number % (ACCOUNTS - 1);
        Self { key: format!("t{number}"), from: BANK, to, minor_units: 1 + fastrand::i64(0..1_000) }
    }

    async fn carry_out(&self, client: &PaymentClient) {
        let request = TransferRequest {
            from_account_id: id(self.from),
            to_account_id: id(self.to),
            amount: Some(Money { currency: "EUR".to_owned(), minor_units: self.minor_units }),
            ..TransferRequest::default()
        };
        until_known(Some(&self.key), async || client.transfer(request.clone()).await).await;
    }
}

async fn account(client: &PaymentClient, number: usize) -> Account {
    let request = BalanceRequest { meta: None, account_id: id(number) };
    until_known(None, async || client.balance(request.clone()).await).await.account.unwrap()
}

/// The number of entries of an account and their sum, as its history tells.
async fn history(client: &PaymentClient, number: usize) -> (u64, i64) {
    let (mut count, mut sum) = (0, 0);
    let mut request = HistoryRequest { account_id: id(number), page_size: 50, ..HistoryRequest::default() };
    loop {
        let page = until_known(None, async || client.history(request.clone()).await).await;
        for posting in page.entries.iter().flat_map(|entry| &entry.postings) {
            if posting.account_id == request.account_id {
                (count, sum) = (count + 1, sum + posting.amount_minor);
            }
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return (count, sum);
        }
    }
}

#[tokio::test]
async fn no_posting_is_lost_or_doubled_however_often_tasks_are_killed() {
    let kills = kills(KILLS);
    let server = NatsServer::start();
    server.bucket("ledger", 1).await;
    server.stream("AUDIT", &[Posted::SUBJECT, AccountOpened::SUBJECT]).await;
    server.outboxes(&["ledger"], "AUDIT").await;
    let client: PaymentClient = server.fleet("caller").await.client();
    let steady = task(&server);
    for number in 0..ACCOUNTS {
        let kind = if number == BANK { AccountKind::External } else { AccountKind::Wallet };
        let request =
            OpenAccountRequest { meta: None, account_id: id(number), kind: kind.into(), currency: "EUR".to_owned() };
        until_known(None, async || client.open_account(request.clone()).await).await;
    }
    drop(steady);

    let transfers: Vec<Transfer> = (0..kills * TRANSFERS).map(Transfer::numbered).collect();
    for batch in transfers.chunks(TRANSFERS) {
        let task = task(&server);
        let load = join_all(batch.iter().map(|transfer| transfer.carry_out(&client)));
        // From before it has connected until after it has posted all of them.
        let _ = timeout(Duration::from_micros(fastrand::u64(0..400_000)), load).await;
        drop(task);
    }
    // Whoever had no answer asks again; so do those who had one.
    let tasks = [task(&server), task(&server)];
    for batch in transfers.chunks(TRANSFERS) {
        join_all(batch.iter().map(|transfer| transfer.carry_out(&client))).await;
    }

    let mut balances = 0;
    for number in 0..ACCOUNTS {
        let account = account(&client, number).await;
        let own = transfers.iter().filter(|transfer| number == BANK || transfer.to == number);
        let sign = if number == BANK { -1 } else { 1 };
        let expected = (own.clone().count() as u64, sign * own.map(|transfer| transfer.minor_units).sum::<i64>());
        assert_eq!((account.entries, account.balance_minor), expected, "account {number}");
        assert_eq!(history(&client, number).await, expected, "history of account {number}");
        balances += account.balance_minor;
    }
    assert_eq!(balances, 0);
    let audited = server.stored_from(&["ledger"], "AUDIT").await;
    let posted = audited.iter().filter(|stored| stored.subject == Posted::SUBJECT).count();
    assert_eq!(posted, transfers.len(), "one audit event for each posting");
    drop(tasks);
}
