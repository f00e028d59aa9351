//! What each strategy costs, as a multiple of what a pool costs that knows the future.

use comfy_table::Table;
use serde::{Serialize, Serializer};

use super::CaseReport;
use super::table::table;
use crate::cloud::SetupError;
use crate::run::{Setup, Strategy, loads};
use crate::score::Score;
use crate::yardstick::{CALL_PRICES_S, Optimum, Question};

/// The least costs of a setup, one for each price of a call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Clairvoyant {
    /// If nodes at rest hold what the targets say.
    pub with_targets: Vec<Optimum>,
    /// If they need not.
    pub without_targets: Vec<Optimum>,
    /// For each strategy, and each price of a call.
    pub ratios: Vec<Ratio>,
}

/// The cost of a strategy at one price of a call, over the least cost. `None` if that is 0.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    /// The strategy.
    #[serde(serialize_with = "strategy_name")]
    pub strategy: Strategy,
    /// The price of a call, in address-seconds.
    pub call_price_s: u64,
    /// Over the least cost with the policy's targets.
    pub with_targets: Option<f64>,
    /// Over the least cost without them.
    pub without_targets: Option<f64>,
}

impl Clairvoyant {
    /// Finds the least costs, and compares the scores with them. The pods are those of a cluster in
    /// which none waits, so all strategies have the same measure.
    ///
    /// # Errors
    ///
    /// If EC2 refuses the start of the setup.
    pub(super) fn find(setup: &Setup, scores: &[Score]) -> Result<Self, SetupError> {
        let loads = loads(setup)?;
        let with_targets = Question::new(setup, true).answer(&loads);
        let without_targets = Question::new(setup, false).answer(&loads);
        let ratios = scores.iter().flat_map(|score| {
            with_targets.iter().zip(&without_targets).map(|(with, without)| Ratio {
                strategy: score.strategy,
                call_price_s: with.call_price_s,
                with_targets: ratio(score, with),
                without_targets: ratio(score, without),
            })
        });
        let ratios = ratios.collect();
        Ok(Self { with_targets, without_targets, ratios })
    }

    fn of(&self, strategy: Strategy) -> impl Iterator<Item = &Ratio> {
        self.ratios.iter().filter(move |ratio| ratio.strategy == strategy)
    }
}

fn ratio(score: &Score, least: &Optimum) -> Option<f64> {
    let cost = least.cost_s();
    (cost > 0.0).then(|| score.cost_s(least.call_price_s) / cost)
}

/// The prices of a call that the table shows.
const SHOWN_PRICES_S: std::ops::RangeInclusive<u64> = 10..=1_000;

/// A line per case and strategy, a column per price, with the targets and then without.
pub(super) fn ratios(cases: &[CaseReport]) -> Table {
    let header = ["cost to the clairvoyant's".to_owned(), "strategy".to_owned()];
    let prices = || CALL_PRICES_S.iter().filter(|price| SHOWN_PRICES_S.contains(price));
    let with = prices().map(|price| format!("a call = {price}"));
    let without = prices().map(|price| format!("no targets, {price}"));
    let mut table = table(header.into_iter().chain(with).chain(without), 2);
    for case in cases {
        for score in &case.scores {
            let found = &case.clairvoyant;
            let with = found.of(score.strategy).map(|ratio| ratio.with_targets);
            let without = found.of(score.strategy).map(|ratio| ratio.without_targets);
            let cells = with.zip(&found.with_targets).chain(without.zip(&found.without_targets));
            let cells = cells.filter(|(_, least)| SHOWN_PRICES_S.contains(&least.call_price_s));
            let words = [case.policy.clone(), score.strategy.as_str().to_owned()];
            table.add_row(words.into_iter().chain(cells.map(cell)));
        }
    }
    table
}

/// A ratio to a cost that may be too low is itself at most too high.
fn cell((ratio, least): (Option<f64>, &Optimum)) -> String {
    let sign = if least.exact { "" } else { "≤ " };
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{sign}{ratio:.2}"))
}

fn strategy_name<S: Serializer>(strategy: &Strategy, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(strategy.as_str())
}
