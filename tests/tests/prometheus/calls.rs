//! Alerts for calls to EC2 that fail or are late, and for pods that wait for them.

use anyhow::Result;
use tests::cluster::Spec;

use crate::{ASSIGN, LEAN, end_burst, fail_each, start_burst, watched};

#[tokio::test(flavor = "multi_thread")]
async fn failing_calls_fire_the_alert_for_their_kind() -> Result<()> {
    watched(Spec::new("pcall", "m5.large", 1, &LEAN), async |cluster, prometheus| {
        for (code, alert) in [
            ("RequestLimitExceeded", "TidepoolThrottled"),
            ("UnauthorizedOperation", "TidepoolAccessDenied"),
            ("InternalError", "TidepoolEc2Fails"),
        ] {
            let fault = fail_each(cluster, ASSIGN, code).await?;
            let burst = start_burst(&cluster.nodes[0], alert, 2).await?;
            prometheus.fires(alert).await?;
            cluster.sim.mend(fault).await?;
            end_burst(&cluster.nodes[0], burst).await?;
            prometheus.ends(alert).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn late_answers_fire_the_alerts_for_slow_pods() -> Result<()> {
    watched(Spec::new("plate", "m5.large", 1, &LEAN), async |cluster, prometheus| {
        let delay = cluster.sim.delay(ASSIGN).await?;
        let burst = start_burst(&cluster.nodes[0], "late", 3).await?;
        prometheus.fires("TidepoolPodsWait").await?;
        // Longer than what counts as slow.
        prometheus.shows("min_over_time(tidepool_waiting_adds[6s]) > 0").await?;
        cluster.sim.answer_delayed(delay).await?;
        end_burst(&cluster.nodes[0], burst).await?;
        prometheus.fires("TidepoolPodsSlow").await?;
        prometheus.ends("TidepoolPodsWait").await
    })
    .await
}
