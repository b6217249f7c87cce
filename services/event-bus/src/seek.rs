//! Where a time is in a stream.

use std::time::{Duration, SystemTime};

use sdk::Error;

/// How far the clocks of tasks may be apart.
const SKEW: Duration = Duration::from_secs(2);

/// The largest sequence up to which every message was published before `time`, of sequences up to `last`. `next` gives the first
/// message after a sequence, with the time at which it was published. Times grow with sequences, apart from [`SKEW`].
pub(crate) async fn before<F>(time: SystemTime, last: u64, next: impl Fn(u64) -> F + Send + Sync) -> Result<u64, Error>
where
    F: Future<Output = Result<Option<(u64, SystemTime)>, Error>> + Send,
{
    let surely = time - SKEW;
    let (mut found, mut end) = (0, last);
    while found < end {
        let middle = found + (end - found) / 2;
        match next(middle).await? {
            Some((sequence, published)) if published < surely => found = sequence,
            _ => end = middle,
        }
    }
    while let Some((sequence, published)) = next(found).await?
        && published < time
    {
        found = sequence;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt as _;

    use super::*;

    /// Messages at every third sequence, published at these times in milliseconds.
    #[track_caller]
    fn check(published: &[u64], time: u64, expected: u64) -> usize {
        let reads = AtomicUsize::new(0);
        let at = |milliseconds| SystemTime::UNIX_EPOCH + Duration::from_secs(10) + Duration::from_millis(milliseconds);
        let next = |after: u64| {
            reads.fetch_add(1, Ordering::Relaxed);
            let index = usize::try_from(after / 3).unwrap();
            ready(Ok(published.get(index).map(|time| (index as u64 * 3 + 3, at(*time)))))
        };
        let last = published.len() as u64 * 3;
        let found = before(at(time), last, next).now_or_never().unwrap().unwrap();
        assert_eq!(found, expected, "{time}");
        reads.into_inner()
    }

    #[test]
    fn a_time_is_found_between_two_messages() {
        let published = [0, 1_000, 9_000, 9_000, 30_000];
        check(&published, 0, 0);
        check(&published, 1, 3);
        check(&published, 9_000, 6);
        check(&published, 9_001, 12);
        check(&published, 40_000, 15);
        check(&[], 1, 0);
    }

    #[test]
    fn clocks_may_differ() {
        check(&[0, 10_500, 9_500, 11_000], 10_000, 3);
        check(&[0, 9_500, 10_500, 9_600, 11_000], 10_000, 6);
    }

    #[test]
    fn few_messages_are_read() {
        let published: Vec<u64> = (0..100_000).map(|number| number * 1_000).collect();
        let reads = check(&published, 70_000_000, 3 * 70_000);
        assert!(reads < 30, "{reads} reads");
    }
}
