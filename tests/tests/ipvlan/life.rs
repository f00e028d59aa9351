//! A child from its ADD to its end, whoever is gone meanwhile.

use anyhow::{Context, Result, ensure};
use failpoint::Order;
use serde_json::{Value, json};
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode, Pod};
use tests::process::{PATIENCE, eventually};

use crate::{connect, ip, ipvlan, refused};

/// One node whose addresses serve again as soon as the kernel has been read.
fn spec(name: &str) -> Spec {
    let settings = [("WARM_IP_TARGET", "1"), ("IP_COOLDOWN_PERIOD", "0")];
    Spec::new(name, "t3.small", 1, &settings)
}

async fn has_child(pod: &Pod) -> Result<bool> {
    Ok(ip(pod, "-d link").await?.contains("ipvlan"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with ipvlan: make test-guest"]
async fn check_names_each_damage_of_a_child() -> Result<()> {
    ExecCluster::with(spec("ivc"), async |cluster| {
        let node = &cluster.nodes[0];
        let damages = [
            ("link set eth0 down", "eth0 is down"),
            ("link set eth0 mtu 1400", "eth0 has MTU 1400, not 9001"),
            ("link set eth0 alias other/eth0", "eth0 is not the ipvlan child of"),
            ("link set eth0 name eth1", "interface eth0 is not in"),
            ("address flush dev eth0", "eth0 has no address"),
            ("route del default", "the pod has no route default via 10.0.0.1"),
            ("link del eth0", "interface eth0 is not in"),
        ];
        for (n, (damage, named)) in damages.into_iter().enumerate() {
            let (pod, result) = connect(node, &format!("c{n}"), &ipvlan(None)?).await?;
            let mut conf = ipvlan(None)?;
            conf["prevResult"] = result;
            let check = async || node.runtime.call("CHECK", Some(&pod), conf.clone()).await;
            check().await.with_context(|| format!("before {damage}"))?;
            if damage.ends_with("name eth1") {
                ip(&pod, "link set eth0 down").await?;
            }
            ip(&pod, damage).await?;
            refused(check().await, 153, named)?;
            node.runtime.remove(&pod).await?;
        }
        Ok(())
    })
    .await
}

/// DEL as the conflist is now, and the conflist may have changed since the ADD.
async fn del(node: &ExecNode, pod: &Pod) -> Result<()> {
    node.runtime.call("DEL", Some(pod), json!({})).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with ipvlan: make test-guest"]
async fn child_is_removed_whoever_is_gone() -> Result<()> {
    ExecCluster::with(spec("ivr"), async |cluster| {
        let node = &mut cluster.nodes[0];
        let conf = ipvlan(None)?;
        let (twice, _) = connect(node, "twice", &conf).await?;
        for _ in 0..2 {
            del(node, &twice).await?;
            ensure!(!has_child(&twice).await?, "a child is left");
        }
        let (again, _) = connect(node, "twice_2", &conf).await?;
        // As a runtime that no longer knows the namespace.
        let unknown = Pod { netns: String::new(), ..again.clone() };
        del(node, &unknown).await?;
        ensure!(!has_child(&again).await?, "a child is left without CNI_NETNS");

        let (kept, _) = connect(node, "kept", &conf).await?;
        let (lost, _) = connect(node, "lost", &conf).await?;
        eventually("end of the garbage", PATIENCE, async || {
            let valid = json!([{"containerID": "kept", "ifname": "eth0"}]);
            let conf = json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid});
            node.runtime.call("GC", None, conf).await?;
            ensure!(!has_child(&lost).await?, "GC has left a child");
            Ok(())
        })
        .await?;
        ensure!(has_child(&kept).await?, "GC has removed a pod's child");

        // Two ADDs of one attachment: the second leaves the first alone.
        let again: Result<Value> = node.runtime.call("ADD", Some(&kept), conf.clone()).await;
        refused(again, 150, "eth0 exists already")?;
        ensure!(has_child(&kept).await?, "the second ADD has removed the child");

        node.stop_ipamd().await?;
        del(node, &kept).await?;
        ensure!(!has_child(&kept).await?, "a child is left without a daemon");
        node.start_ipamd().await?;
        eventually("end of the release", PATIENCE, async || {
            let held = node.held().await?;
            ensure!(held.is_empty(), "{held:?}");
            Ok(())
        })
        .await
    })
    .await
}

/// The plugin dies before the child has its name and its mark. The first name says whose it is.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with ipvlan: make test-guest"]
async fn child_that_an_add_has_left_goes_with_its_del() -> Result<()> {
    ExecCluster::with(spec("ivk"), async |cluster| {
        let node = &cluster.nodes[0];
        let pod = node.runtime.pod("killed").await?;
        let plugin =
            node.runtime.start_armed("ADD", Some(&pod), ipvlan(None)?, "child-made", Order::Kill);
        let died = plugin.await?.wait_with_output().await?;
        ensure!(!died.status.success(), "the plugin was not killed: {died:?}");
        ensure!(has_child(&pod).await?, "the plugin was killed too early");
        del(node, &pod).await?;
        ensure!(!has_child(&pod).await?, "a child is left");
        eventually("end of the release", PATIENCE, async || {
            let held = node.held().await?;
            ensure!(held.is_empty(), "{held:?}");
            Ok(())
        })
        .await?;
        connect(node, "next", &ipvlan(None)?).await.map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with ipvlan: make test-guest"]
async fn address_of_a_child_serves_nobody_else() -> Result<()> {
    ExecCluster::with(spec("iva"), async |cluster| {
        let node = &mut cluster.nodes[0];
        let conf = ipvlan(None)?;
        let (running, _) = connect(node, "running", &conf).await?;
        let (left, _) = connect(node, "left", &conf).await?;
        let held = node.held().await?;

        // Everything is killed, and the record is lost.
        node.kill_ipamd().await?;
        std::fs::remove_file(node.state_directory().join("tidepool.jsonl"))?;
        node.start_ipamd().await?;
        eventually("return of the pods", PATIENCE, async || {
            let now = node.held().await?;
            ensure!(now == held, "{now:?}, not {held:?}");
            Ok(())
        })
        .await?;

        // The daemon releases an address, and the child stays.
        let attachment = proto::v1::Attachment {
            network: "aws-cni".to_owned(),
            container_id: "left".to_owned(),
            ifname: "eth0".to_owned(),
        };
        let client_version = proto::VERSION.to_owned();
        let request =
            proto::v1::DelRequest { attachment: Some(attachment), pod: None, client_version };
        node.client().await?.del(request).await?;
        for n in 0..3 {
            let (pod, _) = connect(node, &format!("next{n}"), &json!({})).await?;
            ensure!(pod.ip != left.ip && pod.ip != running.ip, "{} serves twice", pod.ip);
        }
        eventually("quarantine", PATIENCE, async || {
            let status = node.status().await?;
            let line = format!("{} is quarantined: ipvlan@", left.ip);
            ensure!(status.contains(&line), "{status}");
            Ok(())
        })
        .await?;
        ensure!(has_child(&running).await? && has_child(&left).await?, "a child is gone");
        Ok(())
    })
    .await
}
