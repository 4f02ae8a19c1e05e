//! Arguments of the comparison.

/// Shown with every refusal.
pub const USAGE: &str = "\
usage: keybed-benches [--quick] [--keys N] [--ops N] [--rounds N] [--engines A,B] [--programs A,B]
                      [--dir DIR] [--markdown FILE] [--plots DIR]
       keybed-benches sustained [--minutes N | --seconds N] [--keys N] [--dir DIR]
       keybed-benches big [--gigabytes N | --megabytes N] [--dir DIR]
       keybed-benches tombstones [--dir DIR]
       keybed-benches differential [--programs N] [--operations N] [--seed N]";

/// What is to be compared.
#[derive(Clone, Debug)]
pub struct Options {
    pub quick: bool,
    pub keys: u64,
    pub ops: u64,
    pub rounds: usize,
    /// Beginnings of names; empty = all.
    pub engines: Vec<String>,
    /// Names; empty = all.
    pub programs: Vec<String>,
    pub dir: Option<String>,
    pub markdown: Option<String>,
    pub plots: Option<String>,
}

/// A positive number.
pub fn positive(text: &str) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|n| *n > 0)
        .ok_or(format!("{text}: not a positive number"))
}

impl Options {
    pub fn parse(words: &[String]) -> Result<Options, String> {
        let (mut keys, mut ops, mut rounds) = (None, None, None);
        let mut options = Options {
            quick: false,
            keys: 0,
            ops: 0,
            rounds: 0,
            engines: Vec::new(),
            programs: Vec::new(),
            dir: None,
            markdown: None,
            plots: None,
        };
        let list = |text: &str| text.split(',').map(str::to_owned).collect();
        let mut words = words.iter();
        while let Some(flag) = words.next() {
            if flag == "--quick" {
                options.quick = true;
                continue;
            }
            let value = words
                .next()
                .ok_or(format!("{flag}: unknown, or its value is missing"))?;
            match flag.as_str() {
                "--keys" => keys = Some(positive(value)?),
                "--ops" => ops = Some(positive(value)?),
                "--rounds" => rounds = Some(positive(value)?),
                "--engines" => options.engines = list(value),
                "--programs" => options.programs = list(value),
                "--dir" => options.dir = Some(value.clone()),
                "--markdown" => options.markdown = Some(value.clone()),
                "--plots" => options.plots = Some(value.clone()),
                other => return Err(format!("{other}: unknown")),
            }
        }
        options.keys = keys.unwrap_or(if options.quick { 200_000 } else { 1_000_000 });
        options.ops = ops.unwrap_or(options.keys.min(1_000_000));
        options.rounds = rounds.unwrap_or(if options.quick { 1 } else { 3 }) as usize;
        Ok(options)
    }
}
