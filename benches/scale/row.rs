//! What something takes that is done many times: time to the answer, processor time and memory of the server.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::meter::Meter;

/// What something took.
pub(crate) struct Row {
    /// What was asked.
    pub(crate) what: &'static str,
    median: Duration,
    /// Processor time for one.
    cpu: Duration,
    /// The most memory that there was until it was done, in MiB.
    memory: u64,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let median = self.median.as_secs_f64() * 1_000.0;
        let cpu = self.cpu.as_micros();
        write!(f, "{median:>10.2} {cpu:>10} {:>6}", self.memory)
    }
}

impl Row {
    /// Does something so many times, one after the other.
    pub(crate) async fn new(
        meter: &Meter,
        what: &'static str,
        times: usize,
        mut asked: impl AsyncFnMut(usize),
    ) -> Self {
        let before = meter.cpu();
        let mut took = Vec::new();
        for n in 0..times {
            let begun = Instant::now();
            asked(n).await;
            took.push(begun.elapsed());
        }
        took.sort_unstable();
        let cpu = meter.cpu().saturating_sub(before);
        Self {
            what,
            median: took[times / 2],
            cpu: cpu / u32::try_from(times).unwrap(),
            memory: meter.memory("VmHWM"),
        }
    }
}
