//! What holds of every run: it can be repeated, and it can be shown.

use lab::report::{chart, simulate};
use lab::scenario::{Scenario, Size};
use lab::{Strategy, run};

#[test]
fn the_same_seed_gives_the_same_and_another_does_not() {
    let mut setup = Scenario::named("scale-in").unwrap().cases(Size::Small).remove(0).setup;
    for strategy in Strategy::ALL {
        let first = run(&setup, strategy).unwrap();
        assert!(first == run(&setup, strategy).unwrap(), "{}", strategy.as_str());
        setup.seed += 1;
        assert!(first != run(&setup, strategy).unwrap(), "{}", strategy.as_str());
    }
}

#[test]
fn a_report_is_data_and_a_picture() {
    let scenario = Scenario::named("scale-in").unwrap();
    let cases = scenario.cases(Size::Small);
    let report = simulate(scenario.about, &cases[..1], &Strategy::ALL).unwrap();
    let json: serde_json::Value = serde_json::to_value(&report).unwrap();
    let ours = &json["cases"][0]["scores"][0];
    assert_eq!((&ours["strategy"], &ours["pods"]["served"]), (&"tidepool".into(), &150.into()));
    assert!(ours["calls"]["CreateNetworkInterface"]["granted"].as_u64().unwrap() > 0);
    let svg = chart(&report.cases[0]).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for text in ["tidepool: addresses", "incumbent: pods", "minutes", "warm-eni-1"] {
        assert!(svg.contains(text), "{text}");
    }
    // A curve for addresses and one for pods, of both strategies, with a point for each sample.
    let points = |line: &str| line.matches(',').count();
    let longest = svg.split("<polyline").map(points).max().unwrap();
    assert!(longest >= report.cases[0].scores[0].samples.len() / 2, "{longest}");
}
