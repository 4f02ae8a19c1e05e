//! The job record of a state directory: which job ran here, over which input, into which output.
//!
//! `job.json` in the state directory, replaced atomically when a run starts anew. Its job id names the job root in
//! the checkpoint root; whether that job finished is recorded there, not here. Layout: docs/format/state-dir.md.

use super::restore_record;
use crate::{input_identity::InputIdentity, inputs::Inputs};
use keybed::{Code, Error, Result, env::Fs, runtime::Restore, snapshot::JobId};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const NAME: &str = "job.json";
const TEMPORARY: &str = "job.json.new";
const BYTES_MAX: u64 = 64 << 10;
const FORMAT: u64 = 2;

/// What the state directory says about its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JobRecord {
    /// Name of the job.
    pub(crate) job: String,
    /// Fresh for every fresh start, stable over `--resume`.
    pub(crate) id: JobId,
    /// The input.
    pub(crate) input: Inputs,
    /// By which a changed input is noticed, by file.
    pub(crate) identities: Vec<InputIdentity>,
    /// The directory of the output, absolute.
    pub(crate) out: PathBuf,
    /// The snapshot that the job started from, absolute, and how; needed until its first checkpoint.
    pub(crate) restore: Option<Restore>,
}

impl JobRecord {
    /// Reads the record of a state directory; `None` if no job ever started there.
    ///
    /// # Errors
    /// `UnsupportedFormatVersion` or `ManifestCorrupt`, naming the file.
    pub(crate) fn read(fs: &dyn Fs, state_dir: &Path) -> Result<Option<JobRecord>> {
        let path = state_dir.join(NAME);
        if fs.facts(&path)?.is_none() {
            return Ok(None);
        }
        let bytes = fs.read(&path, BYTES_MAX)?;
        Self::parse(&bytes).map(Some).map_err(|e| e.in_file(path))
    }

    fn parse(bytes: &[u8]) -> Result<JobRecord> {
        let damaged = |what: String| {
            Error::new(
                Code::ManifestCorrupt,
                format!(
                    "the job record is damaged, so neither --resume nor --restart knows its job: start in another \
                     --state-dir, from one of the checkpoints of this one with -s: {what}"
                ),
            )
        };
        let value: Value = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
        match value["format"].as_u64() {
            Some(1..=FORMAT) => {}
            Some(other) => {
                return Err(Error::new(
                    Code::UnsupportedFormatVersion,
                    "the job record is of another version",
                )
                .expected_found(FORMAT, other));
            }
            None => return Err(damaged("it names no format".into())),
        }
        let text = |name: &str| {
            value[name]
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| damaged(format!("`{name}` is missing")))
        };
        let (input, identities) = read_inputs(&value).map_err(damaged)?;
        Ok(JobRecord {
            job: text("job")?,
            id: text("job_id")?
                .parse()
                .map_err(|e: Error| damaged(e.message().to_owned()))?,
            input,
            identities,
            out: text("out")?.into(),
            restore: restore_record::read(&value).map_err(damaged)?,
        })
    }

    /// Replaces the record; the rename makes it visible, a crash before it leaves the old one.
    ///
    /// # Errors
    /// Those of the file system; `InvalidArgument` if a path is not UTF-8.
    pub(crate) fn write(&self, fs: &dyn Fs, state_dir: &Path) -> Result {
        let text = |path: &Path| {
            let utf8 = path.to_str().map(str::to_owned);
            utf8.ok_or_else(|| Error::invalid("a path of a job must be UTF-8").in_file(path))
        };
        let mut inputs = Vec::new();
        for (file, InputIdentity { bytes, digest }) in self.input.files().iter().zip(&self.identities) {
            let digest = format!("{digest:016x}");
            inputs.push(json!({ "file": text(file)?, "bytes": bytes, "digest": digest }));
        }
        let mut value = json!({
            "format": FORMAT,
            "job": self.job,
            "job_id": self.id.to_string(),
            "inputs": inputs,
            "out": text(&self.out)?,
        });
        if let (Some(restore), Some(value)) = (&self.restore, value.as_object_mut()) {
            value.extend(restore_record::fields(restore)?);
        }
        let temporary = state_dir.join(TEMPORARY);
        if fs.facts(&temporary)?.is_some() {
            fs.remove_file(&temporary)?; // left by a crash before the rename
        }
        fs.write_atomic(
            &state_dir.join(NAME),
            &temporary,
            format!("{value:#}\n").as_bytes(),
        )
    }
}

impl JobRecord {
    /// Removes the record.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn remove(fs: &dyn Fs, state_dir: &Path) -> Result {
        fs.remove_file(&state_dir.join(NAME))?;
        fs.sync_dir(state_dir)
    }
}

