//! The recommendation: percentiles of frame times, and profiles that do not flap.

use std::time::{Duration, SystemTime};

use proto::performance::v1::{FrameTimes, Profile, Recommendation, ReportRequest, StoredClient};
use proto::well_known::Timestamp;
use sdk::{Error, Id, check_count, check_range};

const MAX_ID: usize = 64;
const SAMPLES: std::ops::RangeInclusive<usize> = 30..=2_000;
const FRAME_US: std::ops::RangeInclusive<u32> = 100..=10_000_000;
/// Reports in a row that make the profile go down, and up.
const SLOW_REPORTS: u32 = 2;
const FAST_REPORTS: u32 = 5;
/// How long a profile is kept before it goes up.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// Percent of a frame's time: from here on it is too slow, and up to here fast enough for the next profile. What lies between is
/// the hysteresis.
const TOO_SLOW: u64 = 110;
const FAST: u64 = 70;

/// Frame times that were reported, and the time that a frame may take, in microseconds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report {
    times: FrameTimes,
    budget_us: u32,
}

pub(crate) fn key(client_id: &str) -> Result<Id, Error> {
    Id::new("client", client_id, MAX_ID)
}

impl Report {
    pub(crate) fn new(request: &ReportRequest) -> Result<Self, Error> {
        let count = request.frame_times_us.len();
        check_count("frame times", count, *SAMPLES.end())?;
        check_range("the number of frame times", count, SAMPLES)?;
        let target_fps = match request.target_fps {
            0 => 60,
            fps => check_range("target_fps", fps, 15..=360)?,
        };
        let mut sorted = request.frame_times_us.clone();
        sorted.sort_unstable();
        for edge in [sorted[0], sorted[count - 1]] {
            check_range("a frame time", edge, FRAME_US)?;
        }
        // The nearest rank.
        let percentile = |percent: usize| sorted[(count * percent).div_ceil(100) - 1];
        let times = FrameTimes {
            samples: u32::try_from(count).unwrap_or(u32::MAX),
            p50_us: percentile(50),
            p95_us: percentile(95),
            p99_us: percentile(99),
        };
        Ok(Self { times, budget_us: 1_000_000 / target_fps })
    }

    fn percent(&self) -> u64 {
        u64::from(self.times.p95_us) * 100 / u64::from(self.budget_us)
    }
}

/// A client that has reported nothing yet.
pub(crate) fn unknown(client_id: &str, now: SystemTime) -> StoredClient {
    StoredClient {
        client_id: client_id.to_owned(),
        profile: Profile::Medium.into(),
        changed_at: Some(now.into()),
        reason: "nothing was reported yet".to_owned(),
        ..StoredClient::default()
    }
}

/// The client after a report.
pub(crate) fn reported(mut client: StoredClient, report: &Report, now: SystemTime) -> StoredClient {
    client.frame_times = Some(report.times);
    if is_overridden(&client, now) {
        return client;
    }
    let percent = report.percent();
    (client.slow_reports, client.fast_reports) = match percent {
        TOO_SLOW.. => (client.slow_reports + 1, 0),
        0..=FAST => (0, client.fast_reports + 1),
        _ => (0, 0),
    };
    let said = format!("95 % of the frames took at most {} us, {percent} % of what they may", report.times.p95_us);
    let kept = client.changed_at.and_then(|at| now.duration_since(SystemTime::try_from(at).ok()?).ok());
    let next = match client.profile() {
        profile if client.slow_reports >= SLOW_REPORTS => below(profile),
        profile if client.fast_reports >= FAST_REPORTS && kept.is_some_and(|kept| kept >= KEPT_FOR) => above(profile),
        profile => profile,
    };
    if next == client.profile() {
        client.reason = said;
        return client;
    }
    let (verb, count) = match client.slow_reports {
        0 => ("up", client.fast_reports),
        count => ("down", count),
    };
    client.reason = format!("{verb} after {count} reports: {said}");
    client.set_profile(next);
    client.changed_at = Some(now.into());
    (client.slow_reports, client.fast_reports) = (0, 0);
    client
}

fn below(profile: Profile) -> Profile {
    Profile::try_from(profile as i32 - 1).ok().filter(|it| *it != Profile::Unspecified).unwrap_or(Profile::Low)
}

fn above(profile: Profile) -> Profile {
    Profile::try_from(profile as i32 + 1).unwrap_or(Profile::Ultra)
}

fn is_overridden(client: &StoredClient, now: SystemTime) -> bool {
    let end = client.override_until.and_then(|end| SystemTime::try_from(end).ok());
    end.is_some_and(|end| now < end)
}

