//! What clients ask for: the bodies of requests, read so that no byte of them can do harm.
//!
//! An empty body is `{}`. Every field may be `null` or left out. A field of another type, or one that the route does
//! not know, is refused by name: a mistyped target must not become the default one. Two routes spell the target in two
//! ways because Flink's do.

use super::{place, trigger::TriggerId};
use crate::element::{CheckpointScope, SavepointFormat};
use keybed_format::{Error, Result};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Longest body: paths are at most a few KiB.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;

/// `POST /jobs/:id/savepoints` and `POST /jobs/:id/stop`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SavepointRequest {
    /// As given; `None` means the configured directory.
    pub(super) target: Option<PathBuf>,
    pub(super) format: SavepointFormat,
    /// Files are linked where that is possible; a word that Flink does not have.
    pub(super) hard_links: bool,
    /// The job is to end with it.
    pub(super) stop: bool,
    pub(super) drain: bool,
    pub(super) trigger: Option<TriggerId>,
}

impl SavepointRequest {
    /// # Errors
    /// `InvalidArgument`.
    pub(super) fn savepoint(body: &[u8]) -> Result<SavepointRequest> {
        let mut fields = Fields::read(body)?;
        let request = SavepointRequest {
            target: fields.location("target-directory")?,
            stop: fields.flag("cancel-job")?,
            drain: false,
            format: fields.format()?,
            hard_links: fields.flag("hardLinks")?,
            trigger: fields.trigger()?,
        };
        fields.end().map(|()| request)
    }

    /// # Errors
    /// `InvalidArgument`.
    pub(super) fn stop(body: &[u8]) -> Result<SavepointRequest> {
        let mut fields = Fields::read(body)?;
        let request = SavepointRequest {
            target: fields.location("targetDirectory")?,
            stop: true,
            drain: fields.flag("drain")?,
            format: fields.format()?,
            hard_links: fields.flag("hardLinks")?,
            trigger: fields.trigger()?,
        };
        fields.end().map(|()| request)
    }
}

/// `POST /jobs/:id/checkpoints`.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn checkpoint(body: &[u8]) -> Result<(CheckpointScope, Option<TriggerId>)> {
    let mut fields = Fields::read(body)?;
    let scope = match fields.text("checkpointType")?.as_deref() {
        // Flink's third word means a checkpoint that builds on earlier ones, which is what ours do by default.
        None | Some("CONFIGURED" | "INCREMENTAL") => CheckpointScope::Configured,
        Some("FULL") => CheckpointScope::Full,
        Some(other) => {
            let what = "checkpointType is CONFIGURED, FULL or INCREMENTAL";
            return Err(Error::invalid(what).with("found", shown(other)));
        }
    };
    let trigger = fields.trigger()?;
    fields.end().map(|()| (scope, trigger))
}

/// `POST /savepoint-disposal`.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn disposal(body: &[u8]) -> Result<(PathBuf, Option<TriggerId>)> {
    let mut fields = Fields::read(body)?;
    let path = fields.location("savepoint-path")?;
    let trigger = fields.trigger()?;
    fields.end()?;
    let missing = || Error::invalid("savepoint-path is missing: name the savepoint to dispose of");
    path.map(|path| (path, trigger)).ok_or_else(missing)
}

/// `POST /keybed/jobs/:id/gc`: whether it is a dry run, and the least age in milliseconds.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn gc(body: &[u8]) -> Result<(bool, u64)> {
    let mut fields = Fields::read(body)?;
    let dry_run = fields.flag("dryRun")?;
    let min_age_ms = match fields.take("minAgeMs") {
        None => 0,
        Some(age) => age
            .as_u64()
            .ok_or_else(|| Error::invalid("minAgeMs must be a number of milliseconds"))?,
    };
    fields.end().map(|()| (dry_run, min_age_ms))
}

/// A body without fields, as `PATCH /jobs/:id` has.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn nothing(body: &[u8]) -> Result {
    Fields::read(body)?.end()
}

/// The fields of an object that were not looked at yet.
struct Fields {
    left: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Fields {
    fn read(body: &[u8]) -> Result<Fields> {
        let left = if body.is_empty() {
            Map::new()
        } else {
            match serde_json::from_slice(body) {
                Ok(Value::Object(map)) => map,
                Ok(_) => return Err(Error::invalid("the body must be a JSON object")),
                Err(e) => return Err(Error::invalid(format!("the body is no JSON: {e}"))),
            }
        };
        Ok(Fields {
            left,
            known: Vec::new(),
        })
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.left.remove(name).filter(|value| !value.is_null())
    }

    fn text(&mut self, name: &'static str) -> Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Error::invalid(format!("{name} must be a text"))),
        }
    }

