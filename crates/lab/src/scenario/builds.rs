//! The load and the VPC of each scenario.

use std::time::Duration;

use ec2_model::config::AddressChoice;
use ipnet::Ipv4Net;

use super::{LARGE, MINUTE, SEED, Shape, Size, XLARGE, XLARGE_4};
use crate::spec::{Subnet, VpcSpec};
use crate::trace::{self, Trace, TraceAction, TraceStep};

const SECOND: Duration = Duration::from_secs(1);

fn net(text: &str) -> Ipv4Net {
    text.parse().expect("it is written out in this file")
}

pub(super) fn burst(size: Size) -> Shape {
    let (nodes, pods, minutes) = size.pick((500, 23_000, 30), (50, 2_300, 5));
    Shape::new(VpcSpec::wide(), nodes, trace::burst(pods), minutes * MINUTE)
}

pub(super) fn join(size: Size) -> Shape {
    let (nodes, pods, minutes) = size.pick((150, 3_000, 30), (30, 600, 10));
    Shape::new(VpcSpec::wide(), 0, trace::joining(nodes, pods), minutes * MINUTE)
}

pub(super) fn day(size: Size) -> Shape {
    let span = size.pick(24 * 60, 15) * MINUTE;
    let trace = trace::one_per(SECOND, span, 30 * SECOND);
    Shape { types: &[XLARGE_4], ..Shape::new(VpcSpec::wide(), 1, trace, span + 10 * MINUTE) }
}

pub(super) fn fragmented(size: Size) -> Shape {
    let (nodes, pods) = size.pick((10, 300), (5, 150));
    let subnet = Subnet::fragmented(net("10.0.0.0/20"), 16);
    Shape::new(VpcSpec::realistic(vec![subnet]), nodes, trace::burst(pods), 20 * MINUTE)
}

pub(super) fn dry(_: Size) -> Shape {
    let vpc = VpcSpec {
        // A nearly full subnet with random addresses has no free /28 except by luck.
        address_choice: AddressChoice::LowestFirst,
        ..VpcSpec::realistic(vec![Subnet::for_nodes(net("10.0.0.0/23"))])
    };
    let trace = vec![
        step(Duration::ZERO, TraceAction::Occupy { subnet: 0, addresses: 512 }),
        step(SECOND, TraceAction::Create { pods: 150, life: None }),
        step(10 * MINUTE, TraceAction::Vacate { subnet: 0 }),
    ];
    Shape::new(vpc, 4, trace, 20 * MINUTE)
}

pub(super) fn churn(size: Size) -> Shape {
    let (nodes, standing, gap, minutes) = size.pick((20, 400, 1, 120), (5, 100, 4, 20));
    let gap = Duration::from_secs(gap);
    let trace = trace::churn(standing, gap, 2 * MINUTE, minutes * MINUTE, SEED);
    Shape::new(VpcSpec::wide(), nodes, trace, minutes * MINUTE)
}

pub(super) fn mixed(size: Size) -> Shape {
    let types = &[LARGE, XLARGE, XLARGE_4];
    Shape { types, nodes: size.pick(12, 3), ..churn(size) }
}

pub(super) fn batch(size: Size) -> Shape {
    let (nodes, pods, minutes) = size.pick((20, 400, 120), (5, 100, 30));
    let span = minutes * MINUTE;
    let trace = trace::batch_jobs(pods, 2 * MINUTE, 10 * MINUTE, span, SEED);
    Shape::new(VpcSpec::wide(), nodes, trace, span)
}

pub(super) fn rolling(size: Size) -> Shape {
    let (nodes, pods, times) = size.pick((20, 500, 4), (5, 125, 2));
    let trace = trace::rolling_deployment(pods, 15 * MINUTE, times);
    Shape::new(VpcSpec::wide(), nodes, trace, 15 * MINUTE * (times + 1))
}

pub(super) fn scale_in(size: Size) -> Shape {
    let (nodes, pods, left) = size.pick((20, 600, 100), (5, 150, 25));
    let trace = trace::scale_in(pods, left, 15 * MINUTE);
    Shape::new(VpcSpec::wide(), nodes, trace, 45 * MINUTE)
}

pub(super) fn replacement(size: Size) -> Shape {
    let (nodes, pods, replaced) = size.pick((20, 400, 10), (5, 100, 3));
    let trace = trace::node_replacement(pods, replaced, 5 * MINUTE);
    Shape::new(VpcSpec::wide(), nodes, trace, 5 * MINUTE * (replaced + 2))
}

