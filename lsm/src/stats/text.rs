//! Statistics for people, and for Prometheus.

use super::{FamilyStats, Histogram, StoreStats, WaitReason};
use std::fmt::{self, Write};

/// Families shown in full to people; the rest is summed up.
const FAMILIES_SHOWN: usize = 20;

/// Bytes with three digits and a unit.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let (mut value, mut unit) = (self.0 as f64, 0);
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        let digits = if unit == 0 || value >= 99.95 { 0 } else { 1 };
        f.pad(&format!("{value:.digits$} {}", UNITS[unit]))
    }
}

/// Nanoseconds with three digits and a unit.
struct Time(u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["ns", "µs", "ms", "s"];
        let (mut value, mut unit) = (self.0 as f64, 0);
        while value >= 1000.0 && unit + 1 < UNITS.len() {
            value /= 1000.0;
            unit += 1;
        }
        let digits = if unit == 0 || value >= 99.95 { 0 } else { 1 };
        f.pad(&format!("{value:.digits$} {}", UNITS[unit]))
    }
}

fn distribution(f: &mut fmt::Formatter<'_>, name: &str, times: &Histogram) -> fmt::Result {
    if times.count() == 0 {
        return Ok(());
    }
    writeln!(
        f,
        "  {name:<10} {:>10} times  mean {:>8}  p50 {:>8}  p99 {:>8}  max {:>8}  total {:>8}",
        times.count(),
        Time(times.mean()),
        Time(times.quantile(0.5)),
        Time(times.quantile(0.99)),
        Time(times.max()),
        Time(times.sum()),
    )
}

fn tier_name(tier: u8) -> String {
    match tier {
        255 => "bottom".to_owned(),
        254 => "draining".to_owned(),
        tier => format!("tier {tier}"),
    }
}

fn family(f: &mut fmt::Formatter<'_>, family: &FamilyStats) -> fmt::Result {
    write!(
        f,
        "  {:<16} {:>10} in {} runs",
        family.name,
        Bytes(family.table_bytes()),
        family.runs.len()
    )?;
    if family.sealed > 0 {
        write!(
            f,
            ", {} memtables to flush ({})",
            family.sealed,
            Bytes(family.sealed_bytes)
        )?;
    }
    writeln!(f)?;
    for run in &family.runs {
        writeln!(
            f,
            "    {:<14} {:>10}  {:>5} files  {:>12} versions",
            tier_name(run.tier),
            Bytes(run.bytes),
            run.files,
            run.entries
        )?;
    }
    Ok(())
}

impl fmt::Display for StoreStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reads = self.memtable_hits + self.table_gets;
        writeln!(
            f,
            "operations   {} writes, {reads} reads ({} below the active memtable)",
            self.writes, self.table_gets
        )?;
        writeln!(
            f,
            "memory       {} in active memtables, {} waiting for their flush, {} of {} cached blocks",
            Bytes(self.active_bytes),
            Bytes(self.sealed_bytes),
            Bytes(self.cache.bytes as u64),
            self.cache.blocks
        )?;
        if self.lingering_bytes + self.views.views > 0 {
            writeln!(
                f,
                "held         {} of flushed memtables; by {} views {} of memtables, {} of old files",
                Bytes(self.lingering_bytes),
                self.views.views,
                Bytes(self.views.memtable_bytes),
                Bytes(self.views.file_bytes)
            )?;
        }
        writeln!(
            f,
            "log          {} written, {} syncs; {} torn when it was opened",
            Bytes(self.log_bytes),
            self.log_syncs,
            Bytes(self.torn_bytes)
        )?;
        writeln!(
            f,
            "flushes      {} ({}, {} versions), {} attempts failed",
            self.flushes,
            Bytes(self.flush_bytes),
            self.flushed_entries,
            self.flush_failures
        )?;
        writeln!(
            f,
            "merges       {} ({} into the bottom): read {}, wrote {}; {} files removed",
            self.compactions,
            self.bottom_compactions,
            Bytes(self.compaction_read_bytes),
            Bytes(self.compaction_bytes),
            self.files_removed
        )?;
        writeln!(
            f,
            "amplification  write {:.2}, space {:.2}, read {:.2} blocks",
            self.write_amplification(),
            self.space_amplification(),
            self.read_amplification()
        )?;
        writeln!(
            f,
            "cache        {:.1} % of {} look-ups found their block; filters ruled out {:.1} % of tables",
            self.cache_hit_rate() * 100.0,
            self.cache.hits + self.cache.misses,
            self.filter_hit_rate() * 100.0
        )?;
        writeln!(
            f,
            "families     {}: {} tables, {}",
            self.families.len(),
            self.tables,
            Bytes(self.table_bytes)
        )?;
        for shown in self.families.iter().take(FAMILIES_SHOWN) {
            family(f, shown)?;
        }
        if let Some(rest) = self
            .families
            .get(FAMILIES_SHOWN..)
            .filter(|rest| !rest.is_empty())
        {
            let bytes = rest.iter().map(FamilyStats::table_bytes).sum();
            writeln!(f, "  and {} more: {}", rest.len(), Bytes(bytes))?;
        }
        writeln!(f, "waiting")?;
        for reason in WaitReason::ALL {
            distribution(f, reason.as_str(), self.waits.of(reason))?;
        }
        writeln!(f, "durations")?;
        for (name, times) in self.durations() {
            distribution(f, name, times)?;
        }
        Ok(())
    }
}

