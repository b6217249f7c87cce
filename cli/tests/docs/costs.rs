//! What each environment costs in a month, by component, and what could be saved.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

/// Prices, and what each environment has of what they are for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prices {
    date: String,
    hours_per_month: f64,
    prices: BTreeMap<String, Price>,
    pub(crate) environments: BTreeMap<String, Vec<Row>>,
    savings: Vec<Saving>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    usd: f64,
    per: Unit,
    what: String,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unit {
    Hour,
    Month,
    Gigabyte,
}

/// So many of something.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    component: String,
    pub(crate) price: String,
    quantity: f64,
    /// Not known before there is traffic.
    #[serde(default)]
    guess: bool,
}

/// What would be otherwise.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Saving {
    what: String,
    how: String,
    environments: Vec<String>,
    changes: Vec<Change>,
}

/// Of all rows with this price.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    price: String,
    /// They would have that one.
    becomes: Option<String>,
    /// They would be so much cheaper.
    percent: Option<f64>,
    /// Of so many of them.
    quantity: Option<f64>,
}

impl Prices {
    pub(crate) fn parse(text: &str) -> Self {
        serde_yaml::from_str(text).unwrap()
    }

    fn price(&self, name: &str) -> &Price {
        self.prices.get(name).unwrap_or_else(|| panic!("there is no price `{name}`"))
    }

    /// Of one for a month, in dollars.
    fn monthly(&self, name: &str) -> f64 {
        let price = self.price(name);
        if price.per == Unit::Hour { price.usd * self.hours_per_month } else { price.usd }
    }

    fn cost(&self, row: &Row) -> f64 {
        self.monthly(&row.price) * row.quantity
    }

    fn total(&self, environment: &str) -> f64 {
        self.environments[environment].iter().map(|row| self.cost(row)).sum()
    }

    fn saved(&self, saving: &Saving, environment: &str) -> f64 {
        let rows = &self.environments[environment];
        saving.changes.iter().flat_map(|change| rows.iter().map(move |row| self.saved_by(change, row))).sum()
    }

    fn saved_by(&self, change: &Change, row: &Row) -> f64 {
        if change.price != row.price {
            return 0.0;
        }
        let before = self.monthly(&row.price);
        let after = change.becomes.as_ref().map_or(before, |other| self.monthly(other));
        let left = 1.0 - change.percent.unwrap_or(0.0) / 100.0;
        (before - after * left) * change.quantity.unwrap_or(row.quantity).min(row.quantity)
    }
}

/// The whole of `docs/costs.md`.
pub(crate) fn document(text: &str) -> String {
    let prices = Prices::parse(text);
    let mut page = format!(
        "# Costs\n\n\
         Per month, in US dollars, in us-east-1, without tax and free tiers. Made from `terraform/costs/prices.yaml` by\n\
         `UPDATE=1 cargo test --package natsctl --test it docs::`; a test checks that it is current.\n\n\
         The prices are AWS' published list prices as we know them of {}. They were written down, not fetched: before a decision\n\
         depends on one, look it up. A month has {} hours. What depends on traffic is an estimate, marked by *.\n",
        prices.date, prices.hours_per_month
    );
    for environment in prices.environments.keys() {
        table(&mut page, &prices, environment);
    }
    savings(&mut page, &prices);
    price_list(&mut page, &prices);
    page
}

fn table(page: &mut String, prices: &Prices, environment: &str) {
    let _ = writeln!(
        page,
        "\n## {environment}\n\n| component | price | quantity | $ a month |\n| --- | --- | ---: | ---: |"
    );
    for row in &prices.environments[environment] {
        let star = if row.guess { " *" } else { "" };
        let _ = writeln!(
            page,
            "| {}{star} | `{}` | {} | {:.2} |",
            row.component,
            row.price,
            row.quantity,
            prices.cost(row)
        );
    }
    let total = prices.total(environment);
    let guessed: f64 =
        prices.environments[environment].iter().filter(|row| row.guess).map(|row| prices.cost(row)).sum();
    let _ = writeln!(page, "| **all** | | | **{total:.2}** |");
    let _ = writeln!(page, "| of which estimates * | | | {guessed:.2} |");
}

fn savings(page: &mut String, prices: &Prices) {
    let names: Vec<&String> = prices.environments.keys().collect();
    let heads: String = names.iter().fold(String::new(), |heads, name| heads + &format!(" {name} |"));
    let _ = writeln!(page, "\n## Possible savings\n\nEach on its own; together they save less than their sum.\n");
    let _ = writeln!(page, "| what | how |{heads}\n| --- | --- |{}", " ---: |".repeat(names.len()));
    for saving in &prices.savings {
        let _ = write!(page, "| {} | {} |", saving.what, saving.how);
        for name in &names {
            let share = 100.0 * prices.saved(saving, name) / prices.total(name);
            let _ = match saving.environments.contains(name) {
                true => write!(page, " {:.2} ({share:.0} %) |", prices.saved(saving, name)),
                false => write!(page, " – |"),
            };
        }
        page.push('\n');
    }
}

fn price_list(page: &mut String, prices: &Prices) {
    let _ = writeln!(page, "\n## Prices\n\n| name | what | $ | per |\n| --- | --- | ---: | --- |");
    for (name, price) in &prices.prices {
        let per = match price.per {
            Unit::Hour => "hour",
            Unit::Month => "month",
            Unit::Gigabyte => "GB",
        };
        let _ = writeln!(page, "| `{name}` | {} | {} | {per} |", price.what, price.usd);
    }
}

#[test]
fn a_saving_is_the_difference() {
    let text = "
date: today
hours_per_month: 100
prices:
  large: { usd: 0.1, per: hour, what: a large one }
  small: { usd: 0.04, per: hour, what: a small one }
environments:
  production:
    - { component: nodes, price: large, quantity: 5 }
savings:
  - what: small ones
    how: by hand
    environments: [production]
    changes: [{ price: large, becomes: small }]
  - what: one less
    how: by hand
    environments: [production]
    changes: [{ price: large, percent: 100, quantity: 1 }]
";
    let prices = Prices::parse(text);
    let saved: Vec<f64> = prices.savings.iter().map(|saving| prices.saved(saving, "production").round()).collect();
    assert_eq!((prices.total("production").round(), saved), (50.0, vec![30.0, 10.0]));
}
