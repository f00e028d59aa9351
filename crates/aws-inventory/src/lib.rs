//! Reads the inventory of an address space from EC2, in any number of accounts and Regions. It changes nothing there.
//!
//! It knows which questions EC2 answers. It must not know what is decided from the answers.

mod answer;
mod ask;
mod pools;

use std::fmt;

use address_space::inventory::Inventory;
use aws::{Caller, ConnectError, Identity, connect};
use aws_config::retry::RetryConfig;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

pub use self::answer::BadField;
use self::ask::Question;

/// Accounts and Regions that are asked at once. Each has token buckets of its own at EC2.
const AT_ONCE: usize = 8;
/// How often a call is made that EC2 throttles or that fails on its way. Nothing that is read here changes anything.
const ATTEMPTS: u32 = 4;

/// Why there is no inventory.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A thread or a timer cannot be made.
    #[error("start the client")]
    Runtime(#[source] std::io::Error),
    /// No client can be made.
    #[error("make a client of EC2")]
    Connect(#[from] ConnectError),
    /// Nothing names a Region.
    #[error("no Region is named: give --region, or set AWS_REGION")]
    NoRegion,
    /// EC2 has not answered a question that every audit needs.
    #[error("ask EC2 {asked}")]
    Call {
        /// What was asked, and where.
        asked: Asked,
        /// Why not.
        source: CallFault,
    },
    /// An answer lacks a field, or has a value that it cannot have.
    #[error("read EC2's answer to {asked}")]
    Answer {
        /// What was asked, and where.
        asked: Asked,
        /// The field.
        source: BadField,
    },
}

/// A question, in which Region, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The operation: `DescribeVpcs`.
    pub operation: &'static str,
    /// The Region.
    pub region: String,
    /// ` as profile shop`; empty for the default credentials.
    pub identity: String,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, region, identity } = self;
        write!(f, "{operation} in {region}{identity}")
    }
}

/// Why EC2 has not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct CallFault {
    /// EC2's code, or a word for a failure before EC2's answer.
    pub code: String,
    /// EC2's message, or the chain of causes.
    pub message: String,
}

/// Reads what all `callers` see, and waits for it. What two of them see is kept once.
///
/// VPCs, subnets and interfaces have to be readable. What else is not is a gap of the inventory.
///
/// # Errors
/// The first caller's that fails.
pub fn read(callers: &[Caller]) -> Result<Inventory, ReadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(ReadError::Runtime)?.block_on(async {
        // In order: of two views of one resource the first caller's stays.
        let reads = stream::iter(callers).map(read_one).buffered(AT_ONCE);
        let fold = reads.try_fold(Inventory::default(), |mut all, one| async {
            all.add(one);
            Ok(all)
        });
        fold.await
    })
}

async fn read_one(caller: &Caller) -> Result<Inventory, ReadError> {
    let retry = RetryConfig::standard().with_max_attempts(ATTEMPTS);
    let (client, region) = connect(caller, retry).await?;
    let region = region.ok_or(ReadError::NoRegion)?;
    let identity = match &caller.identity {
        Identity::Fixed(_) | Identity::Default => String::new(),
        Identity::Profile(name) => format!(" as profile {name}"),
        Identity::Role(arn) => format!(" as {arn}"),
    };
    Question { client, region, identity }.all().await
}
