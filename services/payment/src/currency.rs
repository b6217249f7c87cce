//! Currencies of ISO 4217 and amounts in their minor units.

use iso_currency::Currency;
use proto::payment::v1::Money;
use sdk::{Error, check_range, required};

/// The most that moves at once, in minor units: thousands of such amounts are added before a balance overflows.
pub(crate) const MAX_AMOUNT: i64 = 1_000_000_000_000_000;

/// How many decimal places the minor unit of a currency is.
///
/// # Errors
/// INVALID_ARGUMENT unless `code` is a currency with minor units.
pub(crate) fn minor_digits(what: &str, code: &str) -> Result<u32, Error> {
    let currency = Currency::from_code(code).filter(|currency| !currency.is_fund() && !currency.is_special());
    let digits = currency.and_then(Currency::exponent).map(u32::from);
    digits.ok_or_else(|| {
        let code = code.chars().take(8).collect::<String>();
        Error::invalid(format_args!(
            "{what} is `{}`, it must be the code of a currency in ISO 4217, for example EUR",
            code.escape_debug()
        ))
    })
}

/// An amount that can be moved.
///
/// # Errors
/// INVALID_ARGUMENT that says what is wrong with it.
pub(crate) fn amount(money: Option<Money>) -> Result<Money, Error> {
    let money = required("amount", money)?;
    minor_digits("amount.currency", &money.currency)?;
    check_range("amount.minor_units", money.minor_units, 1..=MAX_AMOUNT)?;
    Ok(money)
}
