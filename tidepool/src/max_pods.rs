//! `tidepool max-pods`: how many pods a node runs, for the kubelet's `maxPods` in user data or in a Karpenter `NodePool`.

use std::io::Write as _;

use anyhow::Context as _;
use command_line::Failure;

use crate::plan::{SettingFlags, node_of};

/// The arguments of `max-pods`. The environment is not read, so that the same command prints the same everywhere.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// For example `m5.large`.
    #[arg(value_name = "TYPE")]
    instance_type: String,
    #[command(flatten)]
    settings: SettingFlags,
}

/// Prints the number alone, for scripts.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let n = max_pods(arguments)?;
    writeln!(std::io::stdout(), "{n}").context("print the number of pods")?;
    Ok(())
}

fn max_pods(arguments: &Arguments) -> Result<u32, Failure> {
    let (_, limits, policy) = node_of(&arguments.instance_type, &arguments.settings)?;
    Ok(limits.max_pods(&policy))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn number_follows_the_type_and_the_settings() {
        let check = |words: &str, expect: u32| {
            let words = ["max-pods"].into_iter().chain(words.split(' '));
            let cli = Cli::try_parse_from(words).unwrap();
            assert_eq!(max_pods(&cli.arguments).unwrap(), expect, "{:?}", cli.arguments);
        };
        check("m5.large", 29);
        check("m5.large --custom-networking", 20);
        check("m5.large --max-eni 1", 11);
        check("m5.large --max-pods 8", 8);
        check("m5.large --prefix-delegation", 110);
        check("m5.24xlarge --prefix-delegation", 250);
        check("t3.small --prefix-delegation --custom-networking", 98);
        check("m5.large --ipv6", 110);
        let cli = Cli::try_parse_from(["max-pods", "m5.larg"]).unwrap();
        assert!(max_pods(&cli.arguments).is_err());
    }
}
