//! The yardstick against real runs: no strategy serves the pods that it has served for less.

use std::time::Duration;

use lab::scenario::{SCENARIOS, Scenario, Size};
use lab::trace::{TraceAction, TraceStep};
use lab::yardstick::Question;
use lab::{Setup, Strategy, loads, run};
use proptest::prelude::*;
use proptest::strategy::Strategy as _;

/// Checks that what `strategy` did costs no less than the least for the same pods at the same times.
fn check(setup: &Setup, strategy: Strategy, name: &str) {
    let outcome = run(setup, strategy).unwrap();
    let mut question = Question::new(setup, false);
    question.begins_as_it_was = true;
    // The incumbent gives back addresses that rest.
    question.rests = strategy == Strategy::Tidepool;
    for least in question.answer(&outcome.loads) {
        let price = least.call_price_s;
        let (cost, least) = (outcome.score.cost_s(price), least.cost_s());
        assert!(least <= cost, "{name} {}: {least} above {cost} at {price}", strategy.as_str());
    }
}

#[test]
fn no_scenario_costs_less_than_the_yardstick() {
    for scenario in SCENARIOS {
        for case in scenario.cases(Size::Small) {
            for strategy in Strategy::ALL {
                check(&case.setup, strategy, &format!("{} {}", scenario.name, case.policy));
            }
        }
    }
}

#[test]
fn targets_cost_more_and_waits_cost_less() {
    for name in ["churn", "ci", "trickle-1", "spot", "rolling"] {
        for case in Scenario::named(name).unwrap().cases(Size::Small) {
            let loads = loads(&case.setup).unwrap();
            let without = Question::new(&case.setup, false);
            let mut patient = without.clone();
            patient.wait_ms = 10_000;
            let [patient, without, with] =
                [patient, without, Question::new(&case.setup, true)].map(|it| it.answer(&loads));
            for ((patient, without), with) in patient.iter().zip(&without).zip(&with) {
                let what = format!("{name} {}: {patient:?} {without:?} {with:?}", case.policy);
                assert!(patient.cost_s() <= without.cost_s(), "{what}");
                assert!(without.cost_s() <= with.cost_s(), "{what}");
                assert!(!patient.exact, "{what}");
            }
        }
    }
}

fn pods() -> impl proptest::strategy::Strategy<Value = TraceStep> {
    let life = prop::option::of((1..300_u64).prop_map(Duration::from_secs));
    (0..600_u64, 1..12_u32, life).prop_map(|(at, pods, life)| TraceStep {
        at: Duration::from_secs(at),
        action: TraceAction::Create { pods, life },
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_trace_costs_less_than_the_yardstick(
        mut trace in prop::collection::vec(pods(), 1..12),
        nodes in 1..3_u32,
        seed in 0..1_000_u64,
    ) {
        trace.sort_by_key(|step| step.at);
        for case in Scenario::named("churn").unwrap().cases(Size::Small) {
            let lasts = Duration::from_secs(1_200);
            let setup = Setup { trace: trace.clone(), nodes, seed, lasts, ..case.setup };
            Strategy::ALL.into_iter().for_each(|strategy| check(&setup, strategy, &case.policy));
        }
    }
}