fn step(at: Duration, action: TraceAction) -> TraceStep {
    TraceStep { at, action }
}

pub(super) fn trickle_1(size: Size) -> Shape {
    trickle(SECOND, size)
}

pub(super) fn trickle_5(size: Size) -> Shape {
    trickle(5 * SECOND, size)
}

pub(super) fn trickle_30(size: Size) -> Shape {
    trickle(30 * SECOND, size)
}

fn trickle(gap: Duration, size: Size) -> Shape {
    let pods = size.pick(30, 20);
    let create = TraceAction::Create { pods: 1, life: None };
    let mut trace: Trace = (0..pods).map(|n| step(gap * n, create.clone())).collect();
    let gone = gap * pods + 10 * MINUTE;
    trace.push(step(gone, TraceAction::Delete { pods }));
    Shape::new(VpcSpec::wide(), 1, trace, gone + 15 * MINUTE)
}

pub(super) fn ramp(size: Size) -> Shape {
    let (nodes, share, minutes) = size.pick((20, 1.0, 60), (5, 0.25, 10));
    let up = minutes * MINUTE;
    let rate = move |at: Duration| {
        let way = at.as_secs_f64() / up.as_secs_f64();
        share * way.min(2.0 - way).max(0.0)
    };
    let life = 10 * MINUTE;
    let trace = trace::varying(rate, share, life, 2 * up, SEED);
    Shape::new(VpcSpec::wide(), nodes, trace, 2 * up + 4 * life)
}

pub(super) fn diurnal(size: Size) -> Shape {
    let (nodes, most, day, life) =
        size.pick((20, 0.2, 24 * 60 * MINUTE, 30 * MINUTE), (5, 0.25, 20 * MINUTE, 4 * MINUTE));
    let rate = move |at: Duration| {
        let turn = at.as_secs_f64() / day.as_secs_f64() * std::f64::consts::TAU;
        // From a tenth at midnight to all at noon.
        most * (0.55 - 0.45 * turn.cos())
    };
    let trace = trace::varying(rate, most, life, 2 * day, SEED);
    Shape::new(VpcSpec::wide(), nodes, trace, 2 * day)
}

pub(super) fn heavy_tail(size: Size) -> Shape {
    let (nodes, gap, minutes) = size.pick((20, 20, 240), (5, 60, 40));
    let span = minutes * MINUTE;
    let trace = trace::heavy_tailed(Duration::from_secs(gap), span, SEED);
    Shape::new(VpcSpec::wide(), nodes, trace, span)
}

pub(super) fn ci(size: Size) -> Shape {
    let span = size.pick(120, 15) * MINUTE;
    let trace = trace::batch_jobs(10, 10 * SECOND, 20 * SECOND, span, SEED);
    Shape::new(VpcSpec::wide(), 5, trace, span + 10 * MINUTE)
}

pub(super) fn spot(size: Size) -> Shape {
    let (nodes, pods, taken, times) = size.pick((20, 400, 3, 10), (5, 100, 1, 3));
    let mut trace = trace::burst(pods);
    for n in 1..=times {
        let at = 10 * MINUTE * n;
        trace.push(step(at, TraceAction::Drain { nodes: taken }));
        trace.push(step(at + MINUTE, TraceAction::Join { nodes: taken }));
    }
    Shape::new(VpcSpec::wide(), nodes, trace, 10 * MINUTE * (times + 1))
}

pub(super) fn autoscale(size: Size) -> Shape {
    let (nodes, more, pods) = size.pick((5, 5, 150), (2, 2, 60));
    let mut trace = trace::burst(pods);
    for n in 1..=4 {
        let at = 10 * MINUTE * n;
        trace.push(step(at, TraceAction::Join { nodes: more }));
        trace.push(step(at, TraceAction::Create { pods, life: None }));
    }
    let peak = 60 * MINUTE;
    let share = pods / more;
    for n in 0..4 * more {
        let at = peak + 2 * MINUTE * n;
        trace.push(step(at, TraceAction::Delete { pods: share }));
        trace.push(step(at + SECOND, TraceAction::Drain { nodes: 1 }));
    }
    Shape::new(VpcSpec::wide(), nodes, trace, peak + 2 * MINUTE * 4 * more + 20 * MINUTE)
}
