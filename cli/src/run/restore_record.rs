//! What the job record keeps of a start from a snapshot, so that a resume before the first checkpoint can start from it
//! again in the same way. Page: docs/format/state-dir.md.

use keybed::{
    Error, Result,
    runtime::{AllowNonRestored, ClaimMode, OperatorUid, Restore},
};
use serde_json::{Map, Value, json};
use std::path::Path;

const MODES: [(ClaimMode, &str); 3] = [
    (ClaimMode::NoClaim, "no_claim"),
    (ClaimMode::Claim, "claim"),
    (ClaimMode::Legacy, "legacy"),
];

/// The fields of the record. What has its default is left out.
///
/// # Errors
/// `InvalidArgument` if a path is not UTF-8.
pub(super) fn fields(restore: &Restore) -> Result<Map<String, Value>> {
    let text = |path: &Path| {
        let utf8 = path.to_str().map(str::to_owned);
        utf8.ok_or_else(|| Error::invalid("a path of a job must be UTF-8").in_file(path))
    };
    let mut fields = Map::new();
    fields.insert("from".into(), text(&restore.path)?.into());
    if let Some((_, name)) = MODES[1..].iter().find(|(mode, _)| *mode == restore.claim) {
        fields.insert("claim_mode".into(), (*name).into());
    }
    let allowed = match &restore.allow_non_restored {
        AllowNonRestored::None => None,
        AllowNonRestored::All => Some(json!(true)),
        AllowNonRestored::Uids(uids) => Some(uids.iter().map(OperatorUid::as_str).collect()),
    };
    fields.extend(allowed.map(|allowed| ("allow_non_restored_state".into(), allowed)));
    if !restore.renames.is_empty() {
        let renames = restore
            .renames
            .iter()
            .map(|(old, new)| (old.to_string(), new.as_str().into()));
        fields.insert("renamed".into(), Value::Object(renames.collect()));
    }
    if !restore.anchors.is_empty() {
        let anchors = restore
            .anchors
            .iter()
            .map(|(id, path)| Ok((id.to_string(), text(path)?.into())));
        fields.insert("anchors".into(), Value::Object(anchors.collect::<Result<_>>()?));
    }
    if restore.accept_lost_transactions {
        fields.insert("accept_lost_transactions".into(), true.into());
    }
    Ok(fields)
}

/// Reads the fields of a record; `None` if the job started from no snapshot. The error says what is damaged.
pub(super) fn read(record: &Value) -> Result<Option<Restore>, String> {
    let path = match &record["from"] {
        Value::Null => return Ok(None),
        Value::String(path) => path,
        _ => return Err("`from` is no path".into()),
    };
    let uid = |text: &str| OperatorUid::new(text).map_err(|e| e.message().to_owned());
    let mut restore = Restore::from(path);
    restore.claim = match &record["claim_mode"] {
        Value::Null => ClaimMode::NoClaim,
        name => MODES
            .iter()
            .find(|(_, known)| name.as_str() == Some(known))
            .map(|(mode, _)| *mode)
            .ok_or("`claim_mode` is not known")?,
    };
    restore.allow_non_restored = match &record["allow_non_restored_state"] {
        Value::Null => AllowNonRestored::None,
        Value::Bool(true) => AllowNonRestored::All,
        Value::Array(uids) => {
            let uids = uids.iter().map(|u| uid(u.as_str().unwrap_or_default()));
            AllowNonRestored::Uids(uids.collect::<Result<_, _>>()?)
        }
        _ => return Err("`allow_non_restored_state` is no list".into()),
    };
    for (old, new) in object(record, "renamed")? {
        restore = restore.rename(uid(old)?, uid(new.as_str().unwrap_or_default())?);
    }
    for (id, path) in object(record, "anchors")? {
        let id = id.parse().map_err(|_| "`anchors` names no number".to_owned())?;
        restore = restore.anchor(id, path.as_str().ok_or("`anchors` names no path")?);
    }
    restore.accept_lost_transactions = match &record["accept_lost_transactions"] {
        Value::Null => false,
        Value::Bool(accepted) => *accepted,
        _ => return Err("`accept_lost_transactions` is no truth value".into()),
    };
    Ok(Some(restore))
}

fn object<'a>(
    record: &'a Value,
    name: &str,
) -> Result<impl Iterator<Item = (&'a String, &'a Value)>, String> {
    match &record[name] {
        Value::Null => Ok(None.into_iter().flatten()),
        Value::Object(object) => Ok(Some(object).into_iter().flatten()),
        _ => Err(format!("`{name}` is no object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> OperatorUid {
        OperatorUid::new(text).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let plain = Restore::from("/sp/ä 1");
        let full = plain
            .clone()
            .claim(ClaimMode::Legacy)
            .allow_non_restored(AllowNonRestored::Uids([uid("a"), uid("b")].into()))
            .rename(uid("old"), uid("new"))
            .anchor(3, "/moved")
            .accept_lost_transactions();
        let all = plain
            .clone()
            .allow_non_restored(AllowNonRestored::All)
            .claim(ClaimMode::Claim);
        for restore in [plain, full, all] {
            let record = Value::Object(fields(&restore).unwrap());
            assert_eq!(read(&record).unwrap(), Some(restore), "{record}");
        }
        assert_eq!(read(&json!({})).unwrap(), None);
    }

    #[test]
    fn damage_is_told() {
        for record in [
            json!({ "from": 7 }),
            json!({ "from": "/p", "claim_mode": "perhaps" }),
            json!({ "from": "/p", "allow_non_restored_state": [7] }),
            json!({ "from": "/p", "allow_non_restored_state": 1 }),
            json!({ "from": "/p", "renamed": { "a": 1 } }),
            json!({ "from": "/p", "renamed": [] }),
            json!({ "from": "/p", "anchors": { "a": "/p" } }),
            json!({ "from": "/p", "accept_lost_transactions": 1 }),
        ] {
            assert!(read(&record).is_err(), "{record}");
        }
    }
}
