//! A full or read-only disk.

use anyhow::{Context, Result, bail, ensure};
use proto::v1::{PodView, ViewReply};
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode, Pod, Refusal};
use tests::obstacles::Tmpfs;
use tests::process::{PATIENCE, eventually, output};
use tokio::process::Command;

use crate::{all_reachable, run_patiently};

fn has_address(pod: &PodView, ip: &str) -> bool {
    pod.address.as_ref().is_some_and(|address| address.address == ip)
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_refuses_adds_and_keeps_the_pods() -> Result<()> {
    let state = Tmpfs::mount("ffdsk").await?;
    let store = state.store();
    let settings = [("WARM_IP_TARGET", "9"), ("AWS_VPC_K8S_CNI_BACKING_STORE", store.as_str())];
    let spec = Spec::new("ffdsk", "m5.4xlarge", 1, &settings);
    ExecCluster::with(spec, async |cluster| {
        let node = &mut cluster.nodes[0];
        let mut pods = node.runtime.run_all("p", 8).await?;
        state.fill()?;
        let refusal = until_refused(node, &mut pods).await?;
        ensure!(refusal.msg.starts_with("STATE_UNWRITABLE: "), "{refusal}");
        let path = state.0.display().to_string();
        ensure!(refusal.msg.contains(&path), "{refusal} does not name {path}");
        all_reachable(node, &pods).await?;
        // A DEL that cannot be recorded is noted beside the socket, and the address stays taken.
        let gone = pods.pop().context("no pod")?;
        node.runtime.del(&gone).await.context("DEL with a full disk")?;
        let holds = |view: ViewReply| view.pods.iter().any(|p| has_address(p, &gone.ip));
        ensure!(holds(node.view().await?), "{} is free, but not on record", gone.ip);

        state.empty()?;
        eventually("end of the noted DEL", PATIENCE, async || {
            ensure!(!holds(node.view().await?), "{} is still taken", gone.ip);
            Ok(())
        })
        .await?;
        pods.push(run_patiently(node, "back", PATIENCE).await?);
        all_reachable(node, &pods).await?;
        cluster.books_agree(&[]).await?;
        let node = &mut cluster.nodes[0];
        node.kill_ipamd().await?;
        node.start_ipamd().await.context("on the log that met a full disk")?;
        cluster.books_agree(&[]).await
    })
    .await
}

/// If the notes are on the full disk too, the daemon keeps the DEL in memory.
#[tokio::test(flavor = "multi_thread")]
async fn del_on_a_full_disk_succeeds_without_its_note() -> Result<()> {
    let state = Tmpfs::mount("ffnote").await?;
    let store = state.store();
    let settings = [("WARM_IP_TARGET", "9"), ("AWS_VPC_K8S_CNI_BACKING_STORE", store.as_str())];
    let spec = Spec::new("ffnote", "m5.4xlarge", 1, &settings);
    ExecCluster::with(spec, async |cluster| {
        let node = &mut cluster.nodes[0];
        let notes = state.0.join("pending-dels");
        std::fs::create_dir(&notes)?;
        let beside = node.socket().with_file_name("pending-dels");
        std::fs::remove_dir(&beside).ok();
        std::os::unix::fs::symlink(&notes, beside).context("move the notes")?;
        let mut pods = node.runtime.run_all("p", 3).await?;
        state.fill()?;
        let refusal = until_refused(node, &mut pods).await?;
        ensure!(refusal.msg.starts_with("STATE_UNWRITABLE: "), "{refusal}");
        let gone = pods.pop().context("no pod")?;
        node.runtime.remove(&gone).await.context("DEL with a full disk")?;
        let holds = |view: ViewReply| view.pods.iter().any(|p| has_address(p, &gone.ip));
        ensure!(holds(node.view().await?), "{} is free, but not on record", gone.ip);
        let mut left = std::fs::read_dir(&notes)?.filter_map(|note| note.ok()?.metadata().ok());
        ensure!(left.all(|note| note.len() == 0), "a note found room: this tests nothing");

        state.empty()?;
        eventually("end of the remembered DEL", PATIENCE, async || {
            ensure!(!holds(node.view().await?), "{} is still taken", gone.ip);
            Ok(())
        })
        .await?;
        pods.push(run_patiently(node, "back", PATIENCE).await?);
        all_reachable(node, &pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

/// Without a daemon and with a disk that takes no note, nobody remembers the DEL. The pod's link has gone, and that is
/// what the next daemon sees.
#[tokio::test(flavor = "multi_thread")]
async fn del_that_left_no_note_is_found_by_the_kernel_check() -> Result<()> {
    let notes = Tmpfs::mount("frnote").await?;
    let settings = [("WARM_IP_TARGET", "3"), ("IP_COOLDOWN_PERIOD", "1")];
    ExecCluster::with(Spec::new("frnote", "t3.small", 1, &settings), async |cluster| {
        let node = &mut cluster.nodes[0];
        let beside = node.socket().with_file_name("pending-dels");
        std::fs::remove_dir(&beside).ok();
        std::os::unix::fs::symlink(&notes.0, beside).context("move the notes")?;
        let mut pods = node.runtime.run_all("p", 2).await?;
        node.kill_ipamd().await?;
        notes.remount("ro").await?;
        let gone = pods.pop().context("no pod")?;
        let Err(error) = node.runtime.del(&gone).await else { bail!("the DEL left a note") };
        let refusal = error.downcast::<Refusal>()?;
        ensure!(refusal.code == 5, "{refusal}");
        ensure!(std::fs::read_dir(&notes.0)?.next().is_none(), "the DEL left a note");
        let namespace = gone.netns.trim_start_matches("/run/netns/");
        output(Command::new("ip").args(["netns", "del", namespace])).await?;
        node.start_ipamd().await?;
        // The attachment must be 150 s old, and missing in two reports a minute apart.
        eventually("end of the DEL that nobody noted", 5 * PATIENCE, async || {
            let view = node.view().await?;
            let held = view.pods.iter().any(|pod| has_address(pod, &gone.ip));
            ensure!(!held, "{} is still taken", gone.ip);
            Ok(())
        })
        .await?;
        all_reachable(node, &pods).await?;
        notes.remount("rw").await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_read_where_the_socket_cannot_be_made() -> Result<()> {
    let run = Tmpfs::mount("fsock").await?;
    ExecCluster::with(Spec::new("fsock", "t3.small", 1, &[]), async |cluster| {
        let node = &mut cluster.nodes[0];
        let pod = node.runtime.run("p").await?;
        node.stop_ipamd().await?;
        run.remount("ro").await?;
        node.configure(&[("TIDEPOOL_SOCKET", &run.0.join("ipamd.sock").display().to_string())]);
        let shown = node.start_ipamd_introspected().await?;
        ensure!(shown.contains(&pod.ip), "{shown}");
        ensure!(!run.0.join("ipamd.sock").exists(), "there is a socket: this tests nothing");
        node.stop_ipamd().await?;
        run.remount("rw").await?;
        let socket = node.socket().display().to_string();
        node.configure(&[("TIDEPOOL_SOCKET", &socket)]);
        node.start_ipamd().await?;
        node.runtime.remove(&pod).await
    })
    .await
}

/// Starts pods until one is refused. The last page of the log has room for some more.
async fn until_refused(node: &ExecNode, pods: &mut Vec<Pod>) -> Result<Refusal> {
    loop {
        match node.runtime.run(&format!("q{}", pods.len())).await {
            Ok(pod) => pods.push(pod),
            Err(error) => return error.downcast(),
        }
        ensure!(pods.len() < 40, "nothing is refused although the disk is full");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_disk_refuses_adds_and_keeps_the_pods() -> Result<()> {
    let state = Tmpfs::mount("frodk").await?;
    let store = state.store();
    let settings = [("AWS_VPC_K8S_CNI_BACKING_STORE", store.as_str())];
    let spec = Spec::new("frodk", "t3.small", 1, &settings);
    ExecCluster::with(spec, async |cluster| {
        let node = &mut cluster.nodes[0];
        let mut pods = node.runtime.run_all("p", 2).await?;
        node.stop_ipamd().await?;
        std::fs::remove_file(state.0.join("tidepool-limits.json"))?;
        state.remount("ro").await?;
        node.start_ipamd_unready().await?;
        eventually("limits, which cannot be kept", PATIENCE, async || {
            let limits = node.view().await?.limits.context("no limits")?;
            ensure!(limits.from == "EC2", "{limits:?}");
            Ok(())
        })
        .await?;
        let refusal = eventually("refusal for the disk", PATIENCE, async || {
            let refusal = node.runtime.refusal("ro").await?;
            ensure!(refusal.msg.starts_with("STATE_UNWRITABLE: "), "{refusal}");
            Ok(refusal)
        })
        .await?;
        let path = state.0.display().to_string();
        ensure!(refusal.msg.contains(&path), "{refusal} does not name {path}");
        all_reachable(node, &pods).await?;

        state.remount("rw").await?;
        pods.push(run_patiently(node, "back", PATIENCE).await?);
        all_reachable(node, &pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}
