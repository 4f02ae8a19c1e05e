//! The machine that figures were taken on.

/// Processor model and count, kernel, memory, file system of the scratch directory.
pub fn describe(dir: &str) -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        text.lines()
            .find(|l| l.starts_with(name))
            .and_then(|l| l.split(':').nth(1))
            .unwrap_or("?")
            .trim()
            .to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    format!(
        "{cores} × {}, {} memory, Linux {}, scratch directory on {}; load average at the end {}",
        field(&read("/proc/cpuinfo"), "model name"),
        field(&read("/proc/meminfo"), "MemTotal"),
        kernel.trim(),
        file_system(dir),
        load.split(' ').next().unwrap_or("?")
    )
}

/// Type of the file system that holds `dir`: the longest mount point that its path begins with.
fn file_system(dir: &str) -> String {
    let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.into());
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (point, kind) = (words.next()?, words.next()?);
            dir.starts_with(point).then(|| (point.len(), kind.to_owned()))
        })
        .max()
        .map_or("?".into(), |(_, kind)| kind)
}
