//! A job by its name or id: among those of this user on this machine, or at an endpoint that was named.

use super::{
    client::Client,
    records::{Record, Records},
};
use crate::args::{ServerArgs, TOKEN_VARIABLE};
use keybed::{Code, Error, Result};

/// A job that can be asked.
pub(crate) struct Target {
    /// Its id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Its endpoint.
    pub(crate) client: Client,
}

impl Target {
    /// The path of a route of this job.
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/v1/jobs/{}{rest}", self.id)
    }
}

/// The job that a word means.
///
/// # Errors
/// `UnknownJob` with the nearest name; `InvalidArgument` if several are meant or it has no endpoint; errors of the
/// endpoint.
pub(crate) fn find(word: &str, server: &ServerArgs) -> Result<Target> {
    match named(server) {
        Some(client) => at(client, word),
        None => locally(word),
    }
}

/// The endpoint that was named on the command line.
pub(crate) fn named(server: &ServerArgs) -> Option<Client> {
    let address = server.server.as_ref()?;
    let token = server.token.clone().or_else(|| {
        std::env::var(TOKEN_VARIABLE)
            .ok()
            .filter(|token| !token.is_empty())
    });
    Some(Client::new(address, token))
}

fn at(client: Client, word: &str) -> Result<Target> {
    let answer = client.get("/v1/jobs/overview")?;
    let jobs = answer["jobs"].as_array().cloned().unwrap_or_default();
    let text = |job: &serde_json::Value, name: &str| job[name].as_str().unwrap_or_default().to_owned();
    let known: Vec<(String, String)> = jobs
        .iter()
        .map(|job| (text(job, "name"), text(job, "jid")))
        .collect();
    let chosen = choose(word, &known)?;
    let (name, id) = known[chosen].clone();
    Ok(Target { id, name, client })
}

fn locally(word: &str) -> Result<Target> {
    let (live, ended): (Vec<Record>, Vec<Record>) =
        Records::of_user()?.all()?.into_iter().partition(Record::is_live);
    let key = |record: &Record| (record.name.clone(), record.job_id.clone());
    let known: Vec<(String, String)> = live.iter().map(key).collect();
    let chosen = choose(word, &known).map_err(|error| {
        let over = ended.iter().rev().find(|r| r.name == word || r.job_id == word);
        match over.and_then(|record| record.ended.as_ref()) {
            Some((state, _)) if error.code() == Code::UnknownJob => {
                Error::new(Code::UnknownJob, format!("the job `{word}` is over")).with("state", state)
            }
            _ => error,
        }
    })?;
    let record = live.into_iter().nth(chosen).ok_or_else(|| unknown(word, &[]))?;
    client(&record).map(|client| Target {
        id: record.job_id,
        name: record.name,
        client,
    })
}

/// The endpoint of a job that runs here.
///
/// # Errors
/// `InvalidArgument` if it has none.
pub(crate) fn client(record: &Record) -> Result<Client> {
    match &record.address {
        Some(address) => Ok(Client::new(address, record.token.clone())),
        None => Err(Error::invalid(
            "the job has no control endpoint (--control-port off); SIGINT to its process stops it after a last checkpoint",
        )
        .with("job", &record.job_id)
        .with("pid", record.pid)),
    }
}

/// Which of the jobs, by name and id, a word means. Pure.
fn choose(word: &str, known: &[(String, String)]) -> Result<usize> {
    let meant: Vec<usize> = (0..known.len())
        .filter(|&i| known[i].0 == word || known[i].1 == word)
        .collect();
    match meant[..] {
        [one] => Ok(one),
        [] => Err(unknown(word, known)),
        _ => {
            let ids: Vec<&str> = meant.iter().map(|&i| known[i].1.as_str()).collect();
            let what = format!("several jobs are called `{word}`: name one by its id");
            Err(Error::invalid(what).with("ids", ids.join(", ")))
        }
    }
}

fn unknown(word: &str, known: &[(String, String)]) -> Error {
    let error = Error::new(Code::UnknownJob, format!("no running job is called `{word}`"));
    let likeness = |name: &str| strsim::jaro_winkler(name, &word.to_lowercase());
    let names = known.iter().flat_map(|(name, id)| [name.as_str(), id.as_str()]);
    match names.max_by(|a, b| likeness(a).total_cmp(&likeness(b))) {
        Some(nearest) => error.with("nearest", nearest),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_are_found_and_doubtful_ones_are_not_guessed() {
        let job = |name: &str, id: u8| (name.to_owned(), format!("{id:032x}"));
        let known = [job("flights", 1), job("words", 2), job("flights", 3)];
        assert_eq!(choose("words", &known).unwrap(), 1);
        assert_eq!(choose(&known[2].1, &known).unwrap(), 2);
        let several = choose("flights", &known).unwrap_err();
        assert_eq!((several.code(), several.exit_code()), (Code::InvalidArgument, 2));
        let ids = format!("{}, {}", known[0].1, known[2].1);
        assert_eq!(several.fields(), [("ids", ids)]);
        let typo = choose("wrods", &known).unwrap_err();
        assert_eq!(
            (typo.code(), typo.fields()),
            (Code::UnknownJob, &[("nearest", "words".to_owned())][..])
        );
        assert_eq!(choose("x", &[]).unwrap_err().code(), Code::UnknownJob);
    }
}
