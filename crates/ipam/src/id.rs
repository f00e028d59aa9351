//! Names that EC2 and CNI give to things, each a type of its own.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An EC2 id that lacks the prefix of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {kind} id: expected {prefix}…")]
pub struct InvalidId {
    text: String,
    kind: &'static str,
    prefix: &'static str,
}

macro_rules! ec2_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as EC2 writes it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                if text.len() > $prefix.len() && text.starts_with($prefix) {
                    Ok(Self(text))
                } else {
                    Err(InvalidId { text, kind: $kind, prefix: $prefix })
                }
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidId;

            fn try_from(text: &str) -> Result<Self, InvalidId> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

ec2_id!(
    /// An elastic network interface: `eni-0123456789abcdef0`.
    EniId, "network interface", "eni-"
);
ec2_id!(
    /// The attachment of an ENI to an instance: `eni-attach-0123456789abcdef0`.
    EniAttachmentId, "attachment", "eni-attach-"
);
ec2_id!(
    /// An instance: `i-0123456789abcdef0`.
    InstanceId, "instance", "i-"
);
ec2_id!(
    /// A subnet: `subnet-0123456789abcdef0`.
    SubnetId, "subnet", "subnet-"
);
ec2_id!(
    /// A VPC: `vpc-0123456789abcdef0`.
    VpcId, "VPC", "vpc-"
);
ec2_id!(
    /// A security group: `sg-0123456789abcdef0`.
    SecurityGroupId, "security group", "sg-"
);

/// One start of the machine's kernel, as `/proc/sys/kernel/random/boot_id` names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub String);

/// The network of an attachment: the `name` of its CNI configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Network {
    /// Only the attachment's link is known, and a link does not name its network.
    Unknown,
    /// Never empty.
    Named(String),
}

/// The empty text stands for [`Network::Unknown`], as records have it.
impl From<String> for Network {
    fn from(name: String) -> Self {
        if name.is_empty() { Network::Unknown } else { Network::Named(name) }
    }
}

impl From<&str> for Network {
    fn from(name: &str) -> Self {
        Self::from(name.to_owned())
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        match network {
            Network::Unknown => String::new(),
            Network::Named(name) => name,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::Unknown => f.write_str("?"),
            Network::Named(name) => f.write_str(name),
        }
    }
}

/// A pod's interface as CNI names it. An address belongs to one attachment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttachmentKey {
    /// Its network.
    pub network: Network,
    /// `CNI_CONTAINERID`: one sandbox, never used again.
    pub container: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

impl AttachmentKey {
    /// The mark that the plugin puts on the attachment's link: `<container>/<ifname>`.
    #[must_use]
    pub fn mark(&self) -> String {
        format!("{}/{}", self.container, self.ifname)
    }

    /// The attachment that `mark` names, of an unknown network; `None` if it is no such mark.
    #[must_use]
    pub fn of_mark(mark: &str) -> Option<Self> {
        let (container, ifname) = mark.split_once('/')?;
        let is_mark = !container.is_empty() && !ifname.is_empty() && !ifname.contains('/');
        is_mark.then(|| Self {
            network: Network::Unknown,
            container: container.to_owned(),
            ifname: ifname.to_owned(),
        })
    }

    /// The key of the same attachment when only its link is known. No two attachments have the same
    /// container and interface.
    #[must_use]
    pub fn by_link(&self) -> Self {
        Self { network: Network::Unknown, ..self.clone() }
    }

    /// Whether only the attachment's link is known.
    #[must_use]
    pub fn is_by_link(&self) -> bool {
        self.network == Network::Unknown
    }
}

impl fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container, self.ifname)
    }
}

/// The pod behind an attachment, as far as the runtime names it. It is for people. Nothing is keyed by
/// it, since a pod's name outlives its sandboxes.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pod {
    /// `K8S_POD_NAMESPACE`, or empty.
    pub namespace: String,
    /// `K8S_POD_NAME`, or empty.
    pub name: String,
    /// `K8S_POD_UID`, or empty.
    pub uid: String,
}
