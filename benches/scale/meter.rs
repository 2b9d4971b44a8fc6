//! What the server takes: time to the answer, processor time, memory.

use std::{
    fmt, fs,
    time::{Duration, Instant},
};

/// Watches a server's process.
pub(crate) struct Meter {
    pid: u32,
}

/// What something took.
pub(crate) struct Row {
    /// What was asked.
    pub(crate) what: &'static str,
    median: Duration,
    /// Processor time for one.
    cpu: Duration,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let median = self.median.as_secs_f64() * 1_000.0;
        write!(f, "{median:>10.2} {:>10}", self.cpu.as_micros())
    }
}

impl Meter {
    pub(crate) fn new(pid: u32) -> Self {
        Self { pid }
    }

    /// Does something so many times, one after the other.
    pub(crate) async fn row(
        &self,
        what: &'static str,
        times: usize,
        mut asked: impl AsyncFnMut(usize),
    ) -> Row {
        let before = self.cpu();
        let mut took = Vec::new();
        for n in 0..times {
            let begun = Instant::now();
            asked(n).await;
            took.push(begun.elapsed());
        }
        took.sort_unstable();
        let cpu = self.cpu().saturating_sub(before);
        Row {
            what,
            median: took[times / 2],
            cpu: cpu / u32::try_from(times).unwrap(),
        }
    }

    /// Processor time of all threads that are there.
    fn cpu(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap();
        let all = threads.filter_map(|thread| {
            let times = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            times.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(all.sum())
    }

    /// A line of `/proc/PID/status`, in MiB.
    pub(crate) fn memory(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status
            .lines()
            .find_map(|found| found.strip_prefix(line))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024
    }
}
