//! A small job on a simulated machine, and the plain program that says what must come out of it.
//!
//! ```text
//!   orders (splits of a vector) ─┬─ by user ─ totals (value, map, timer at the end) ─ totals.csv
//!                                └─ by shop ─ window of 10 ms (count, sum)          ─ shops.csv
//! ```

use keybed_env::{Fs, ManualClock, Random, SimScheduler, random::Ids};
use keybed_format::{Cursor, Error, Result, Sink};
use keybed_runtime::{
    Aggregate, Backend, Context, FileSink, Job, JobEvent, JobOptions, JobReport, KeyedOperator, Pipeline,
    Polled, Source, SourceReader, SplitStart, Tumbling, Window,
};
use keybed_snapshot::{
    JobId,
    schema::{Record, Schema},
};
use keybed_state::{Codec, MapState, StateRegistry, ValueState};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// One record of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) time: i64,
    pub(crate) user: u64,
    pub(crate) shop: String,
    pub(crate) cents: u64,
}

/// The input, by split.
pub(crate) type Input = Vec<Vec<Order>>;

/// Orders out of order by up to 20 ms, dealt to splits.
pub(crate) fn input(random: &mut Random, splits: usize, orders: usize) -> Input {
    let mut input = vec![Vec::new(); splits];
    for i in 0..orders {
        let order = Order {
            time: (i as i64) * 3 + random.below(20) as i64,
            user: random.below(7),
            shop: format!("shop-{}", random.below(3)),
            cents: 1 + random.below(100),
        };
        input[i % splits].push(order);
    }
    input
}

/// What must come out: file name → content.
pub(crate) fn expected(input: &Input) -> BTreeMap<&'static str, String> {
    let mut totals: BTreeMap<u64, (u64, u64, BTreeSet<&str>)> = BTreeMap::new();
    let mut shops: BTreeMap<(&str, i64), (u64, u64)> = BTreeMap::new();
    for order in input.iter().flatten() {
        let total = totals.entry(order.user).or_default();
        *total = (total.0 + 1, total.1 + order.cents, std::mem::take(&mut total.2));
        total.2.insert(&order.shop);
        let shop = shops
            .entry((&order.shop, order.time.div_euclid(10) * 10))
            .or_default();
        *shop = (shop.0 + 1, shop.1 + order.cents);
    }
    let mut a = String::from("user,orders,cents,shops\n");
    for (user, (orders, cents, shops)) in totals {
        a += &format!("{user},{orders},{cents},{}\n", shops.len());
    }
    let mut b = String::from("start,shop,orders,cents\n");
    for ((shop, start), (orders, cents)) in shops {
        b += &format!("{start:06},{shop},{orders},{cents}\n");
    }
    BTreeMap::from([("totals.csv", a), ("shops.csv", b)])
}

/// Fails at chosen moments: how many user calls may still succeed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bomb(Arc<AtomicU64>);

impl Bomb {
    /// Panics at the n-th call from now (1 is the next); 0 never.
    pub(crate) fn arm(&self, calls: u64) {
        self.0.store(calls, Ordering::SeqCst);
    }

    fn tick(&self) {
        let was = self.0.load(Ordering::SeqCst);
        if was > 0 {
            self.0.store(was - 1, Ordering::SeqCst);
            if was == 1 {
                // A panic without the noise of the hook.
                std::panic::resume_unwind(Box::new("planted panic"));
            }
        }
    }
}

struct Orders {
    input: Arc<Input>,
}

struct OrdersReader {
    input: Arc<Input>,
    next: Vec<SplitStart>,
    turn: usize,
}

impl Source for Orders {
    type Record = Order;

    fn splits(&self) -> u32 {
        self.input.len() as u32
    }

    fn out_of_orderness(&self) -> Duration {
        Duration::from_millis(20)
    }

    fn open(&self, _fs: &Arc<dyn Fs>, splits: &[SplitStart]) -> Result<Box<dyn SourceReader<Order>>> {
        Ok(Box::new(OrdersReader {
            input: self.input.clone(),
            next: splits.to_vec(),
            turn: 0,
        }))
    }
}

