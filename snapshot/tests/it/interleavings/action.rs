//! What can happen next. Every action is meaningful in every world, so that any part of a program is a program.

use keybed_env::{Random, fs::Fault};

/// One step; `actor`, `a` and `b` choose among what there is at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) what: What,
    pub(crate) actor: u8,
    pub(crate) a: u8,
    pub(crate) b: u8,
    pub(crate) trouble: Trouble,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Begin,
    Put,
    Publish,
    Abort,
    Checkpoint,
    Compact,
    Clean,
    Pin,
    Unpin,
    SavepointBegin,
    SavepointPut,
    SavepointPublish,
    SavepointAbandon,
    Export,
    Dispose,
    DisposeCheckpoint,
    NewJob,
    Resume,
    ResumeOlder,
    Restore,
    Finish,
    Close,
    Forget,
    Gc,
    Release,
}

/// What happens to the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    /// The n-th call that can meet the fault fails, once.
    Fail(Fault, u8),
    /// The process dies at its n-th call.
    Kill(u8),
    /// The power fails at the n-th call.
    PowerLoss(u8),
}

/// How often each step is drawn.
const WEIGHTS: &[(What, u64)] = &[
    (What::Begin, 12),
    (What::Put, 16),
    (What::Publish, 12),
    (What::Abort, 6),
    (What::Checkpoint, 36),
    (What::Compact, 10),
    (What::Clean, 20),
    (What::Pin, 6),
    (What::Unpin, 6),
    (What::SavepointBegin, 16),
    (What::SavepointPut, 16),
    (What::SavepointPublish, 16),
    (What::SavepointAbandon, 2),
    (What::Export, 6),
    (What::Dispose, 14),
    (What::DisposeCheckpoint, 2),
    (What::NewJob, 4),
    (What::Resume, 20),
    (What::ResumeOlder, 4),
    (What::Restore, 16),
    (What::Finish, 1),
    (What::Close, 1),
    (What::Forget, 4),
    (What::Gc, 6),
    (What::Release, 3),
];

impl Action {
    pub(crate) fn draw(random: &mut Random) -> Action {
        let total: u64 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut at = random.below(total);
        let chosen = WEIGHTS.iter().find(|(_, weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        let mut byte = || random.below(256) as u8;
        let (actor, a, b) = (byte(), byte(), byte());
        // Short calls come first, long ones have their turn.
        let scale = 1 + random.below(6);
        let nth = 1 + random.below(1 << scale) as u8;
        let trouble = match random.below(40) {
            0 | 1 => Trouble::Fail(Fault::ALL[random.index(Fault::ALL.len())], nth),
            2 => Trouble::Kill(nth),
            3 => Trouble::PowerLoss(nth),
            _ => Trouble::None,
        };
        Action {
            what: chosen.unwrap_or(&WEIGHTS[0]).0,
            actor,
            a,
            b,
            trouble,
        }
    }
}
