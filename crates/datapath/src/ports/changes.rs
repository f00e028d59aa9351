//! The kernel's notifications of changes to the table.

use std::io;

use futures::Stream;

use super::frame::NAME;
use crate::nat::changes::of_tables;

/// An item for each change from now on, in the calling thread's namespace, whoever makes it: also each ADD and DEL of a
/// pod with ports. The stream ends if the socket fails.
///
/// # Errors
///
/// If no netlink socket can be opened.
pub fn changes() -> io::Result<impl Stream<Item = ()> + Send + Unpin> {
    of_tables(&[NAME])
}