impl StoreStats {
    fn durations(&self) -> [(&'static str, &Histogram); 4] {
        let latencies = &self.latencies;
        [
            ("flush", &latencies.flush),
            ("compaction", &latencies.compaction),
            ("sync", &latencies.sync),
            ("table_get", &latencies.table_get),
        ]
    }

    /// The statistics in the text format of Prometheus; every name begins with `keybed_`. `labels` go into every
    /// line, for example `store="orders"`; empty for none.
    pub fn prometheus(&self, labels: &str) -> String {
        let mut page = Page {
            out: String::new(),
            labels,
        };
        for (name, value) in self.counters() {
            page.family(name, "counter");
            page.line(name, "", value);
        }
        for (name, value) in self.gauges() {
            page.family(name, "gauge");
            page.line(name, "", value);
        }
        let amplifications = [
            ("write_amplification", self.write_amplification()),
            ("space_amplification", self.space_amplification()),
            ("read_amplification", self.read_amplification()),
        ];
        for (name, value) in amplifications {
            page.family(name, "gauge");
            page.line(name, "", value);
        }
        self.prometheus_shape(&mut page);
        page.family("wait_seconds", "summary");
        for reason in WaitReason::ALL {
            page.summary("wait_seconds", "reason", reason.as_str(), self.waits.of(reason));
        }
        page.family("duration_seconds", "summary");
        for (name, times) in self.durations() {
            page.summary("duration_seconds", "what", name, times);
        }
        page.out
    }

    fn prometheus_shape(&self, page: &mut Page<'_>) {
        page.family("run_bytes", "gauge");
        for family in &self.families {
            for (at, run) in family.runs.iter().enumerate() {
                let labels = format!(
                    "family=\"{}\",run=\"{at}\",tier=\"{}\"",
                    escaped(&family.name),
                    run.tier
                );
                page.line("run_bytes", &labels, run.bytes);
            }
        }
        page.family("run_files", "gauge");
        for family in &self.families {
            for (at, run) in family.runs.iter().enumerate() {
                let labels = format!(
                    "family=\"{}\",run=\"{at}\",tier=\"{}\"",
                    escaped(&family.name),
                    run.tier
                );
                page.line("run_files", &labels, run.files);
            }
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("writes_total", self.writes),
            ("memtable_hits_total", self.memtable_hits),
            ("multi_gets_total", self.multi_gets),
            ("table_gets_total", self.table_gets),
            ("seals_total", self.seals),
            ("flushes_total", self.flushes),
            ("flush_bytes_total", self.flush_bytes),
            ("flushed_versions_total", self.flushed_entries),
            ("flush_failures_total", self.flush_failures),
            ("compactions_total", self.compactions),
            ("bottom_compactions_total", self.bottom_compactions),
            ("compaction_read_bytes_total", self.compaction_read_bytes),
            ("compaction_bytes_total", self.compaction_bytes),
            ("log_bytes_total", self.log_bytes),
            ("log_syncs_total", self.log_syncs),
            ("torn_bytes_total", self.torn_bytes),
            ("moved_files_total", self.moved_files),
            ("dropped_files_total", self.dropped_files),
            ("stalls_total", self.stalls),
            ("files_removed_total", self.files_removed),
            ("cache_hits_total", self.cache.hits),
            ("cache_misses_total", self.cache.misses),
            ("kept_bytes_total", self.kept_bytes),
            ("sampled_gets_total", self.sampled.gets),
            ("sampled_tables_total", self.sampled.tables),
            ("sampled_filter_negatives_total", self.sampled.filter_negatives),
            (
                "sampled_filter_false_positives_total",
                self.sampled.filter_false_positives,
            ),
        ]
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("active_bytes", self.active_bytes),
            ("sealed_bytes", self.sealed_bytes),
            ("lingering_bytes", self.lingering_bytes),
            ("views", self.views.views),
            ("view_memtable_bytes", self.views.memtable_bytes),
            ("view_file_bytes", self.views.file_bytes),
            ("view_oldest_nanos", self.views.oldest_nanos),
            ("tables", self.tables),
            ("table_bytes", self.table_bytes),
            ("runs_max", self.runs_max),
            ("cache_bytes", self.cache.bytes as u64),
            ("cache_blocks", self.cache.blocks as u64),
        ]
    }
}

