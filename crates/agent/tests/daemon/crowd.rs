//! Many connections. Closed ones leave nothing behind, and too many at once do not end the daemon.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::AsyncWriteExt as _;

use crate::node::{TestNode, until};

/// Marks the child process, whose daemon has few file descriptors.
const CROWDED: &str = "TIDEPOOL_TEST_CROWDED";
/// At most this many descriptors are open in this process, where many tests run at once.
const FEW: usize = 1000;

fn n_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until the daemons of this process have closed all but the descriptors that the tests need.
pub(crate) async fn until_few_descriptors() {
    let few = || async { (n_descriptors() <= FEW).then_some(()) };
    until("descriptors to be closed", few).await;
}

#[tokio::test]
async fn ten_thousand_closed_connections_leave_nothing() {
    let node = TestNode::new();
    let daemon = node.start().await;
    for n in 0..10_000 {
        // A connect fails while the listener's backlog is full.
        let place = || async { tokio::net::UnixStream::connect(node.socket()).await.ok() };
        let mut connection = until("a place in the backlog", place).await;
        if n % 2 == 0 {
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            connection.write_all(preface).await.unwrap();
        }
    }
    until_few_descriptors().await;
    node.client().await.add("c1").await.unwrap();
    daemon.stop().await.unwrap();
}

#[test]
fn too_many_connections_neither_end_nor_busy_the_daemon() {
    // In a child process, since the limit holds for a whole process.
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "crowd::crowd_in_child_process", "--ignored", "--nocapture"])
        .env(CROWDED, "1");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
}

#[tokio::test]
#[ignore = "needs a limit of its own, started by the test above"]
async fn crowd_in_child_process() {
    assert!(std::env::var_os(CROWDED).is_some(), "the limit would hold for the other tests too");
    let node = TestNode::new();
    let daemon = node.start().await;
    node.client().await.add("c1").await.unwrap();
    let stat = File::open("/proc/self/stat").unwrap();
    let one = || net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let crowd: Vec<OwnedFd> = std::iter::repeat_with(one).take(60).collect();
    // The daemon can accept a third of the connections.
    let limit = Some(n_descriptors() as u64 + 20);
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).unwrap();
    let address = SocketAddrUnix::new(node.socket()).unwrap();
    crowd.iter().for_each(|one| net::connect(one, &address).unwrap());

    // Accepted connections have used up the descriptors, so the daemon fails to accept the rest.
    until("the limit", || async { File::open("/dev/null").is_err().then_some(()) }).await;

    // The sleep is the span of a measurement. In it the daemon may use a quarter of one CPU, and uses a hundredth.
    let (start, before) = (Instant::now(), cpu_time(&stat));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (span, spent) = (start.elapsed(), cpu_time(&stat) - before);
    assert!(spent * 4 < span, "{spent:?} of CPU time within {span:?}, with nothing to do");

    drop(crowd);
    assert_eq!(node.client().await.check("c1").await.len(), 1);
    daemon.stop().await.unwrap();
}

/// The CPU time of this process so far. Source: proc_pid_stat(5), `utime` and `stime`, in
/// hundredths of a second.
fn cpu_time(stat: &File) -> Duration {
    let mut text = [0; 1024];
    let n = stat.read_at(&mut text, 0).unwrap();
    let text = String::from_utf8_lossy(&text[..n]).into_owned();
    let (_, fields) = text.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap());
    Duration::from_millis(10 * ticks.sum::<u64>())
}
