//! Runs the named scenarios, or all, and prints their reports: `lab [--small] [NAME…]`.

#![expect(clippy::print_stdout, reason = "it is a program that prints")]

use std::time::Instant;

use lab::report::{render, simulate};
use lab::scenario::{SCENARIOS, Size};
use lab::{SetupError, Strategy};

fn main() -> Result<(), SetupError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let size =
        if arguments.iter().any(|word| word == "--small") { Size::Small } else { Size::Full };
    let names: Vec<&String> = arguments.iter().filter(|word| !word.starts_with("--")).collect();
    let wanted = SCENARIOS
        .iter()
        .filter(|scenario| names.is_empty() || names.iter().any(|name| *name == scenario.name));
    for scenario in wanted {
        let begun = Instant::now();
        let report = simulate(scenario.about, &scenario.cases(size), &Strategy::ALL)?;
        println!("== {} ==\n{}", scenario.name, render(&report));
        println!("  simulated in {:.1} s\n", begun.elapsed().as_secs_f64());
    }
    Ok(())
}