impl SourceReader<Order> for OrdersReader {
    fn poll_next(&mut self) -> Result<Polled<Order>> {
        if self.next.is_empty() {
            return Ok(Polled::End);
        }
        self.turn = (self.turn + 1) % self.next.len();
        let at = &mut self.next[self.turn];
        let Some(order) = self.input[at.split as usize].get(at.position as usize) else {
            let split = at.split;
            self.next.remove(self.turn);
            return Ok(Polled::SplitEnd(split));
        };
        at.position += 1;
        let (split, next) = (at.split, at.position);
        Ok(Polled::Record {
            split,
            next,
            timestamp: order.time,
            value: order.clone(),
        })
    }
}

struct Totals {
    sums: ValueState<(u64, u64)>,
    shops: MapState<String, u64>,
    bomb: Bomb,
}

impl Totals {
    fn open(states: &mut StateRegistry, bomb: Bomb) -> Result<Self> {
        Ok(Totals {
            sums: states.value("sums")?,
            shops: states.map("shops")?,
            bomb,
        })
    }
}

impl KeyedOperator for Totals {
    type Key = u64;
    type In = Order;
    type Out = String;

    fn process(&mut self, _user: &u64, order: Order, ctx: &mut Context<'_, String>) -> Result {
        self.bomb.tick();
        let (orders, _) = self.sums.update(ctx, |sums| {
            let (orders, cents) = sums.unwrap_or_default();
            (orders + 1, cents + order.cents)
        })?;
        if orders == 1 {
            ctx.register_event_timer(i64::MAX)?;
        }
        self.shops.put(ctx, &order.shop, &order.cents)
    }

    fn on_timer(&mut self, user: &u64, _time: i64, ctx: &mut Context<'_, String>) -> Result {
        self.bomb.tick();
        let (orders, cents) = self
            .sums
            .get(ctx)?
            .ok_or_else(|| Error::invalid("a timer without sums"))?;
        let mut shops = 0;
        let mut all = self.shops.iter(ctx)?;
        while all.next().transpose()?.is_some() {
            shops += 1;
        }
        drop(all);
        ctx.emit(format!("{user},{orders},{cents},{shops}"));
        Ok(())
    }
}

struct PerShop;

struct Counts {
    orders: u64,
    cents: u64,
}

impl Codec for Counts {
    fn encode(&self, out: &mut Sink) {
        out.u64(self.orders).u64(self.cents);
    }
    fn decode(input: &mut Cursor<'_>) -> Result<Self> {
        Ok(Counts {
            orders: input.u64()?,
            cents: input.u64()?,
        })
    }
    fn schema() -> Schema {
        Schema::Struct(Record::new("counts").field(1, "orders", u64::schema()).field(
            2,
            "cents",
            u64::schema(),
        ))
    }
}

impl Aggregate for PerShop {
    type Key = String;
    type In = Order;
    type Accumulator = Counts;
    type Out = String;

    fn create(&self) -> Counts {
        Counts { orders: 0, cents: 0 }
    }
    fn add(&self, counts: &mut Counts, order: Order) {
        counts.orders += 1;
        counts.cents += order.cents;
    }
    fn finish(&self, shop: &String, window: Window, counts: Counts) -> String {
        format!("{:06},{shop},{},{}", window.start, counts.orders, counts.cents)
    }
}

/// The job over an input.
pub(crate) fn pipeline(input: &Arc<Input>, bomb: &Bomb) -> Pipeline {
    pipeline_in(input, bomb, Path::new("out"))
}

/// The job over an input, with its output directory.
pub(crate) fn pipeline_in(input: &Arc<Input>, bomb: &Bomb, out: &Path) -> Pipeline {
    let mut pipeline = Pipeline::new("orders");
    let orders = pipeline.source("orders-in", Orders { input: input.clone() });
    let bomb = bomb.clone();
    orders
        .filter(|order| order.cents > 0)
        .key_by(|order| order.user)
        .operator("totals", move |states| Totals::open(states, bomb.clone()))
        .sink(
            "totals-out",
            FileSink::new(out, |line: &String| line.clone()).sorted_file(
                "totals.csv",
                "user,orders,cents,shops",
                by_number,
            ),
        );
    orders
        .key_by(|order| order.shop.clone())
        .window("shops", Tumbling::of(Duration::from_millis(10)), PerShop)
        .sink(
            "shops-out",
            FileSink::new(out, |line: &String| line.clone()).sorted_file(
                "shops.csv",
                "start,shop,orders,cents",
                by_shop,
            ),
        );
    pipeline
}

