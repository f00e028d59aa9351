//! What the Node shows of its network: annotations, the start-up taint, the condition `NetworkUnavailable`. All follow the
//! daemon's own answers on its socket, as the conflist does.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s::{Cluster, NetworkCondition, News, PatchFault};
use proto::v1;
use settings::OnNode;
use tracing::info;

use super::permission::{NODE_ANNOTATIONS, NODE_CONDITION, NODE_TAINT};
use super::{Desk, Office};
use crate::asking;

/// How often the daemon is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The least time between two writes of one part, and the longest after failures.
const WRITE_EVERY: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// How long no pod could get an address before the condition says so. A daemon that is replaced takes less.
const UNREADY_FOR: Duration = Duration::from_secs(60);
/// How often the taint is looked for after it has been taken off: a Node that is made anew has it again.
const LOOK_FOR_TAINT_EVERY: Duration = Duration::from_secs(600);

/// The annotations.
const CAPACITY: &str = "tidepool.io/address-capacity";
const MAX_PODS: &str = "tidepool.io/max-pods";
const PREFIXES: &str = "tidepool.io/prefixes";

/// What is to be shown, and where the daemon answers.
#[derive(Debug, Clone)]
pub(super) struct Herald {
    annotations: bool,
    condition: bool,
    taint: Option<String>,
    socket: PathBuf,
}

impl Herald {
    pub(super) fn new(on_node: &OnNode, socket: PathBuf) -> Self {
        let OnNode { annotations, condition, startup_taint, .. } = on_node.clone();
        Self { annotations, condition, taint: startup_taint, socket }
    }

    fn is_wanted(&self) -> bool {
        self.annotations || self.condition || self.taint.is_some()
    }
}

/// Keeps the Node as the settings want it, for ever.
pub(super) async fn keep(office: &Office, herald: Herald) {
    if herald.is_wanted() {
        let work = |cluster: Cluster, node: String, desk: Desk| {
            show(Shown { cluster, node, desk, herald: herald.clone() })
        };
        match office.work(work).await {}
    }
}

struct Shown {
    cluster: Cluster,
    node: String,
    desk: Desk,
    herald: Herald,
}