/// The input and its identities; of a record of version 1, which knew one file, likewise.
fn read_inputs(value: &Value) -> Result<(Inputs, Vec<InputIdentity>), String> {
    let identity = |bytes: &Value, digest: &Value| {
        let bytes = bytes.as_u64().ok_or("the bytes of an input are missing")?;
        let digest = digest.as_str().ok_or("the digest of an input is missing")?;
        let digest = u64::from_str_radix(digest, 16).map_err(|e| e.to_string())?;
        Ok::<_, String>(InputIdentity { bytes, digest })
    };
    if value["format"] == 1 {
        let file = value["input"].as_str().ok_or("`input` is missing")?;
        let identity = identity(&value["input_bytes"], &value["input_digest"])?;
        return Ok((Inputs::Files(vec![file.into()]), vec![identity]));
    }
    let inputs = value["inputs"].as_array().ok_or("`inputs` is missing")?;
    let (mut files, mut identities) = (Vec::<PathBuf>::new(), Vec::new());
    for input in inputs {
        files.push(input["file"].as_str().ok_or("an input has no file")?.into());
        identities.push(identity(&input["bytes"], &input["digest"])?);
    }
    let input = if files.is_empty() {
        Inputs::Standard
    } else {
        Inputs::Files(files)
    };
    Ok((input, identities))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keybed::{env::OsFs, runtime::ClaimMode};

    fn record() -> JobRecord {
        JobRecord {
            job: "flights".into(),
            id: JobId(7),
            input: Inputs::Files(vec!["/in.csv".into()]),
            identities: vec![InputIdentity {
                bytes: 3,
                digest: 0xabc,
            }],
            out: "/out".into(),
            restore: None,
        }
    }

    #[test]
    fn what_is_written_is_read_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(JobRecord::read(&OsFs, dir.path()).unwrap(), None);
        record().write(&OsFs, dir.path()).unwrap();
        std::fs::write(dir.path().join(TEMPORARY), "left by a crash").unwrap();
        let newer = JobRecord {
            id: JobId(8),
            restore: Some(Restore::from("/savepoints/ä 1").claim(ClaimMode::Legacy)),
            ..record()
        };
        newer.write(&OsFs, dir.path()).unwrap();
        assert_eq!(JobRecord::read(&OsFs, dir.path()).unwrap(), Some(newer));
    }

    #[test]
    fn a_record_of_version_1_is_read() {
        let text = r#"{"format":1,"job":"flights","job_id":"00000000000000000000000000000007","input":"/in.csv",
            "input_bytes":3,"input_digest":"0000000000000abc","out":"/out"}"#;
        assert_eq!(JobRecord::parse(text.as_bytes()).unwrap(), record());
    }

    #[test]
    fn several_files_and_standard_input_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let two = JobRecord {
            input: Inputs::Files(vec!["/a".into(), "/b".into()]),
            identities: vec![record().identities[0], InputIdentity { bytes: 0, digest: 1 }],
            ..record()
        };
        let none = JobRecord {
            input: Inputs::Standard,
            identities: Vec::new(),
            ..record()
        };
        for record in [two, none] {
            record.write(&OsFs, dir.path()).unwrap();
            assert_eq!(JobRecord::read(&OsFs, dir.path()).unwrap(), Some(record));
        }
    }

    #[test]
    fn damage_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        for (text, code) in [
            ("", Code::ManifestCorrupt),
            ("{}", Code::ManifestCorrupt),
            (r#"{"format":1,"job":"flights"}"#, Code::ManifestCorrupt),
            (
                r#"{"format":1,"job":"f","job_id":"x","input":"","out":""}"#,
                Code::ManifestCorrupt,
            ),
            (
                r#"{"format":1,"job":"f","job_id":"00000000000000000000000000000007","input":"","input_bytes":1,
                    "input_digest":"1","out":"","from":7}"#,
                Code::ManifestCorrupt,
            ),
            (
                r#"{"format":2,"job":"f","job_id":"00000000000000000000000000000007","inputs":[{"file":"/a"}],"out":""}"#,
                Code::ManifestCorrupt,
            ),
            (r#"{"format":0}"#, Code::UnsupportedFormatVersion),
            (r#"{"format":3}"#, Code::UnsupportedFormatVersion),
        ] {
            std::fs::write(dir.path().join(NAME), text).unwrap();
            let error = JobRecord::read(&OsFs, dir.path()).unwrap_err();
            assert_eq!(error.code(), code, "{text}");
            assert!(error.file().unwrap().ends_with(NAME));
        }
    }
}