/// Not the order in which windows end.
fn by_shop(line: &str) -> String {
    let mut fields = line.split(',');
    let (start, shop) = (
        fields.next().unwrap_or_default(),
        fields.next().unwrap_or_default(),
    );
    format!("{shop},{start}")
}

fn by_number(line: &str) -> String {
    let number: u64 = line
        .split(',')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(u64::MAX);
    format!("{number:020}")
}

/// A machine: disk, clock, scheduler, and what was heard of the job.
pub(crate) struct Machine {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) scheduler: Arc<SimScheduler>,
    pub(crate) events: Arc<Mutex<Vec<String>>>,
    pub(crate) seed: u64,
}

impl Machine {
    pub(crate) fn new(seed: u64, fs: Arc<dyn Fs>) -> Self {
        let scheduler = Arc::new(SimScheduler::new(seed, Arc::new(ManualClock::new())));
        Machine {
            fs,
            scheduler,
            events: Arc::default(),
            seed,
        }
    }

    /// Options for a job on this machine.
    pub(crate) fn options(&self, job: JobId, parallelism: u32, backend: Backend) -> JobOptions {
        let events = self.events.clone();
        let on_event = move |event: &JobEvent| events.lock().unwrap().push(format!("{event:?}"));
        JobOptions {
            job: Some(job),
            parallelism,
            backend,
            work_dir: PathBuf::from("work"),
            source_step_records: 3,
            fs: self.fs.clone(),
            clock: self.scheduler.clock(),
            scheduler: Some(self.scheduler.clone()),
            ids: Ids::Seeded(Random::from_seed(self.seed ^ 0x5eed)),
            on_event: Some(Arc::new(on_event)),
            ..JobOptions::default()
        }
    }

    /// Runs the job to its end.
    pub(crate) fn finish(&self, job: &Job) -> Result<JobReport> {
        let ended = self.scheduler.run_until(|| job.is_ended(), 3_000_000);
        assert!(
            ended,
            "seed {}: the job does not end; stuck: {:?}\n{:?}\n{}",
            self.seed,
            self.scheduler.deadlock(),
            self.events.lock().unwrap(),
            self.scheduler.trace().join("\n"),
        );
        job.wait()
    }

    /// Content of the output files, and nothing else may lie in the output directory.
    pub(crate) fn output(&self) -> BTreeMap<String, String> {
        output(&*self.fs)
    }
}

/// As [`output`], without what is kept for savepoints: parts and their holds.
pub(crate) fn results(fs: &dyn Fs) -> BTreeMap<String, String> {
    let mut found = output(fs);
    found.retain(|name, _| !["parts", ".pending", ".holds"].contains(&name.as_str()));
    found
}

/// Content of the output directory; panics if anything but files lies there.
pub(crate) fn output(fs: &dyn Fs) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs.list(Path::new("out")).unwrap() {
        let path = Path::new("out").join(&entry.name);
        let text = fs.read(&path, 1 << 20).map(|b| String::from_utf8(b).unwrap());
        found.insert(entry.name, text.unwrap_or_else(|_| "a directory".into()));
    }
    found
}

/// As [`expected`], with owned names.
pub(crate) fn expected_output(input: &Input) -> BTreeMap<String, String> {
    expected(input)
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text))
        .collect()
}

/// Number of published checkpoints of job 7 below `ckpt`. Panics unless the objects in `shared/` are exactly those
/// that they name; walks the files by itself, without the registry.
pub(crate) fn checkpoints(fs: &dyn Fs) -> usize {
    let root = Path::new("ckpt").join(JobId(7).to_string());
    let list = |dir: &Path| fs.list(dir).unwrap().into_iter().map(|e| e.name);
    let found: BTreeSet<String> = list(&root.join("shared")).collect();
    let published: Vec<_> = list(&root)
        .filter(|name| name.starts_with("chk-"))
        .map(|name| root.join(name).join("_metadata"))
        .filter(|path| fs.facts(path).unwrap().is_some())
        .collect();
    let mut named = BTreeSet::new();
    for path in &published {
        let metadata = keybed_snapshot::metadata::decode(&fs.read(path, 1 << 24).unwrap()).unwrap();
        named.extend(metadata.files().map(|file| file.object.to_string()));
    }
    assert_eq!(
        found, named,
        "what lies in shared/ and what is named by {published:?}"
    );
    published.len()
}
