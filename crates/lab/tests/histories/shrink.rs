//! Shrinks a failing history: fewer steps, fewer nodes, simpler steps.

use ipam::policy::Families;

use super::history::History;
use super::metadata::MetadataFault;
use super::step::{HistoryStep, Kill, RecordFate, StepAction};

/// `fails` returns whether a candidate still fails.
pub(super) fn shrink(mut best: History, mut fails: impl FnMut(&History) -> bool) -> History {
    let mut gets_smaller = true;
    while gets_smaller {
        gets_smaller = false;
        for smaller in [drop_steps, simplify_steps, simplify_setting] {
            gets_smaller |= smaller(&mut best, &mut fails);
        }
    }
    best
}

fn try_out(
    best: &mut History,
    candidate: History,
    fails: &mut dyn FnMut(&History) -> bool,
) -> bool {
    let is_smaller = candidate != *best && fails(&candidate);
    if is_smaller {
        *best = candidate;
    }
    is_smaller
}

/// Drops steps: half of them at a time, then a quarter, at last one by one.
fn drop_steps(best: &mut History, fails: &mut dyn FnMut(&History) -> bool) -> bool {
    let mut shrunk = false;
    let mut size = best.steps.len().div_ceil(2);
    while size > 0 {
        let mut from = 0;
        while from < best.steps.len() {
            let mut candidate = best.clone();
            let to = (from + size).min(candidate.steps.len());
            let waited: u64 = candidate.steps.drain(from..to).map(|step| step.wait_ms).sum();
            // Later steps keep their times.
            if let Some(next) = candidate.steps.get_mut(from) {
                next.wait_ms += waited;
            }
            if try_out(best, candidate, fails) {
                shrunk = true;
            } else {
                from += size;
            }
        }
        size /= 2;
    }
    shrunk
}

fn simplify_steps(best: &mut History, fails: &mut dyn FnMut(&History) -> bool) -> bool {
    let mut shrunk = false;
    for place in 0..best.steps.len() {
        for respect in 0..simpler(&best.steps[place]).len() {
            let mut candidate = best.clone();
            candidate.steps[place] = simpler(&best.steps[place]).swap_remove(respect);
            shrunk |= try_out(best, candidate, fails);
        }
    }
    shrunk
}

/// Simpler variants of a step. Variants may equal the step.
fn simpler(step: &HistoryStep) -> Vec<HistoryStep> {
    let mut all: Vec<_> =
        [0, step.wait_ms / 2].map(|wait_ms| HistoryStep { wait_ms, ..step.clone() }).into();
    let what = match &step.what {
        StepAction::Add { pod, .. } => {
            vec![StepAction::Add { pod: *pod, patience_ms: 67_500, transit_ms: 0, again: false }]
        }
        StepAction::Del { pod, .. } => vec![StepAction::Del { pod: *pod, transit_ms: 0 }],
        StepAction::Kill(kill) => simpler_kills(kill).into_iter().map(StepAction::Kill).collect(),
        _ => Vec::new(),
    };
    all.extend(what.into_iter().map(|what| HistoryStep { what, ..step.clone() }));
    all
}

fn simpler_kills(kill: &Kill) -> Vec<Kill> {
    let kill = kill.clone();
    vec![
        Kill { record: RecordFate::Kept, ..kill.clone() },
        Kill { reboot: false, ..kill.clone() },
        Kill { clock_ahead_ms: 0, ..kill.clone() },
        Kill { down_ms: 0, ..kill.clone() },
        Kill { at_effect: 0, ..kill },
    ]
}

fn simplify_setting(best: &mut History, fails: &mut dyn FnMut(&History) -> bool) -> bool {
    let mut shrunk = false;
    let changes: [fn(&mut History); 8] = [
        |history| history.setting.n_nodes = 1,
        |history| history.setting.excess_limits = (0, 0),
        |history| history.setting.foreign_enis = false,
        |history| {
            let policy = &mut history.setting.policy;
            policy.families = Families::single(policy.families.policy());
        },
        |history| history.setting.metadata = MetadataFault::Absent,
        |history| history.setting.vpc.throttling = ec2_model::config::Throttling::Off,
        |history| history.setting.vpc.consistency = ec2_model::config::Consistency::default(),
        |history| history.setting.vpc.latency = ec2_model::config::Latency::default(),
    ];
    for change in changes {
        let mut candidate = best.clone();
        change(&mut candidate);
        shrunk |= try_out(best, candidate, fails);
    }
    shrunk
}
