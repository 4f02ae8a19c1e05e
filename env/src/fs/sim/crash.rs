//! One disk that a power loss may leave behind.
//!
//! ```text
//! durable tree ── + some pending names ── + some pending bytes of each file ── drop what has no name ── image
//!                   none, all, a prefix,    none, all, a torn prefix, or per
//!                   or a consistent subset  sector: kept, old, zero, torn
//! ```

use super::{
    content::Content,
    durable::{DataOp, Durable, NameOp},
    tree::{Node, Tree},
};
use crate::Random;

/// A medium writes this much at once or not at all; a torn sector is allowed all the same.
const SECTOR_BYTES: u64 = 512;

/// What is durable and nothing else.
pub(super) fn strict(durable: &Durable) -> Tree {
    reachable(durable.tree.clone())
}

/// What is durable and all that is pending, as the page cache has it.
pub(super) fn everything(durable: &Durable) -> Tree {
    let mut tree = durable.tree.clone();
    durable.names.iter().for_each(|op| op.apply(&mut tree));
    for (inode, ops) in &durable.data {
        let Some(content) = tree.content_mut(*inode) else {
            continue;
        };
        for op in ops {
            match op {
                DataOp::Append { bytes, .. } => content.push(bytes.clone()),
                DataOp::Truncate(len) => content.truncate(*len),
            }
        }
    }
    reachable(tree)
}

/// The `draw`-th of `draws` images: what is durable and a part of what is pending. If all subsets of the pending
/// names fit into the draws each gets its turn; otherwise the part is random. Bytes are always random.
pub(super) fn image(durable: &Durable, draw: u32, draws: u32, random: &mut Random) -> Tree {
    let mut tree = durable.tree.clone();
    let names = &durable.names;
    let subsets = u32::try_from(names.len()).ok().and_then(|n| 1_u32.checked_shl(n));
    match subsets.filter(|subsets| *subsets <= draws) {
        Some(subsets) => {
            let chosen = draw % subsets;
            subset(names, &mut tree, |i| chosen >> i & 1 == 1);
        }
        None => some_names(names, &mut tree, random),
    }
    let everywhere = (!random.one_in(2)).then(|| Fate::draw(random));
    for (inode, ops) in &durable.data {
        let Some(synced) = tree.content(*inode) else {
            continue;
        };
        let fate = everywhere.unwrap_or_else(|| Fate::draw(random));
        let content = survive(synced, ops, fate, random);
        tree.put_node(*inode, Node::File(content));
    }
    reachable(tree)
}

fn reachable(mut tree: Tree) -> Tree {
    tree.retain(&tree.reachable());
    tree
}

/// Applies none, all, a prefix or a random subset.
fn some_names(names: &[NameOp], tree: &mut Tree, random: &mut Random) {
    match random.below(8) {
        0 => {}
        1 => names.iter().for_each(|op| op.apply(tree)),
        2..=4 => {
            let kept = random.index(names.len() + 1);
            names[..kept].iter().for_each(|op| op.apply(tree));
        }
        _ => {
            let kept_of_8 = 1 + random.below(7);
            subset(names, tree, |_| random.below(8) < kept_of_8);
        }
    }
}

/// Applies the chosen operations, but none that needs one that was left out.
fn subset(names: &[NameOp], tree: &mut Tree, mut chosen: impl FnMut(usize) -> bool) {
    let mut left_out: Vec<&NameOp> = Vec::new();
    for (i, op) in names.iter().enumerate() {
        if chosen(i) && !left_out.iter().any(|earlier| op.needs(earlier)) {
            op.apply(tree);
        } else {
            left_out.push(op);
        }
    }
}

/// What becomes of the bytes of a file that no sync covered.
#[derive(Clone, Copy)]
enum Fate {
    Lost,
    Kept,
    Prefix,
    Sectors,
}

impl Fate {
    fn draw(random: &mut Random) -> Self {
        [Fate::Lost, Fate::Kept, Fate::Prefix, Fate::Sectors][random.index(4)]
    }
}

fn survive(synced: &Content, ops: &[DataOp], fate: Fate, random: &mut Random) -> Content {
    let (ops, torn) = match fate {
        Fate::Lost => return synced.clone(),
        Fate::Kept => (ops, None),
        Fate::Prefix | Fate::Sectors => {
            let whole = random.index(ops.len() + 1);
            (&ops[..whole], ops.get(whole))
        }
    };
    let mut content = synced.clone();
    let mut stable = synced.len();
    for op in ops {
        match op {
            DataOp::Append { bytes, dropped } => content.push(surviving(bytes, *dropped, random)),
            DataOp::Truncate(len) => {
                content.truncate(*len);
                stable = stable.min(*len);
            }
        }
    }
    if let Some(DataOp::Append { bytes, dropped }) = torn {
        let length = random.index(bytes.len() + 1);
        content.push(surviving(&bytes[..length].into(), *dropped, random));
    }
    if matches!(fate, Fate::Sectors) {
        scatter(&mut content, stable, synced, random);
    }
    content
}

/// Bytes that a failed sync dropped read as zeros, unless that sync had got as far as them.
fn surviving(bytes: &std::sync::Arc<[u8]>, dropped: bool, random: &mut Random) -> std::sync::Arc<[u8]> {
    if dropped && !random.one_in(4) {
        vec![0; bytes.len()].into()
    } else {
        bytes.clone()
    }
}

/// Rewrites the sectors from `stable` on, each by its own lot.
fn scatter(content: &mut Content, stable: u64, synced: &Content, random: &mut Random) {
    let mut tail = content.tail(stable);
    let mut at = stable;
    while at < content.len() {
        let end = content.len().min((at / SECTOR_BYTES + 1) * SECTOR_BYTES);
        let sector = &mut tail[(at - stable) as usize..(end - stable) as usize];
        match random.below(8) {
            0..=3 => {}
            4 => sector.fill(0),
            5 => {
                let kept = random.index(sector.len());
                sector[kept..].fill(0);
            }
            6 => {
                let kept = random.index(sector.len());
                sector[..kept].fill(0);
            }
            _ => {
                sector.fill(0);
                let old = sector.len().min(synced.len().saturating_sub(at) as usize);
                synced.read(&mut sector[..old], at);
            }
        }
        at = end;
    }
    content.truncate(stable);
    content.push(tail.into());
}
