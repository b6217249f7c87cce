//! A ledger in double entry. An entry and its two accounts are written together, or not at all; the key of an entry is made of
//! the idempotency key, so that none is posted twice.

mod currency;
mod key;
mod ledger;

use proto::audit::payment::v1::{AccountOpened, Posted};
use proto::payment::v1::{
    Account, BalanceRequest, BalanceResponse, ChargeRequest, ChargeResponse, Entry, HistoryRequest, HistoryResponse,
    OpenAccountRequest, OpenAccountResponse, Payment, PaymentServer, RefundRequest, RefundResponse, StoredItem,
    TransferRequest, TransferResponse,
};
use sdk::{Code, Error, Fleet, Next, Operation, Records, Stored, check_range};

use crate::key::Key;
use crate::ledger::Movement;

/// Entries of a page of the history.
const DEFAULT_PAGE: u32 = 20;
const MAX_PAGE: u32 = 100;

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(PaymentServer).run()
}

struct Service {
    fleet: Fleet,
    ledger: Records<StoredItem>,
}

impl Payment for Service {
    async fn open_account(&self, request: OpenAccountRequest) -> Result<OpenAccountResponse, Error> {
        let operation = Operation::of(&request);
        let key = Key::account("account_id", &request.account_id)?;
        let opened = ledger::opened(request, self.fleet.clock().now().into())?;
        let open = |current: Option<&Stored<StoredItem>>| {
            if let Some(current) = current {
                ledger::check_same(&account(&key, Some(current))?, &opened)?;
                return Ok(Next::keep());
            }
            let event = AccountOpened { meta: None, account: Some(opened.clone()) };
            Ok(Next::write(of_account(opened.clone())).and_publish(event))
        };
        let stored = self.ledger.change(&key, &operation, open).await?;
        Ok(account(&key, Some(&stored))?.into())
    }

    async fn transfer(&self, request: TransferRequest) -> Result<TransferResponse, Error> {
        let operation = Operation::of(&request);
        Ok(self.post(&operation, &Movement::transfer(request)?).await?.into())
    }

    async fn charge(&self, request: ChargeRequest) -> Result<ChargeResponse, Error> {
        let operation = Operation::of(&request);
        Ok(self.post(&operation, &Movement::charge(request)?).await?.into())
    }

    async fn refund(&self, request: RefundRequest) -> Result<RefundResponse, Error> {
        let operation = Operation::of(&request);
        let charge = self.entry(&Key::entry("charge_id", &request.charge_id)?).await?;
        let movement = Movement::refund(&charge, request.amount_minor, request.description)?;
        Ok(self.post(&operation, &movement).await?.into())
    }

    async fn balance(&self, request: BalanceRequest) -> Result<BalanceResponse, Error> {
        Ok(self.account(&Key::account("account_id", &request.account_id)?).await?.into())
    }

    async fn history(&self, request: HistoryRequest) -> Result<HistoryResponse, Error> {
        let account = self.account(&Key::account("account_id", &request.account_id)?).await?;
        let size = match request.page_size {
            0 => DEFAULT_PAGE,
            size => check_range("page_size", size, 1..=MAX_PAGE)?,
        };
        let mut next = match request.page_token {
            token if token.is_empty() => account.last_entry_id,
            token => Key::entry("page_token", &token)?.id().to_owned(),
        };
        let mut entries = Vec::new();
        while !next.is_empty() && entries.len() < size as usize {
            let entry = self.entry(&Key::Entry(next)).await?;
            let Some(previous) = ledger::previous(&entry, &account.id) else {
                return Err(Error::invalid(format_args!("page_token is not of account `{}`", account.id)));
            };
            next = previous.to_owned();
            entries.push(entry);
        }
        Ok(HistoryResponse { error: None, entries, next_page_token: next })
    }
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let ledger = fleet.records("ledger").await?;
        Ok(Self { fleet, ledger })
    }

    /// Posts a movement, unless its operation has posted one: then that is the answer.
    async fn post(&self, operation: &Operation, movement: &Movement) -> Result<Entry, Error> {
        if !operation.has_key() {
            return Err(Error::invalid("the idempotency key is missing: what moves money needs one"));
        }
        let now = self.fleet.clock().now();
        let posted_by = operation.remembered(now);
        let entry_key = Key::of_operation(operation);
        let mut keys = vec![&entry_key, &movement.from, &movement.to];
        keys.extend(&movement.charge);
        let post = |current: &[Option<Stored<StoredItem>>]| {
            let found = |index: usize| current.get(index).and_then(Option::as_ref);
            if let Some(posted) = found(0) {
                posted.value.posted_by.as_ref().map_or(Ok(true), |posted_by| operation.is(posted_by))?;
                return Ok(current.iter().map(|_| Next::keep()).collect());
            }
            let accounts = [account(&movement.from, found(1))?, account(&movement.to, found(2))?];
            let charge = movement.charge.as_ref().map(|key| entry(key, found(3))).transpose()?;
            let posted = movement.post(entry_key.id(), accounts, charge, now.into())?;
            let event = Posted { meta: None, entry: Some(posted.entry.clone()) };
            let item = StoredItem { posted_by: Some(posted_by.clone()), ..of_entry(posted.entry) };
            let mut next = vec![Next::write(item).and_publish(event)];
            next.extend(posted.accounts.map(|account| Next::write(of_account(account))));
            if let (Some(charge), Some(stored)) = (posted.charge, found(3)) {
                next.push(Next::write(StoredItem { entry: Some(charge), ..stored.value.clone() }));
            }
            Ok(next)
        };
        let changed = self.ledger.change_all(&keys, operation, post).await?;
        entry(&entry_key, changed.first().and_then(Option::as_ref))
    }

    async fn account(&self, key: &Key) -> Result<Account, Error> {
        account(key, self.ledger.find(key).await?.as_ref())
    }

    async fn entry(&self, key: &Key) -> Result<Entry, Error> {
        entry(key, self.ledger.find(key).await?.as_ref())
    }
}

fn of_account(account: Account) -> StoredItem {
    StoredItem { account: Some(account), ..StoredItem::default() }
}

fn of_entry(entry: Entry) -> StoredItem {
    StoredItem { entry: Some(entry), ..StoredItem::default() }
}

fn account(key: &Key, stored: Option<&Stored<StoredItem>>) -> Result<Account, Error> {
    let stored = stored.ok_or_else(|| Error::not_found(key))?;
    stored.value.account.clone().ok_or_else(|| damaged(key))
}

fn entry(key: &Key, stored: Option<&Stored<StoredItem>>) -> Result<Entry, Error> {
    let stored = stored.ok_or_else(|| Error::not_found(key))?;
    stored.value.entry.clone().ok_or_else(|| damaged(key))
}

fn damaged(key: &Key) -> Error {
    Error::new(Code::DataLoss, format!("what is stored for {key} is something else"))
}

#[cfg(test)]
mod tests;
