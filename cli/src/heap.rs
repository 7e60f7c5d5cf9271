//! Memory that a server has freed goes back to the system once it has nothing to do.
//!
//! glibc keeps freed memory for whoever asks next, in one arena for each thread that had to wait: after a build with a large
//! context that was more than all that was in use. Other C libraries keep little, so nothing is done there.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How often it is looked whether there is nothing to do.
const TICK: Duration = Duration::from_secs(1);
/// Less processor time than this between two looks is nothing to do.
const IDLE: Duration = Duration::from_millis(50);
/// Memory is given back once the process has grown by so many bytes since that was done last.
const GROWN: u64 = 4 << 20;

/// Has all threads share a few arenas. To be called before there are threads.
pub fn few_arenas() {
    #[cfg(target_env = "gnu")]
    {
        let most = std::thread::available_parallelism().map_or(2, usize::from);
        let most = i32::try_from(most).unwrap_or(i32::MAX);
        #[allow(unsafe_code)]
        // SAFETY: it sets a number of the allocator's.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, most);
        }
    }
}

/// Gives memory back whenever the process rests, until `stop`.
pub(crate) async fn give_back(stop: CancellationToken) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut used, mut kept) = (processor_time(), 0);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let before = std::mem::replace(&mut used, processor_time());
        let rests = used.saturating_sub(before) < IDLE;
        if rests && resident() > kept + GROWN {
            trim().await;
            kept = resident();
        }
    }
}

async fn trim() {
    #[cfg(target_env = "gnu")]
    {
        let trimmed = tokio::task::spawn_blocking(|| {
            #[allow(unsafe_code)]
            // SAFETY: the allocator takes its own locks.
            unsafe {
                libc::malloc_trim(0)
            }
        });
        trimmed.await.expect("trimming does not panic");
    }
}

/// What this process has used of the processors since its start, as /proc says it: in hundredths of a second (proc(5),
/// `/proc/pid/stat`, fields 14 and 15).
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the program's name, which may have blanks.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let hundredths = fields.split_whitespace().skip(11).take(2);
    let hundredths = hundredths.filter_map(|field| field.parse::<u64>().ok());
    Duration::from_millis(hundredths.sum::<u64>() * 10)
}

/// Bytes of this process that are in memory; none where /proc does not say it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let kibibytes = lines.find_map(|line| line.strip_prefix("VmRSS:"));
    let number = kibibytes.and_then(|text| text.trim().split(' ').next()?.parse::<u64>().ok());
    number.unwrap_or(0) << 10
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn time_that_was_used_is_seen() {
        let before = processor_time();
        let begun = std::time::Instant::now();
        while processor_time() < before + IDLE {
            assert!(begun.elapsed() < Duration::from_secs(60), "it used none");
        }
    }

    #[tokio::test]
    async fn what_was_freed_is_given_back() {
        // Small pieces, so that the allocator keeps them; the last one holds the end of the heap.
        let mut pieces: Vec<Vec<u8>> = (0..64 << 10).map(|_| vec![1; 1 << 10]).collect();
        let last = pieces.pop();
        drop(pieces);
        let before = resident();
        trim().await;
        let after = resident();
        assert!(after + (32 << 20) < before, "{before} bytes, then {after}");
        drop(last);
    }
}
