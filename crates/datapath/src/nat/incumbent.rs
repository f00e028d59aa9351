//! What amazon-vpc-cni-k8s leaves in nftables: a table of its own, and chains and rules in the tables of iptables-nft.
//! They are found by their names and comments as its v1.23.1 writes them. Left alone, they would go on translating by
//! the ranges of the day on which its daemon ended.

use std::fs;

use netlink_packet_core::Emitable as _;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, NfTablesMessage, RuleAttribute, RuleMessage, TableAttribute,
    TableMessage,
};

use super::ListedMainRule;
use super::encode::delete_table;
use super::kernel::{dump, get_one};
use crate::netfilter::Netfilter;
use crate::netlink::KernelError;

/// Its own table, of family `ip`.
pub(super) const TABLE: &str = "aws-cni";
/// The tables and chains of iptables that have rules of it.
const CHAINS: [(&str, &str); 3] =
    [("nat", "PREROUTING"), ("nat", "POSTROUTING"), ("mangle", "PREROUTING")];
/// With what its chains' names start.
const CHAIN_PREFIXES: [&str; 2] = ["AWS-SNAT-CHAIN-", "AWS-CONNMARK-CHAIN-"];
/// The comments of its rules.
const COMMENTS: [&str; 4] =
    ["AWS SNAT CHAIN", "AWS, primary ENI", "AWS, outbound connections", "AWS, CONNMARK"];
/// The names of the tables that legacy iptables has, in the reading thread's namespace.
const LEGACY_TABLES: &str = "/proc/thread-self/net/ip_tables_names";

/// For a root shell on the node: removes its rules from legacy iptables, and leaves those of others. They are deleted one by
/// one, under the lock of xtables: another program may write between the two commands.
pub const LEGACY_REMOVAL: &str = r#"iptables-legacy-save | awk '/^[*]/ {print; n = 0}
  /^:AWS-(SNAT|CONNMARK)-CHAIN-/ {print; chain[++n] = substr($1, 2)}
  /^-A [A-Z]+ .*--comment "AWS[, ]/ {sub(/^-A/, "-D"); print}
  /^COMMIT/ {for (i = 1; i <= n; i++) print "-X " chain[i]; print}' | iptables-legacy-restore -w --noflush
ip rule del priority 1024    # ipamd adds its own within a second, and the notice ends"#;

/// Whether its rules may be in legacy iptables: there are such tables, and its routing rule is there. Only a program that
/// replaces whole tables of others could remove them (`docs/adr/0016-legacy-rules-stay.md`), so they are named.
pub(super) fn has_legacy(rules: &[ListedMainRule]) -> bool {
    let tables = fs::read_to_string(LEGACY_TABLES).unwrap_or_default();
    let is_used = tables.lines().any(|table| table == "nat" || table == "mangle");
    is_used && rules.iter().any(ListedMainRule::is_foreign_mark_rule)
}

/// Removes all of it in one transaction. Returns how many tables, chains and rules there were.
pub(super) fn remove(netfilter: &Netfilter) -> Result<usize, KernelError> {
    let mut removals = Vec::new();
    for (table, chain) in CHAINS {
        removals.extend(rules_of_it(netfilter, table, chain)?.into_iter().map(delete_rule));
    }
    // A list of all chains is long beside kube-proxy, so its first chain must be there.
    let chains = match has_first_chain(netfilter)? {
        true => chains_of_it(netfilter)?,
        false => Vec::new(),
    };
    removals.extend(chains.iter().cloned().map(flush));
    removals.extend(chains.into_iter().map(delete_chain));
    let attributes = vec![TableAttribute::Name(TABLE.to_owned())];
    let get = NfTablesMessage::GetTable(TableMessage { attributes });
    if get_one(netfilter, get)?.is_some() {
        removals.push(delete_table(TABLE));
    }
    let n = removals.len();
    if n > 0 {
        netfilter.transaction(removals.into_iter().map(|removal| (removal, 0)).collect())?;
    }
    Ok(n)
}

/// What names a rule of iptables: its table, chain and number.
type RuleName = Vec<RuleAttribute>;
/// What names a chain of the table `nat`.
type ChainName = String;

fn rules_of_it(
    netfilter: &Netfilter,
    table: &str,
    chain: &str,
) -> Result<Vec<RuleName>, KernelError> {
    let place =
        vec![RuleAttribute::Table(table.to_owned()), RuleAttribute::Chain(chain.to_owned())];
    let list = NfTablesMessage::GetRule(RuleMessage { attributes: place });
    let found = dump(netfilter, &list)?.into_iter().filter_map(|message| match message {
        NfTablesMessage::NewRule(rule) if is_of_it(&rule) => Some(rule.attributes),
        _ => None,
    });
    let names_it = |attribute: &RuleAttribute| {
        matches!(
            attribute,
            RuleAttribute::Table(_) | RuleAttribute::Chain(_) | RuleAttribute::Handle(_)
        )
    };
    Ok(found.map(|all| all.into_iter().filter(names_it).collect()).collect())
}

/// iptables keeps a comment as text in the rule, either as a match or as data of the user.
fn is_of_it(rule: &RuleMessage) -> bool {
    let mut bytes = vec![0; rule.attributes.as_slice().buffer_len()];
    rule.attributes.as_slice().emit(&mut bytes);
    COMMENTS
        .iter()
        .any(|comment| bytes.windows(comment.len()).any(|window| window == comment.as_bytes()))
}

/// It makes this chain at each start, whatever its settings.
fn has_first_chain(netfilter: &Netfilter) -> Result<bool, KernelError> {
    let name = ChainAttribute::Name("AWS-SNAT-CHAIN-0".to_owned());
    let attributes = vec![ChainAttribute::Table("nat".to_owned()), name];
    let get = NfTablesMessage::GetChain(ChainMessage { attributes });
    Ok(get_one(netfilter, get)?.is_some())
}

fn chains_of_it(netfilter: &Netfilter) -> Result<Vec<ChainName>, KernelError> {
    let list = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
    let chains = dump(netfilter, &list)?.into_iter().filter_map(|message| match message {
        NfTablesMessage::NewChain(ChainMessage { attributes }) => chain_of_it(attributes),
        _ => None,
    });
    Ok(chains.collect())
}

fn chain_of_it(attributes: Vec<ChainAttribute>) -> Option<ChainName> {
    let (mut is_in_nat, mut found) = (false, None);
    for attribute in attributes {
        match attribute {
            ChainAttribute::Table(table) => is_in_nat = table == "nat",
            ChainAttribute::Name(name) => found = Some(name),
            _ => {}
        }
    }
    let is_its = |name: &String| CHAIN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    found.filter(|name| is_in_nat && is_its(name))
}

fn delete_rule(attributes: RuleName) -> NfTablesMessage {
    NfTablesMessage::DeleteRule(RuleMessage { attributes })
}

/// Removes the rules of a chain.
fn flush(chain: ChainName) -> NfTablesMessage {
    delete_rule(vec![RuleAttribute::Table("nat".to_owned()), RuleAttribute::Chain(chain)])
}

fn delete_chain(chain: ChainName) -> NfTablesMessage {
    let attributes = vec![ChainAttribute::Table("nat".to_owned()), ChainAttribute::Name(chain)];
    NfTablesMessage::DeleteChain(ChainMessage { attributes })
}