async fn show(mut shown: Shown) -> Infallible {
    let (mut annotations, mut condition, mut taint) =
        (Pace::default(), Pace::default(), Pace::default());
    let mut readiness = Readiness::new(Instant::now());
    loop {
        let socket = &shown.herald.socket;
        let unready = match asking::ready_now(socket).await {
            Ok(refused) => refused.map(asking::refusal),
            Err(why) => Some(why),
        };
        let is_ready = unready.is_none();
        let now = Instant::now();
        let wanted = readiness.observe(unready, now).filter(|_| shown.herald.condition);
        if let Some(wanted) = wanted.filter(|wanted| condition.is_due(wanted, now)) {
            let done = shown.cluster.set_network_condition(&shown.node, &wanted).await;
            shown.note(NODE_CONDITION, &mut condition, wanted, done);
        }
        let is_due =
            |key: &_| taint.is_due(key, now) || taint.is_older_than(LOOK_FOR_TAINT_EVERY, now);
        if let Some(key) = shown.herald.taint.clone().filter(|key| is_ready && is_due(key)) {
            let done = shown.cluster.remove_taint(&shown.node, &key).await;
            if done == Ok(true) {
                info!(key, "the start-up taint is off the Node: a pod could get an address");
            }
            shown.note(NODE_TAINT, &mut taint, key, done.map(|_was_there| ()));
        }
        if shown.herald.annotations
            && let Ok(view) = asking::view_now(&shown.herald.socket).await
        {
            let wanted = of_view(&view);
            if annotations.is_due(&wanted, now) {
                let done = shown.cluster.annotate_node(&shown.node, &wanted).await;
                shown.note(NODE_ANNOTATIONS, &mut annotations, wanted, done);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Shown {
    fn note<T>(
        &mut self,
        of: &'static str,
        pace: &mut Pace<T>,
        written: T,
        done: Result<(), PatchFault>,
    ) {
        let now = Instant::now();
        let fault = match done {
            Ok(()) => {
                pace.succeed(written, now);
                None
            }
            Err(PatchFault::Conflict) => return pace.fail(now),
            Err(PatchFault::Gone) => Some(format!("there is no Node {}", self.node).into()),
            Err(PatchFault::Failed(fault)) => Some(fault),
        };
        if fault.is_some() {
            pace.fail(now);
        }
        self.desk.take(News::Health { of, fault });
    }
}

/// The annotations for what the daemon shows.
fn of_view(view: &v1::ViewReply) -> BTreeMap<&'static str, String> {
    let v1::Capacity { addresses, pods } = view.capacity.unwrap_or_default();
    let blocks = view.enis.iter().flat_map(|eni| &eni.blocks).map(|block| block.cidr.as_str());
    let is_single = |cidr: &str| cidr.ends_with("/32") || cidr.ends_with("/128");
    let mut prefixes: Vec<_> = blocks.filter(|cidr| !is_single(cidr)).collect();
    prefixes.sort_unstable();
    BTreeMap::from([
        (CAPACITY, addresses.to_string()),
        (MAX_PODS, pods.to_string()),
        (PREFIXES, prefixes.join(",")),
    ])
}

/// When something is written: only after a change, and not too often.
#[derive(Debug)]
struct Pace<T> {
    written: Option<(T, Instant)>,
    /// When the next write may be tried, and the pause after the next failure.
    next: Option<Instant>,
    pause: Duration,
}

impl<T> Default for Pace<T> {
    fn default() -> Self {
        Self { written: None, next: None, pause: WRITE_EVERY }
    }
}

impl<T> Pace<T> {
    fn may_write(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    fn is_due(&self, wanted: &T, now: Instant) -> bool
    where
        T: PartialEq,
    {
        let is_changed = self.written.as_ref().is_none_or(|(written, _)| written != wanted);
        is_changed && self.may_write(now)
    }

    fn is_older_than(&self, age: Duration, now: Instant) -> bool {
        let is_old = |(_, at): &(T, Instant)| now.duration_since(*at) >= age;
        self.written.as_ref().is_some_and(is_old) && self.may_write(now)
    }

    fn succeed(&mut self, written: T, now: Instant) {
        self.written = Some((written, now));
        self.next = Some(now + WRITE_EVERY);
        self.pause = WRITE_EVERY;
    }

    fn fail(&mut self, now: Instant) {
        self.next = Some(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// For how long no pod could get an address.
#[derive(Debug)]
struct Readiness {
    unready_since: Option<Instant>,
}

impl Readiness {
    fn new(now: Instant) -> Self {
        Self { unready_since: Some(now) }
    }

    /// The condition to show; `None` to leave it as it is.
    fn observe(&mut self, unready: Option<String>, now: Instant) -> Option<NetworkCondition> {
        let Some(why) = unready else {
            self.unready_since = None;
            return Some(NetworkCondition {
                is_unavailable: false,
                reason: "PodsGetAddresses",
                message: "ipamd gives pods addresses of the VPC".to_owned(),
            });
        };
        let since = *self.unready_since.get_or_insert(now);
        (now.duration_since(since) >= UNREADY_FOR).then(|| NetworkCondition {
            is_unavailable: true,
            reason: "NoAddresses",
            // The code alone: a text with counts would be another one each time.
            message: format!("no pod gets an address: {}", why.split(':').next().unwrap_or("")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condition_says_after_a_minute_that_the_network_is_away() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut readiness = Readiness::new(start);
        let why = || Some("STARTING: EC2 has not answered 3 of 4".to_owned());
        assert_eq!(readiness.observe(why(), at(59)), None);
        let condition = readiness.observe(why(), at(60)).unwrap();
        assert!(condition.is_unavailable);
        assert_eq!(condition.message, "no pod gets an address: STARTING");
        assert!(!readiness.observe(None, at(61)).unwrap().is_unavailable);
        assert_eq!(readiness.observe(why(), at(70)), None, "a restart is no outage");
        assert_eq!(readiness.observe(why(), at(129)), None);
        assert!(readiness.observe(why(), at(130)).unwrap().is_unavailable);
    }

    #[test]
    fn writes_come_after_changes_and_not_too_often() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        assert!(pace.is_due(&1, at(0)));
        pace.succeed(1, at(0));
        assert!(!pace.is_due(&1, at(100)), "nothing has changed");
        assert!(!pace.is_due(&2, at(9)) && pace.is_due(&2, at(10)));
        assert!(!pace.is_older_than(LOOK_FOR_TAINT_EVERY, at(599)));
        assert!(pace.is_older_than(LOOK_FOR_TAINT_EVERY, at(600)));
        for (second, next) in [(10, 20), (20, 40), (40, 80), (80, 160), (160, 280), (280, 400)] {
            pace.fail(at(second));
            assert!(!pace.is_due(&2, at(next - 1)) && pace.is_due(&2, at(next)), "{second}");
        }
    }

    #[test]
    fn annotations_name_capacity_and_prefixes_in_order() {
        let block =
            |cidr: &str| v1::BlockView { cidr: cidr.to_owned(), ..v1::BlockView::default() };
        let blocks = ["10.0.1.0/28", "10.0.0.9/32", "10.0.0.0/28"].map(block).into();
        let view = v1::ViewReply {
            capacity: Some(v1::Capacity { addresses: 432, pods: 110 }),
            enis: vec![v1::EniView { blocks, ..v1::EniView::default() }],
            ..v1::ViewReply::default()
        };
        let expect = [
            (CAPACITY, "432".to_owned()),
            (MAX_PODS, "110".to_owned()),
            (PREFIXES, "10.0.0.0/28,10.0.1.0/28".to_owned()),
        ];
        assert_eq!(of_view(&view), BTreeMap::from(expect));
    }
}
