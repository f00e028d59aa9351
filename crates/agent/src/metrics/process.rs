//! What the daemon itself takes: memory, processor time, files. The names are those of Prometheus's client libraries.

use std::fs;

use super::page::Page;
use super::registry;

/// Ticks a second in `/proc/PID/stat`. Source: Linux, `USER_HZ`, part of the kernel's interface.
const TICKS: u64 = 100;

/// Adds what the kernel shows. What it does not show has no sample.
pub(super) fn show(page: &Page) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kilobytes) = number_after(&status, "VmRSS:") {
        page.gauge(&registry::RESIDENT_BYTES, kilobytes * 1024);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // One of them is the listing's own.
        page.gauge(&registry::OPEN_FILES, files.count().saturating_sub(1));
    }
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let machine = fs::read_to_string("/proc/stat").unwrap_or_default();
    let Some(Stat { cpu, started }) = Stat::parse(&stat) else { return };
    page.counters(&registry::CPU_SECONDS, [([""; 0], seconds(cpu))]);
    if let Some(boot) = number_after(&machine, "btime") {
        page.gauge(&registry::START_TIME, boot + started / TICKS);
    }
}

fn seconds(ticks: u64) -> f64 {
    f64::from(u32::try_from(ticks).unwrap_or(u32::MAX)) / 100.0
}

/// The number behind a word at the start of a line.
fn number_after(text: &str, word: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(word))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Fields of `/proc/PID/stat`, in ticks. Source: `proc_pid_stat(5)`.
#[derive(Debug, PartialEq)]
struct Stat {
    /// In user mode and in the kernel.
    cpu: u64,
    /// Since the machine's boot.
    started: u64,
}

impl Stat {
    /// The program's name may contain spaces and brackets, so the fields are counted from its end.
    fn parse(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(") ")?;
        let fields: Vec<_> = fields.split(' ').collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self { cpu: number(11)?.saturating_add(number(12)?), started: number(19)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_name() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 12345 1000000 500";
        assert_eq!(Stat::parse(text), Some(Stat { cpu: 300, started: 12345 }));
        assert_eq!(Stat::parse("7 (a) S 1 2"), None);
        assert_eq!(number_after("cpu 1 2\nbtime 1700000000\n", "btime"), Some(1_700_000_000));
        assert_eq!(number_after("VmRSS:\t    2048 kB\n", "VmRSS:"), Some(2048));
    }

    #[test]
    fn own_process_has_memory_files_and_a_start() {
        let page = Page::default();
        show(&page);
        let text = page.into_text();
        for name in [
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "process_start_time_seconds ",
            "process_cpu_seconds_total ",
        ] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name}\n{text}");
        }
    }
}