/// A label's value as the text format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

struct Page<'a> {
    out: String,
    labels: &'a str,
}

impl Page<'_> {
    fn family(&mut self, name: &str, kind: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.out, "# TYPE keybed_{name} {kind}");
    }

    fn line(&mut self, name: &str, more: &str, value: impl fmt::Display) {
        let comma = if self.labels.is_empty() || more.is_empty() {
            ""
        } else {
            ","
        };
        let labels = format!("{}{comma}{more}", self.labels);
        let labels = if labels.is_empty() {
            labels
        } else {
            format!("{{{labels}}}")
        };
        let _ = writeln!(self.out, "keybed_{name}{labels} {value}");
    }

    fn summary(&mut self, name: &str, label: &str, value: &str, times: &Histogram) {
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        for q in [0.5, 0.99, 0.999, 1.0] {
            let labels = format!("{label}=\"{value}\",quantile=\"{q}\"");
            self.line(name, &labels, seconds(times.quantile(q)));
        }
        let label = format!("{label}=\"{value}\"");
        self.line(&format!("{name}_sum"), &label, seconds(times.sum()));
        self.line(&format!("{name}_count"), &label, times.count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_three_digits() {
        let bytes = [0, 1023, 1024, 1536, 102_400, 5 << 40].map(|n| Bytes(n).to_string());
        assert_eq!(
            bytes,
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "100 KiB", "5.0 TiB"]
        );
        let times = [7, 1_500, 150_000, 2_000_000_000].map(|n| Time(n).to_string());
        assert_eq!(times, ["7 ns", "1.5 µs", "150 µs", "2.0 s"]);
    }

    #[test]
    fn prometheus_lines_have_labels_and_plain_numbers() {
        let mut stats = StoreStats::default();
        stats.counts.writes = 7;
        stats.waits.stop.record(1_500_000_000);
        stats.families.push(FamilyStats {
            name: "o\"rders".to_owned(),
            runs: vec![super::super::RunStats::default()],
            ..FamilyStats::default()
        });
        let page = stats.prometheus("store=\"a\"");
        for line in [
            "# TYPE keybed_writes_total counter",
            "keybed_writes_total{store=\"a\"} 7",
            "keybed_wait_seconds_count{store=\"a\",reason=\"stop\"} 1",
            "keybed_wait_seconds{store=\"a\",reason=\"stop\",quantile=\"1\"} 1.5",
            "keybed_run_files{store=\"a\",family=\"o\\\"rders\",run=\"0\",tier=\"0\"} 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
        assert!(stats.prometheus("").contains("\nkeybed_writes_total 7\n"));
    }
}
