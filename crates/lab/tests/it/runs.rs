//! Properties of every run: it is repeatable, and its report can be rendered.

use lab::report::{chart, pareto_chart, simulate};
use lab::scenario::{Scenario, Size};
use lab::{Strategy, run};

#[test]
fn seed_determines_outcome() {
    let mut setup = Scenario::named("scale-in").unwrap().cases(Size::Small).remove(0).setup;
    for strategy in Strategy::ALL {
        let first = run(&setup, strategy).unwrap();
        assert!(first == run(&setup, strategy).unwrap(), "{}", strategy.as_str());
        setup.seed += 1;
        assert!(first != run(&setup, strategy).unwrap(), "{}", strategy.as_str());
    }
}

#[test]
fn report_renders_as_json_and_svg() {
    let scenario = Scenario::named("scale-in").unwrap();
    let cases = scenario.cases(Size::Small);
    let report = simulate(scenario.about, &cases[..1], &Strategy::ALL).unwrap();
    let json: serde_json::Value = serde_json::to_value(&report).unwrap();
    let ours = &json["cases"][0]["scores"][0];
    assert_eq!((&ours["strategy"], &ours["pods"]["served"]), (&"tidepool".into(), &150.into()));
    assert!(ours["calls"]["CreateNetworkInterface"]["granted"].as_u64().unwrap() > 0);
    let clairvoyant = &json["cases"][0]["clairvoyant"];
    assert_eq!(clairvoyant["with_targets"][2]["call_price_s"], 100);
    assert!(clairvoyant["ratios"][0]["with_targets"].as_f64().unwrap() >= 1.0);
    let svg = pareto_chart(&report.cases[0]).unwrap();
    for text in ["clairvoyant without targets", "incumbent", "mutating calls a pod"] {
        assert!(svg.contains(text), "{text}");
    }
    let svg = chart(&report.cases[0]).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for text in ["tidepool: addresses", "incumbent: pods", "minutes", "warm-eni-1"] {
        assert!(svg.contains(text), "{text}");
    }
    // Two curves per strategy, addresses and pods, with a point per sample.
    let points = |line: &str| line.matches(',').count();
    let longest = svg.split("<polyline").map(points).max().unwrap();
    assert!(longest >= report.cases[0].scores[0].samples.len() / 2, "{longest}");
}
