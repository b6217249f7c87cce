//! Which version of nats-server may follow which. That is a graph and no order: peers of different versions form one cluster while
//! it is rolled, and what one writes the others must be able to read.

use std::collections::BTreeSet;

use super::observation::Asset;
use super::obstacle::Obstacle;
use crate::nats::locate::{MINIMUM, Version};

/// What is known of the minor releases: number, and the level of JetStream's API (`_nats.req.level` of assets).
const LEVELS: &[(u64, u64)] = &[(12, 2), (13, 2), (14, 4), (15, 5)];

/// From this minor release on, a server removes ranges of its Raft log (`js_raft_delete_range`), at which peers before
/// [`READS_RANGES`] panic.
const WRITES_RANGES: u64 = 15;
/// From this one on, a server understands that.
const READS_RANGES: u64 = 14;

/// Whether a way back was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Downgrade {
    /// It was not.
    Refused,
    /// It was, for a reason.
    Forced,
}

/// Whether servers of these versions may be brought to another one, while all of them work together.
///
/// # Errors
/// Why not, and which way there is.
pub(crate) fn refuse_jump(
    running: &BTreeSet<Version>,
    to: Version,
    assets: &[Asset],
    downgrade: Downgrade,
) -> Result<(), Obstacle> {
    running.iter().try_for_each(|from| refuse(*from, to, assets, downgrade))
}

fn refuse(from: Version, to: Version, assets: &[Asset], downgrade: Downgrade) -> Result<(), Obstacle> {
    let jump = |reason: &str, repair: &str| {
        let (from, to) = (from.to_string(), to.to_string());
        Err(Obstacle::Jump { from, to, reason: reason.to_owned(), repair: repair.to_owned() })
    };
    if to < MINIMUM {
        return jump(&format!("services need at least {MINIMUM}"), "choose a later version");
    }
    if from.major != to.major {
        return jump(
            "nothing is known of how these work together",
            "read its release notes; natsctl must know it first",
        );
    }
    if to.minor >= WRITES_RANGES && from.minor < READS_RANGES {
        let reason = "it writes what peers before 2.14 panic at";
        return jump(reason, "roll to 2.14 first: `natsctl nats roll --version 2.14.6`, then to this one");
    }
    if from.minor >= WRITES_RANGES && to.minor < READS_RANGES {
        return jump("it panics at what 2.15 has written", "there is no way back before 2.14");
    }
    if to.minor > from.minor && known(to.minor).is_none() && known(from.minor + 1).is_some() {
        return jump("it is more than one release ahead", "roll to the latest release that natsctl knows first");
    }
    if to >= from {
        return Ok(());
    }
    if let Some(level) = known(to.minor)
        && let Some(asset) = assets.iter().find(|asset| asset.level > level)
    {
        let reason = format!("{asset} needs level {} of JetStream's API, and it has {level}", asset.level);
        return jump(&reason, "such an asset would be offline until the servers are upgraded again");
    }
    match downgrade {
        Downgrade::Forced => Ok(()),
        Downgrade::Refused => jump("that is a downgrade", "`--force REASON` accepts it; the reason is in the history"),
    }
}

/// The API level of a minor release.
fn known(minor: u64) -> Option<u64> {
    LEVELS.iter().find(|(number, _)| *number == minor).map(|(_, level)| *level)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::nats::roll::AssetKind;

    #[track_caller]
    fn check(from: &str, to: &str, downgrade: Downgrade, expected: Option<&str>) {
        let asset = Asset {
            kind: AssetKind::Stream,
            account: "STORE".to_owned(),
            name: "S".to_owned(),
            replicas: 3,
            level: 4,
            views: BTreeMap::new(),
        };
        let running = from.split(' ').map(|version| version.parse().unwrap()).collect();
        let refused = refuse_jump(&running, to.parse().unwrap(), &[asset], downgrade).err();
        let text = refused.map(|obstacle| obstacle.to_string());
        match expected {
            None => assert_eq!(text, None),
            Some(expected) => assert!(text.as_ref().is_some_and(|text| text.contains(expected)), "{text:?}"),
        }
    }

    #[test]
    fn the_next_release_may_follow() {
        check("2.12.8", "2.14.6", Downgrade::Refused, None);
        check("2.14.6", "2.15.1", Downgrade::Refused, None);
        check("2.14.0 2.15.1", "2.15.1", Downgrade::Refused, None);
        check("2.15.1", "2.15.1", Downgrade::Refused, None);
        check("2.15.1", "2.16.0", Downgrade::Refused, None);
    }

    #[test]
    fn what_peers_panic_at_takes_two_rolls() {
        check("2.12.8", "2.15.1", Downgrade::Forced, Some("peers before 2.14 panic"));
        check("2.12.8 2.14.6", "2.15.1", Downgrade::Refused, Some("from 2.12.8"));
    }

    #[test]
    fn there_is_no_way_back_before_what_can_read_the_log() {
        check("2.15.1", "2.12.8", Downgrade::Forced, Some("panics at what 2.15 has written"));
    }

    #[test]
    fn a_way_back_is_asked_for_with_a_reason() {
        check("2.15.1", "2.14.6", Downgrade::Refused, Some("that is a downgrade"));
        check("2.15.1", "2.14.6", Downgrade::Forced, None);
        check("2.15.1", "2.15.0", Downgrade::Refused, Some("that is a downgrade"));
    }

    #[test]
    fn assets_keep_a_version_that_can_serve_them() {
        check("2.14.6", "2.12.8", Downgrade::Forced, Some("stream `S` needs level 4"));
    }

    #[test]
    fn what_is_unknown_is_refused() {
        check("2.15.1", "3.0.0", Downgrade::Forced, Some("nothing is known"));
        check("2.15.1", "2.11.9", Downgrade::Forced, Some("at least 2.12.0"));
        check("2.14.6", "2.17.0", Downgrade::Forced, Some("more than one release ahead"));
    }
}