    fn flag(&mut self, name: &'static str) -> Result<bool> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(Error::invalid(format!("{name} must be true or false"))),
        }
    }

    fn location(&mut self, name: &'static str) -> Result<Option<PathBuf>> {
        match self.text(name)? {
            Some(text) => place::parse(&text).map_err(|e| e.context(name)),
            None => Ok(None),
        }
    }

    fn format(&mut self) -> Result<SavepointFormat> {
        match self.text("formatType")?.as_deref() {
            None | Some("CANONICAL") => Ok(SavepointFormat::Canonical),
            Some("NATIVE") => Ok(SavepointFormat::Native),
            Some(other) => {
                Err(Error::invalid("formatType is CANONICAL or NATIVE").with("found", shown(other)))
            }
        }
    }

    fn trigger(&mut self) -> Result<Option<TriggerId>> {
        match self.text("triggerId")? {
            Some(text) => text.parse().map(Some).map_err(|e: Error| e.context("triggerId")),
            None => Ok(None),
        }
    }

    fn end(self) -> Result {
        match self.left.keys().next() {
            None => Ok(()),
            Some(unknown) => Err(
                Error::invalid("the body has a field that this route does not know")
                    .with("found", shown(unknown))
                    .with("known", self.known.join(", ")),
            ),
        }
    }
}

/// Text of a client as an error may repeat it: short, and without what terminals would obey.
pub(super) fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    let mut start: String = text.chars().take(CHARS_MAX).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    start.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keybed_format::Code;

    #[test]
    fn what_flink_sends_is_understood() {
        let body =
            br#"{"target-directory":null,"cancel-job":false,"formatType":"CANONICAL","triggerId":null}"#;
        let plain = SavepointRequest::savepoint(body).unwrap();
        assert_eq!(
            plain,
            SavepointRequest {
                target: None,
                format: SavepointFormat::Canonical,
                hard_links: false,
                stop: false,
                drain: false,
                trigger: None
            }
        );
        let body = br#"{"targetDirectory":"file:/sp","drain":true,"formatType":"NATIVE",
            "triggerId":"000000000000000000000000000000FF"}"#;
        let stop = SavepointRequest::stop(body).unwrap();
        assert_eq!(
            stop,
            SavepointRequest {
                target: Some("/sp".into()),
                format: SavepointFormat::Native,
                hard_links: false,
                stop: true,
                drain: true,
                trigger: Some(TriggerId(255))
            }
        );
        assert_eq!(
            checkpoint(br#"{"checkpointType":"FULL","triggerId":null}"#).unwrap(),
            (CheckpointScope::Full, None)
        );
        assert_eq!(
            disposal(br#"{"savepoint-path":"file:///sp/a"}"#).unwrap(),
            (PathBuf::from("/sp/a"), None)
        );
    }

    #[test]
    fn a_missing_format_is_canonical_and_an_empty_body_an_empty_object() {
        for body in ["", "{}", " { } "] {
            let request = SavepointRequest::savepoint(body.as_bytes()).unwrap();
            assert_eq!(
                (request.format, request.target, request.stop),
                (SavepointFormat::Canonical, None, false)
            );
            assert_eq!(
                checkpoint(body.as_bytes()).unwrap(),
                (CheckpointScope::Configured, None)
            );
        }
    }

    #[test]
    fn hostile_bodies_are_refused_by_name() {
        let deep = "[".repeat(60_000);
        let deep_object = r#"{"a":"#.repeat(10_000);
        for body in [
            "[]",
            "7",
            "null",
            "{",
            "{}{}",
            "\u{feff}{}",
            r#"{"target-directory":7}"#,
            r#"{"target-directory":["/sp"]}"#,
            r#"{"target-directory":"/sp\u0000/x"}"#,
            r#"{"target-directory":"/sp\n/x"}"#,
            r#"{"target-directory":"s3://bucket/x"}"#,
            r#"{"target-directory":"file://elsewhere/x"}"#,
            r#"{"targetDirectory":"/sp"}"#,
            r#"{"cancel-job":"yes"}"#,
            r#"{"cancel-job":1e999}"#,
            r#"{"cancel-job":99999999999999999999999999999999}"#,
            r#"{"formatType":"native"}"#,
            r#"{"formatType":{}}"#,
            r#"{"triggerId":"1"}"#,
            r#"{"triggerId":"../../../../../../../etc/passwd00"}"#,
            r#"{"triggerId":17}"#,
            "{\"target-directory\":\"\u{7f}\"}",
            &deep,
            &deep_object,
        ] {
            let error = SavepointRequest::savepoint(body.as_bytes()).unwrap_err();
            let start = &body[..body.len().min(60)];
            assert_eq!(error.code(), Code::InvalidArgument, "{start}");
            assert!(error.to_string().len() < 400, "{start}");
        }
        assert!(SavepointRequest::savepoint(b"{\"target-directory\":\"\xff\"}").is_err());
        assert!(disposal(b"{}").is_err());
        assert!(disposal(br#"{"savepoint-path":""}"#).is_err());
        assert!(nothing(br#"{"mode":"cancel"}"#).is_err());
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut random = keybed_env::Random::from_seed(7);
        let alphabet = br#"{}[]",:\u0041"target-directory"nulltrue1e9."#;
        for _ in 0..20_000 {
            let length = random.below(40);
            let body: Vec<u8> = (0..length)
                .map(|_| alphabet[random.below(alphabet.len() as u64) as usize])
                .collect();
            let _ = SavepointRequest::savepoint(&body).map_err(|e| e.to_string());
            let _ = SavepointRequest::stop(&body).map_err(|e| e.to_string());
            let _ = checkpoint(&body).map_err(|e| e.to_string());
            let _ = disposal(&body).map_err(|e| e.to_string());
        }
    }
}
