//! The daemon's metrics, as a scraper reads them.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::cluster::NodeOf;
use crate::process::{in_netns, output};

/// Asks as a scraper does; the shell speaks enough of HTTP.
const SCRAPE: &str = "exec 3<>/dev/tcp/127.0.0.1/61678; \
                      printf 'GET /metrics HTTP/1.1\\r\\nhost: node\\r\\n\\r\\n' >&3; cat <&3";

impl<R> NodeOf<R> {
    /// The samples by name and labels, as `tidepool_enis{state="ready"}`.
    ///
    /// # Errors
    ///
    /// If nobody answers.
    pub async fn scrape(&self) -> Result<BTreeMap<String, String>> {
        let answer = output(in_netns(&self.netns, "bash").args(["-c", SCRAPE])).await?;
        let samples = answer.lines().filter_map(|line| line.rsplit_once(' '));
        Ok(samples.map(|(sample, value)| (sample.to_owned(), value.to_owned())).collect())
    }
}
