//! Numbers that the kernel gives to other network namespaces. By its number a namespace can be read and changed without
//! its path. A number belongs to the namespace in which it is asked for, and goes with the namespace that it names.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use rustix::io::Errno;

use crate::netlink::{KernelError, Netlink};
use crate::netns::Netns;

/// Asks the kernel to choose a number (`NETNSA_NSID_NOT_ASSIGNED`). In an answer: there is none.
const NONE: i32 = -1;

/// Gives the namespace a number, unless it has one.
pub(crate) async fn assign(netlink: &Netlink, netns: &Netns) -> Result<(), KernelError> {
    let message = message(vec![NsidAttribute::Id(NONE), by_file(netns)]);
    match netlink.change(RouteNetlinkMessage::NewNsId(message), 0).await {
        Err(error) if error.is(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// The number of the namespace, if it has one.
pub(crate) async fn of(netlink: &Netlink, netns: &Netns) -> Result<Option<i32>, KernelError> {
    ask(netlink, by_file(netns)).await
}

/// The number of the calling thread's namespace, if it has one. The kernel gives it one as soon as it lists a link elsewhere
/// that belongs to one of its links.
pub(crate) async fn own(netlink: &Netlink) -> Result<Option<i32>, KernelError> {
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    ask(netlink, NsidAttribute::Pid(thread.cast_unsigned())).await
}

async fn ask(netlink: &Netlink, about: NsidAttribute) -> Result<Option<i32>, KernelError> {
    let message = message(vec![about]);
    let answer = netlink.get(RouteNetlinkMessage::GetNsId(message)).await?;
    Ok(number(&answer))
}

/// The numbers of all namespaces that have one.
pub(crate) async fn list(netlink: &Netlink) -> Result<Vec<i32>, KernelError> {
    let found = netlink.dump(RouteNetlinkMessage::GetNsId(message(Vec::new()))).await?;
    Ok(found.iter().filter_map(number).collect())
}

/// Whether a request by number was refused since the namespace has gone.
pub(crate) fn is_gone(error: &KernelError) -> bool {
    error.is(Errno::INVAL)
}

fn message(attributes: Vec<NsidAttribute>) -> NsidMessage {
    let mut message = NsidMessage::default();
    message.attributes = attributes;
    message
}

fn by_file(netns: &Netns) -> NsidAttribute {
    NsidAttribute::Fd(netns.raw_fd().cast_unsigned())
}

fn number(answer: &RouteNetlinkMessage) -> Option<i32> {
    let RouteNetlinkMessage::NewNsId(message) = answer else { return None };
    message.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(number) if *number != NONE => Some(*number),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;
    use crate::{address, link};

    /// A namespace of this test process, removed when dropped.
    struct Namespace(String);

    impl Namespace {
        fn new(role: &str) -> Self {
            let name = format!("nsid-{role}-{}", std::process::id());
            ip(&["netns", "add", &name]);
            Self(name)
        }

        fn open(&self) -> Netns {
            Netns::open(&PathBuf::from("/run/netns").join(&self.0)).unwrap()
        }

        fn ip(&self, arguments: &str) {
            let words: Vec<_> = ["-n", &self.0].into_iter().chain(arguments.split(' ')).collect();
            ip(&words);
        }
    }

    impl Drop for Namespace {
        fn drop(&mut self) {
            let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
        }
    }

    fn ip(arguments: &[&str]) {
        let out = Command::new("ip").args(arguments).output().unwrap();
        assert!(out.status.success(), "ip {arguments:?}: {out:?}");
    }

    #[test]
    fn namespaces_are_read_and_changed_by_their_numbers() {
        if std::env::var("TIDEPOOL_SKIP_ROOT_TESTS").is_ok_and(|value| value == "1") {
            return;
        }
        let (node, pod) = (Namespace::new("node"), Namespace::new("pod"));
        pod.ip("link add c1 type veth peer name c2");
        pod.ip("link set c1 up");
        pod.ip("address add 10.0.2.20/24 dev c1");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let test = async {
            let netlink = Netlink::open().unwrap();
            assert_eq!(list(&netlink).await, Ok(vec![]));
            assert_eq!(of(&netlink, &pod.open()).await, Ok(None));
            assert_eq!(own(&netlink).await, Ok(None));
            for _ in 0..2 {
                assign(&netlink, &pod.open()).await.unwrap();
            }
            let number = of(&netlink, &pod.open()).await.unwrap().unwrap();
            assert_eq!(list(&netlink).await, Ok(vec![number]));
            assert_eq!(own(&netlink).await, Ok(None));

            let links = link::list_in(&netlink, number).await.unwrap();
            let c1 = links.iter().find(|link| link.name == "c1").unwrap();
            let addresses = address::list_in(&netlink, number, c1.index).await.unwrap();
            assert_eq!(addresses, ["10.0.2.20/24".parse().unwrap()]);
            for _ in 0..2 {
                link::delete_in(&netlink, number, c1.index).await.unwrap();
            }
            let links = link::list_in(&netlink, number).await.unwrap();
            assert!(links.iter().all(|link| link.name != "c1"), "{links:?}");
            let gone = address::list_in(&netlink, number, c1.index).await.unwrap_err();
            assert!(link::is_gone(&gone), "{gone}");

            assign(&netlink, &node.open()).await.unwrap();
            let own_number = own(&netlink).await.unwrap();
            assert!(own_number.is_some_and(|own| own != number), "{own_number:?}");

            let never_given = number + 7;
            let gone = link::list_in(&netlink, never_given).await.unwrap_err();
            assert!(is_gone(&gone), "{gone}");
            let gone = address::list_in(&netlink, never_given, 1).await.unwrap_err();
            assert!(is_gone(&gone), "{gone}");
            link::delete_in(&netlink, never_given, 2).await.unwrap();
        };
        node.open().run(|| runtime.block_on(test)).unwrap();
    }
}
