//! Double entry: what a movement of money does to the two accounts between which it moves.

use proto::payment::v1::{
    Account, AccountKind, ChargeRequest, Entry, EntryKind, Money, OpenAccountRequest, Posting, TransferRequest,
};
use proto::well_known::Timestamp;
use sdk::{Code, Error, check_range, check_text, choice, reason};

use crate::currency::{MAX_AMOUNT, amount, minor_digits};
use crate::key::Key;

/// Bytes of a description.
const MAX_DESCRIPTION: usize = 256;

/// A movement of money that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Movement {
    pub(crate) kind: EntryKind,
    pub(crate) from: Key,
    pub(crate) to: Key,
    amount: Money,
    description: String,
    /// Of a refund.
    pub(crate) charge: Option<Key>,
}

/// What a movement changes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Posted {
    pub(crate) entry: Entry,
    /// The account that paid and the one that was paid.
    pub(crate) accounts: [Account; 2],
    /// The charge that was refunded.
    pub(crate) charge: Option<Entry>,
}

/// The account that a request opens.
pub(crate) fn opened(request: OpenAccountRequest, now: Timestamp) -> Result<Account, Error> {
    let kind: AccountKind = choice("kind", request.kind)?;
    let minor_digits = minor_digits("currency", &request.currency)?;
    Ok(Account {
        id: request.account_id,
        kind: kind.into(),
        currency: request.currency,
        minor_digits,
        opened_at: Some(now),
        ..Account::default()
    })
}

/// Refuses to open an account anew as something else.
pub(crate) fn check_same(current: &Account, opened: &Account) -> Result<(), Error> {
    if current.kind == opened.kind && current.currency == opened.currency {
        return Ok(());
    }
    let (kind, currency) = (current.kind().as_str_name(), &current.currency);
    let message = format!("account `{}` exists, with kind {kind} and currency {currency}", current.id);
    Err(Error::new(Code::AlreadyExists, message))
}

impl Movement {
    pub(crate) fn transfer(request: TransferRequest) -> Result<Self, Error> {
        let from = Key::account("from_account_id", &request.from_account_id)?;
        let to = Key::account("to_account_id", &request.to_account_id)?;
        Self::new(EntryKind::Transfer, from, to, amount(request.amount)?, request.description)
    }

    pub(crate) fn charge(request: ChargeRequest) -> Result<Self, Error> {
        let from = Key::account("account_id", &request.account_id)?;
        let to = Key::account("payee_account_id", &request.payee_account_id)?;
        Self::new(EntryKind::Charge, from, to, amount(request.amount)?, request.description)
    }

    /// The way back of a charge, of so much of it.
    pub(crate) fn refund(charge: &Entry, minor_units: i64, description: String) -> Result<Self, Error> {
        check_range("amount_minor", minor_units, 1..=MAX_AMOUNT)?;
        let (EntryKind::Charge, [payer, payee]) = (charge.kind(), &charge.postings[..]) else {
            return Err(Error::not_found(format_args!("charge `{}`", charge.id)));
        };
        let [from, to] = [payee, payer].map(|posting| Key::Account(posting.account_id.clone()));
        let amount = Money { currency: charge.currency.clone(), minor_units };
        let refund = Self::new(EntryKind::Refund, from, to, amount, description)?;
        Ok(Self { charge: Some(Key::Entry(charge.id.clone())), ..refund })
    }

    fn new(kind: EntryKind, from: Key, to: Key, amount: Money, description: String) -> Result<Self, Error> {
        if !description.is_empty() {
            check_text("description", &description, MAX_DESCRIPTION)?;
        }
        if from == to {
            return Err(Error::invalid(format_args!("money moves between two accounts, and {from} is both")));
        }
        Ok(Self { kind, from, to, amount, description, charge: None })
    }

    /// Posts the movement to its accounts as they are now. `charge` is the charge that it refunds, as it is now.
    pub(crate) fn post(
        &self,
        id: &str,
        [mut from, mut to]: [Account; 2],
        charge: Option<Entry>,
        now: Timestamp,
    ) -> Result<Posted, Error> {
        let charge = charge.map(|charge| self.refunded(charge)).transpose()?;
        let minor_units = self.amount.minor_units;
        let postings = vec![self.apply(&mut from, -minor_units, id)?, self.apply(&mut to, minor_units, id)?];
        let entry = Entry {
            id: id.to_owned(),
            kind: self.kind.into(),
            currency: self.amount.currency.clone(),
            postings,
            description: self.description.clone(),
            posted_at: Some(now),
            refunded_minor: 0,
            charge_id: charge.as_ref().map(|charge| charge.id.clone()).unwrap_or_default(),
        };
        Ok(Posted { entry, accounts: [from, to], charge })
    }

    fn refunded(&self, mut charge: Entry) -> Result<Entry, Error> {
        let paid = charge.postings.last().map_or(0, |posting| posting.amount_minor);
        let refundable = paid - charge.refunded_minor;
        if self.amount.minor_units > refundable {
            let message = format!("{refundable} minor units of charge `{}` can still be refunded", charge.id);
            return Err(refused("refund_exceeds_charge", message).with_detail("refundable_minor", refundable));
        }
        charge.refunded_minor += self.amount.minor_units;
        Ok(charge)
    }

    fn apply(&self, account: &mut Account, minor_units: i64, entry_id: &str) -> Result<Posting, Error> {
        let Account { id, currency, balance_minor, .. } = &*account;
        if *currency != self.amount.currency {
            let message = format!("account `{id}` is in {currency}, not in {}", self.amount.currency);
            return Err(refused("currency_mismatch", message));
        }
        let Some(balance) = balance_minor.checked_add(minor_units) else {
            return Err(Error::new(Code::OutOfRange, format!("the balance of account `{id}` would be too large")));
        };
        if balance < 0 && minor_units < 0 && account.kind() == AccountKind::Wallet {
            let message = format!("account `{id}` has {balance_minor} minor units of {currency}");
            return Err(refused("insufficient_funds", message).with_detail("balance_minor", balance_minor));
        }
        account.balance_minor = balance;
        account.entries += 1;
        let previous_entry_id = std::mem::replace(&mut account.last_entry_id, entry_id.to_owned());
        Ok(Posting {
            account_id: account.id.clone(),
            amount_minor: minor_units,
            balance_minor: balance,
            previous_entry_id,
        })
    }
}

/// The entry before this one of an account; empty if it is the first. `None` if the entry is not of the account.
pub(crate) fn previous<'a>(entry: &'a Entry, account_id: &str) -> Option<&'a str> {
    let posting = entry.postings.iter().find(|posting| posting.account_id == account_id)?;
    Some(&posting.previous_entry_id)
}

fn refused(because: &str, message: String) -> Error {
    Error::failed_precondition(message).with_detail(reason::KEY, because)
}

#[cfg(test)]
mod tests;