/// The client with a profile that is set by hand.
pub(crate) fn overridden(mut client: StoredClient, profile: Profile, seconds: u32, now: SystemTime) -> StoredClient {
    client.set_override_profile(profile);
    client.override_until = Some((now + Duration::from_secs(seconds.into())).into());
    client
}

/// The client without one.
pub(crate) fn cleared(mut client: StoredClient) -> StoredClient {
    (client.override_profile, client.override_until) = (0, None);
    client
}

/// What is recommended to a client at `now`.
pub(crate) fn recommendation(client: StoredClient, revision: u64, now: SystemTime) -> Recommendation {
    let until: Option<Timestamp> = client.override_until.filter(|_| is_overridden(&client, now));
    let (profile, reason) = match until {
        Some(_) => (client.override_profile(), "set by hand".to_owned()),
        None => (client.profile(), client.reason),
    };
    Recommendation {
        client_id: client.client_id,
        profile: profile.into(),
        reason,
        frame_times: client.frame_times,
        overridden_until: until,
        changed_at: client.changed_at,
        revision,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn report(frame_us: u32) -> Report {
        Report::new(&ReportRequest { frame_times_us: vec![frame_us; 60], ..ReportRequest::default() }).unwrap()
    }

    /// The profiles that are recommended, one report every ten seconds: `s` slow, `f` fast, `-` neither.
    #[track_caller]
    fn check(reports: &str, expected: &[Profile]) {
        let mut client = unknown("c", at(0));
        let mut seen = Vec::new();
        for (number, speed) in reports.chars().enumerate() {
            let frame_us = match speed {
                's' => 20_000,
                'f' => 8_000,
                _ => 15_000,
            };
            client = reported(client, &report(frame_us), at(10 * (number as u64 + 1)));
            if seen.last() != Some(&client.profile()) {
                seen.push(client.profile());
            }
        }
        assert_eq!(seen, expected, "{reports}");
    }

    #[test]
    fn the_profile_follows_what_lasts_and_does_not_flap() {
        check("s-s-s-s-", &[Profile::Medium]);
        check("sfsfsfsfsfsf", &[Profile::Medium]);
        check("ssss", &[Profile::Medium, Profile::Low]);
        check("ffff-ffff", &[Profile::Medium]);
        check("ffffffffff", &[Profile::Medium, Profile::High, Profile::Ultra]);
        check("fffffss", &[Profile::Medium, Profile::High, Profile::Medium]);
    }

    #[test]
    fn percentiles_are_the_nearest_ranks() {
        let request = ReportRequest { frame_times_us: (1..=200).map(|it| it * 100).collect(), ..Default::default() };
        let Report { times, budget_us } = Report::new(&request).unwrap();
        assert_eq!((times.p50_us, times.p95_us, times.p99_us, budget_us), (10_000, 19_000, 19_800, 16_666));
    }

    #[test]
    fn reports_are_checked() {
        let refused = |frame_times_us: Vec<u32>, target_fps, because: &str| {
            let error = Report::new(&ReportRequest { frame_times_us, target_fps, ..Default::default() }).unwrap_err();
            assert!(error.message().contains(because), "{error}");
        };
        refused(vec![], 0, "the number of frame times is 0, it must be 30 to 2000");
        refused(vec![1_000; 2_001], 0, "at most 2000");
        refused(vec![1_000; 60], 14, "target_fps is 14");
        refused(vec![99; 60], 0, "a frame time is 99, it must be 100 to 10000000");
    }

    #[test]
    fn an_override_holds_until_it_expires_and_reports_do_not_change_the_profile_meanwhile() {
        let mut client = overridden(unknown("c", at(0)), Profile::Ultra, 60, at(0));
        for _ in 0..4 {
            client = reported(client, &report(50_000), at(30));
        }
        let profile = |seconds| recommendation(client.clone(), 1, at(seconds)).profile();
        assert_eq!((profile(59), profile(60)), (Profile::Ultra, Profile::Medium));
        assert_eq!(recommendation(cleared(client.clone()), 1, at(1)).profile(), Profile::Medium);
    }

    proptest! {
        #[test]
        fn it_goes_up_at_most_every_thirty_seconds(speeds in prop::collection::vec(5_000..30_000_u32, 0..200)) {
            let mut client = unknown("c", at(0));
            let mut up_at = 0;
            for (number, speed) in speeds.into_iter().enumerate() {
                let (seconds, before) = (number as u64 + 1, client.profile());
                client = reported(client, &report(speed), at(seconds));
                if client.profile() as i32 > before as i32 {
                    prop_assert!(seconds - up_at >= 30);
                    up_at = seconds;
                }
                prop_assert!(client.profile() != Profile::Unspecified);
            }
        }
    }
}
