//! `keybed sink`: what lies in an output directory, for whom, and giving it up.

pub(crate) mod ls;
pub(crate) mod release;

use crate::snapshot::bytes;
use keybed::runtime::sink::{HeldBy, HeldParts, PartCount};
use serde_json::{Value, json};

fn count_text(count: PartCount) -> String {
    format!("{} parts, {}", count.parts, bytes(count.bytes))
}

fn count_object(count: PartCount) -> Value {
    json!({ "parts": count.parts, "bytes": count.bytes })
}

fn held_text(held: &HeldParts) -> String {
    let count = count_text(held.count);
    match &held.by {
        HeldBy::Savepoint { checkpoint, location } => {
            format!("savepoint {checkpoint} holds {count}: {location}")
        }
        HeldBy::Job => format!("the job rests on {count} of other jobs"),
    }
}

fn held_object(held: &HeldParts) -> Value {
    let (by, checkpoint, location) = match &held.by {
        HeldBy::Savepoint { checkpoint, location } => ("savepoint", Some(checkpoint.0), Some(location)),
        HeldBy::Job => ("job", None, None),
    };
    json!({ "by": by, "checkpoint": checkpoint, "savepoint": location, "held": count_object(held.count) })
}
