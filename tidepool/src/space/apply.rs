//! `tidepool ipam plan --apply`: makes the steps of a plan that are missing, after it has asked.
//!
//! It remembers nothing on disk: what an earlier run has made is read from EC2.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::time::Duration;

use address_space::design::Design;
use address_space::design::steps::{Mark, Next, Scope, Step, after, marks, steps};
use address_space::inventory::Inventory;
use anyhow::{Context as _, anyhow};
use aws::Caller;
use aws_apply::Maker;
use command_line::{Exit, Failure, printable};
use ipam::call::CallError;

use super::source::Source;

/// Bytes of an answer at the terminal.
const LONGEST: u64 = 100;
/// Before each further call of a step, and each further look at the end: a minute in all. EC2's buckets refill in
/// seconds, and what is made shows in seconds.
const WAITS: [Duration; 6] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(32),
];
/// Before each look for what a call may have made. EC2 may show a new VPC only after seconds, and a second call too early
/// makes a second VPC.
const LOOKS: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// Before each look for a state that EC2 takes time for: five minutes in all.
const STATES: [Duration; 9] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(40),
    Duration::from_secs(60),
    Duration::from_secs(60),
    Duration::from_secs(60),
    Duration::from_secs(60),
];

/// What is there after an apply.
pub(super) struct Applied {
    pub(super) inventory: Inventory,
    /// Steps that something else is in the way of. Each is named.
    pub(super) n_blocked: usize,
}

/// Makes what is missing, and gives what is there afterwards.
pub(super) fn apply(
    design: &Design,
    scope: Option<&Scope>,
    source: &Source,
    is_agreed: bool,
) -> Result<Applied, Failure> {
    let steps = steps(design, scope);
    let regions: BTreeSet<_> = steps.iter().map(|step| step.region.clone()).collect();
    let account = source.one_account(&regions)?;
    let inventory = read(&account.read, &steps)?;
    let marks = marks(&steps, &inventory);
    let n_blocked = marks.iter().filter(|mark| matches!(mark, Mark::Blocked(_))).count();
    let n_missing = marks.iter().filter(|mark| **mark == Mark::Missing).count();
    for (step, mark) in steps.iter().zip(&marks) {
        match mark {
            Mark::Done(_) => {}
            Mark::Missing => say(&format!("to make: {}", shown(step)))?,
            Mark::Blocked(why) => say(&format!("not made: {}: {why}", shown(step)))?,
        }
    }
    if n_missing == 0 {
        say("nothing to make")?;
        return Ok(Applied { inventory, n_blocked });
    }
    if !is_agreed {
        agree(n_missing)?;
    }
    let maker = Maker::start(&account.write).map_err(anyhow::Error::new)?;
    let mut run = Run { maker, read: account.read, steps: &steps, marks, n_made: 0 };
    for n in 0..steps.len() {
        run.step(n)?;
    }
    say(&format!("{} made", run.n_made))?;
    Ok(Applied { inventory: run.settled()?, n_blocked })
}

/// Asks at the terminal.
fn agree(n_missing: usize) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        let why = "--apply asks before it makes anything, and there is no terminal: give --yes";
        return Err(Failure::new(Exit::Usage, why.to_owned()));
    }
    let mut out = io::stderr().lock();
    write!(out, "make {n_missing} things? Only `yes` does: ").context("ask")?;
    out.flush().context("ask")?;
    let mut answer = String::new();
    io::stdin().lock().take(LONGEST).read_line(&mut answer).context("read the answer")?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Failed, "the answer is not `yes`: nothing is made".to_owned())),
    }
}

fn read(callers: &[Caller], steps: &[Step]) -> Result<Inventory, Failure> {
    let inventory = aws_inventory::read(callers).map_err(anyhow::Error::new)?;
    let mut gaps = inventory.gaps.iter();
    match gaps.find(|gap| steps.iter().any(|step| step.make.read() == gap.operation)) {
        Some(gap) => {
            let (operation, region) = (&gap.operation, &gap.place.region);
            Err(anyhow!("ask EC2 {operation} in {region}, which --apply needs: {}", gap.why).into())
        }
        None => Ok(inventory),
    }
}

/// On stderr: stdout has the report.
fn say(line: &str) -> Result<(), Failure> {
    Ok(writeln!(io::stderr(), "{}", printable(line)).context("print what is done")?)
}

