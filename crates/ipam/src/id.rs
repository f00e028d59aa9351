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
    /// The bond between an ENI and an instance: `eni-attach-0123456789abcdef0`.
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

/// A pod's interface as CNI names it; what an address belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttachmentKey {
    /// The `name` of the network configuration; empty if all that is known of the attachment is its
    /// link.
    pub network: String,
    /// `CNI_CONTAINERID`: one sandbox, never used again.
    pub container: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

impl AttachmentKey {
    /// How the plugin marks the attachment's link: `<container>/<ifname>`.
    #[must_use]
    pub fn mark(&self) -> String {
        format!("{}/{}", self.container, self.ifname)
    }

    /// The attachment that `mark` names, of an unknown network; `None` if it is no such mark.
    #[must_use]
    pub fn of_mark(mark: &str) -> Option<Self> {
        let (container, ifname) = mark.split_once('/')?;
        let names = !container.is_empty() && !ifname.is_empty() && !ifname.contains('/');
        names.then(|| Self {
            network: String::new(),
            container: container.to_owned(),
            ifname: ifname.to_owned(),
        })
    }

    /// As it is known by its link alone. No two attachments have the same container and interface.
    #[must_use]
    pub fn nameless(&self) -> Self {
        Self { network: String::new(), ..self.clone() }
    }

    /// Whether it is known by its link alone.
    #[must_use]
    pub fn is_nameless(&self) -> bool {
        self.network.is_empty()
    }
}

impl fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = if self.is_nameless() { "?" } else { &self.network };
        write!(f, "{network}/{}/{}", self.container, self.ifname)
    }
}

/// The pod behind an attachment, as far as the runtime tells. It informs people; nothing is keyed
/// by it, since a pod's name outlives its sandboxes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// `K8S_POD_NAMESPACE`, or empty.
    pub namespace: String,
    /// `K8S_POD_NAME`, or empty.
    pub name: String,
    /// `K8S_POD_UID`, or empty.
    pub uid: String,
}
