//! Every scenario, in small size, against its recorded report. The reports change with the engine:
//! check the difference, then record it with `UPDATE_EXPECT=1 cargo test -p lab`.

use expect_test::expect_file;
use lab::Strategy;
use lab::report::{Report, render, simulate};
use lab::scenario::{SCENARIOS, Scenario, Size};

fn check(name: &str) {
    let scenario = Scenario::named(name).unwrap();
    let report = simulate(scenario.about, &scenario.cases(Size::Small), &Strategy::ALL).unwrap();
    check_conserved(&report);
    expect_file![format!("../golden/{name}.txt")].assert_eq(&render(&report));
}

/// How long an Add may wait before it fails.
const ADD_WAIT_MS: u64 = 60_000;

/// Checks that every pod has exactly one address, or is reported as having none.
fn check_conserved(report: &Report) {
    for score in report.cases.iter().flat_map(|case| &case.scores) {
        let name = score.strategy.as_str();
        assert_eq!(score.wrong_addresses, 0, "{name}");
        let pods = score.pods;
        assert_eq!(pods.created, pods.served + pods.gave_up + pods.waiting, "{name}");
        let failed: u64 = score.failed_adds.values().sum();
        let is_reported = pods.waiting == 0 || failed > 0 || score.wait_ms.max <= ADD_WAIT_MS;
        assert!(is_reported, "{name}: waits without a reason");
    }
}

macro_rules! scenarios {
    ($($test:ident: $name:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            check($name);
        })*

        #[test]
        fn all_scenarios_are_tested() {
            let tested = [$($name),*];
            let all: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            assert_eq!(all, tested);
        }
    };
}

scenarios!(
    burst: "burst",
    join: "join",
    day: "day",
    fragmented: "fragmented",
    dry: "dry",
    churn: "churn",
    mixed: "mixed",
    batch: "batch",
    rolling: "rolling",
    scale_in: "scale-in",
    replacement: "replacement",
    trickle_1: "trickle-1",
    trickle_5: "trickle-5",
    trickle_30: "trickle-30",
    ramp: "ramp",
    diurnal: "diurnal",
    heavy_tail: "heavy-tail",
    ci: "ci",
    spot: "spot",
    autoscale: "autoscale",
);