fn shown(step: &Step) -> String {
    format!("{}, {}, {}", step.subject, step.make.what(), step.region)
}

/// An apply under way.
struct Run<'a> {
    maker: Maker,
    read: Vec<Caller>,
    steps: &'a [Step],
    marks: Vec<Mark>,
    n_made: usize,
}

impl Run<'_> {
    /// Makes one step if it is missing and what it is inside of is there.
    fn step(&mut self, n: usize) -> Result<(), Failure> {
        let step = &self.steps[n];
        let id = |before: &usize| match &self.marks[*before] {
            Mark::Done(id) => Some(id.clone()),
            Mark::Missing | Mark::Blocked(_) => None,
        };
        let Some(make) = step.make.inside_of(id).filter(|_| self.marks[n] == Mark::Missing) else {
            return Ok(());
        };
        let mut is_open = false;
        for wait in WAITS {
            self.go_on()?;
            let error = match self.maker.make(step, &make) {
                Ok(_) if make.is_awaited() => return self.awaited(n),
                Ok(id) => return self.made(n, &id),
                Err(error) => error,
            };
            match after(&error, is_open) {
                Next::Stop => return Err(self.stopped(step, &error)),
                Next::Repeat => {
                    say(&format!("{}: {}; waiting", step.subject, error.code))?;
                    self.maker.wait(wait);
                }
                Next::Look => {
                    is_open = true;
                    say(&format!("{}: {}; reading whether it is made", step.subject, error.code))?;
                    if let Some(id) = self.found(n, &LOOKS)? {
                        return self.made(n, &id);
                    }
                }
            }
        }
        Err(self.failed(&format!("{}: EC2 has not done it in {} calls", shown(step), WAITS.len())))
    }

    fn made(&mut self, n: usize, id: &str) -> Result<(), Failure> {
        self.n_made += 1;
        self.marks[n] = Mark::Done(id.to_owned());
        say(&format!("made {}: {id}", self.steps[n].subject))
    }

    /// Waits until what a call has begun is there.
    fn awaited(&mut self, n: usize) -> Result<(), Failure> {
        let subject = &self.steps[n].subject;
        match self.found(n, &STATES)? {
            Some(id) => self.made(n, &id),
            None => Err(self.failed(&format!("{subject}: EC2 has not ended it in five minutes"))),
        }
    }

    /// Looks for what a call may have made: its id.
    fn found(&self, n: usize, looks: &[Duration]) -> Result<Option<String>, Failure> {
        for wait in looks {
            self.maker.wait(*wait);
            self.go_on()?;
            match marks(self.steps, &read(&self.read, self.steps)?).swap_remove(n) {
                Mark::Done(id) => return Ok(Some(id)),
                Mark::Missing => {}
                Mark::Blocked(why) => {
                    return Err(self.failed(&format!("{}: {why}", self.steps[n].subject)));
                }
            }
        }
        Ok(None)
    }

    /// Reads until EC2 shows all that was made.
    fn settled(&self) -> Result<Inventory, Failure> {
        let was_there = |mark: &Mark| matches!(mark, Mark::Done(_));
        let mut inventory = read(&self.read, self.steps)?;
        for wait in WAITS {
            let now = marks(self.steps, &inventory);
            let mut pairs = self.marks.iter().zip(&now);
            if pairs.all(|(then, now)| was_there(now) || !was_there(then)) {
                break;
            }
            self.maker.wait(wait);
            self.go_on()?;
            inventory = read(&self.read, self.steps)?;
        }
        Ok(inventory)
    }

    /// Ends between two calls.
    fn go_on(&self) -> Result<(), Failure> {
        match self.maker.is_interrupted() {
            true => Err(self.failed("interrupted")),
            false => Ok(()),
        }
    }

    fn stopped(&self, step: &Step, error: &CallError) -> Failure {
        let operation = step.make.operation();
        let tags = if step.tags.is_empty() { "" } else { " and ec2:CreateTags" };
        // Other codes of this kind are about the credentials.
        let cure = match &*error.code {
            "UnauthorizedOperation" | "AccessDenied" => format!("; it needs ec2:{operation}{tags}"),
            _ => String::new(),
        };
        self.failed(&format!("{operation} of {}: {error}{cure}", shown(step)))
    }

    fn failed(&self, why: &str) -> Failure {
        let left = "the same command makes the rest";
        Failure::new(Exit::Failed, format!("{why}; {} made, named above; {left}", self.n_made))
    }
}
