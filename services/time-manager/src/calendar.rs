//! The calendar: which date a game time has, and which season.

use proto::time::v1::{Calendar, DayPart, GameDate, Month, Season, SeasonSpan};
use sdk::{Code, Error, check_range, check_text, choice, required};

/// The end of game time, in milliseconds: more than 30,000 years.
pub(crate) const MAX_GAME_MS: i64 = 1_000_000_000_000_000;
pub(crate) const HOUR_MS: i64 = 3_600_000;

const MAX_NAME: usize = 32;
const MAX_WEEKDAYS: usize = 20;
const MAX_MONTHS: usize = 40;
/// Seasons in one answer.
const MAX_SPANS: usize = 64;
/// The hours of a day of 24 at which its parts begin, as [`DayPart`] documents them.
const DAY_PARTS: [(u64, DayPart); 7] = [
    (0, DayPart::Night),
    (5, DayPart::Dawn),
    (7, DayPart::Morning),
    (12, DayPart::Afternoon),
    (18, DayPart::Dusk),
    (20, DayPart::Evening),
    (22, DayPart::Night),
];

/// The calendar of a new game: twelve months of thirty days, which begin with spring.
pub(crate) fn standard() -> Calendar {
    use Season::{Autumn, Spring, Summer, Winter};
    let months = [
        ("Thaw", Spring),
        ("Seed", Spring),
        ("Blossom", Spring),
        ("Meadow", Summer),
        ("Sun", Summer),
        ("Grain", Summer),
        ("Harvest", Autumn),
        ("Vine", Autumn),
        ("Mist", Autumn),
        ("Frost", Winter),
        ("Snow", Winter),
        ("Wolf", Winter),
    ];
    let weekdays = ["Moonday", "Fireday", "Riverday", "Treeday", "Goldday", "Stoneday", "Sunday"];
    Calendar {
        hours_per_day: 24,
        weekdays: weekdays.map(str::to_owned).to_vec(),
        months: months.map(|(name, season)| Month { name: name.to_owned(), days: 30, season: season.into() }).to_vec(),
        first_year: 1,
    }
}

/// The calendar, if it is valid.
pub(crate) fn checked(calendar: Option<Calendar>) -> Result<Calendar, Error> {
    let calendar = required("calendar", calendar)?;
    check_range("hours_per_day", calendar.hours_per_day, 1..=100)?;
    check_range("first_year", calendar.first_year, -1_000_000..=1_000_000)?;
    check_range("number of weekdays", calendar.weekdays.len(), 1..=MAX_WEEKDAYS)?;
    check_range("number of months", calendar.months.len(), 1..=MAX_MONTHS)?;
    for weekday in &calendar.weekdays {
        check_text("weekday", weekday, MAX_NAME)?;
    }
    for month in &calendar.months {
        check_text("name of a month", &month.name, MAX_NAME)?;
        check_range(&format!("days of month `{}`", month.name), month.days, 1..=1_000)?;
        choice::<Season>(&format!("season of month `{}`", month.name), month.season)?;
    }
    Ok(calendar)
}

/// The date of a game time from 0 to [`MAX_GAME_MS`].
pub(crate) fn date(calendar: &Calendar, game_ms: i64) -> GameDate {
    let (day_number, in_day) = (game_ms / day_ms(calendar), game_ms % day_ms(calendar));
    let (year, mut day) = (day_number / year_days(calendar), day_number % year_days(calendar));
    let mut months = (1..).zip(&calendar.months);
    let (number, month) = months
        .find(|(_, month)| {
            let is_it = day < i64::from(month.days);
            if !is_it {
                day -= i64::from(month.days);
            }
            is_it
        })
        .expect("the months make up the year");
    let seconds = in_day / 1_000;
    GameDate {
        year: calendar.first_year + small::<i32>(year),
        month: number,
        day: small::<u32>(day) + 1,
        hour: small(seconds / 3_600),
        minute: small(seconds / 60 % 60),
        second: small(seconds % 60),
        month_name: month.name.clone(),
        weekday: calendar.weekdays[small::<usize>(day_number % calendar.weekdays.len() as i64)].clone(),
        season: month.season,
        day_part: day_part(calendar, in_day).into(),
    }
}

/// The game time at which a date begins.
pub(crate) fn game_ms(calendar: &Calendar, date: &GameDate) -> Result<i64, Error> {
    let absent = |what: &str, value: u32, allowed: String| {
        Error::new(Code::OutOfRange, format!("{what} is {value}, the calendar has {allowed}"))
    };
    let year = i64::from(date.year) - i64::from(calendar.first_year);
    if !(0..=MAX_GAME_MS / (day_ms(calendar) * year_days(calendar))).contains(&year) {
        return Err(Error::new(
            Code::OutOfRange,
            format!("year is {}, game time begins in {} and lasts 10^15 milliseconds", date.year, calendar.first_year),
        ));
    }
    let before = small::<usize>(i64::from(date.month)).wrapping_sub(1);
    let month = calendar.months.get(before);
    let month = month.ok_or_else(|| absent("month", date.month, format!("1 to {}", calendar.months.len())))?;
    if !(1..=month.days).contains(&date.day) {
        return Err(absent("day", date.day, format!("1 to {} in `{}`", month.days, month.name)));
    }
    let clock = [("hour", date.hour, calendar.hours_per_day), ("minute", date.minute, 60), ("second", date.second, 60)];
    if let Some((what, value, end)) = clock.into_iter().find(|(_, value, end)| value >= end) {
        return Err(absent(what, value, format!("0 to {}", end - 1)));
    }
    let days = year * year_days(calendar)
        + calendar.months[..before].iter().map(|month| i64::from(month.days)).sum::<i64>()
        + i64::from(date.day - 1);
    let seconds = i64::from(date.hour) * 3_600 + i64::from(date.minute) * 60 + i64::from(date.second);
    match days * day_ms(calendar) + seconds * 1_000 {
        ms if ms <= MAX_GAME_MS => Ok(ms),
        _ => Err(Error::new(Code::OutOfRange, "the date is after 10^15 milliseconds of game time")),
    }
}

/// The seasons from one game time up to another.
pub(crate) fn seasons(calendar: &Calendar, from_ms: i64, to_ms: i64) -> Result<Vec<SeasonSpan>, Error> {
    let mut spans: Vec<SeasonSpan> = Vec::new();
    let mut start = from_ms.clamp(0, MAX_GAME_MS);
    let end = to_ms.clamp(0, MAX_GAME_MS);
    while start < end {
        let (season, next) = season_at(calendar, start);
        match spans.last_mut() {
            Some(last) if last.season() == season => last.to_ms = next.min(end),
            _ => spans.push(SeasonSpan { season: season.into(), from_ms: start, to_ms: next.min(end) }),
        }
        if spans.len() > MAX_SPANS {
            return Err(Error::new(Code::OutOfRange, format!("there are more than {MAX_SPANS} seasons in that time")));
        }
        start = next;
    }
    Ok(spans)
}

/// The season at a game time, and a later time up to which it stays the same: the end of the month, or of all time where there
/// is but one season.
fn season_at(calendar: &Calendar, game_ms: i64) -> (Season, i64) {
    let first = calendar.months[0].season();
    if calendar.months.iter().all(|month| month.season() == first) {
        return (first, i64::MAX);
    }
    let date = date(calendar, game_ms);
    let month = &calendar.months[date.month as usize - 1];
    let day = game_ms / day_ms(calendar);
    let next = day + i64::from(month.days) - i64::from(date.day - 1);
    (month.season(), next * day_ms(calendar))
}

fn day_part(calendar: &Calendar, in_day_ms: i64) -> DayPart {
    let passed = in_day_ms.unsigned_abs() * 24;
    let begun = |&&(hour, _): &&(u64, DayPart)| passed >= hour * day_ms(calendar).unsigned_abs();
    DAY_PARTS.iter().rev().find(begun).map_or(DayPart::Night, |(_, part)| *part)
}

fn day_ms(calendar: &Calendar) -> i64 {
    i64::from(calendar.hours_per_day) * HOUR_MS
}

fn year_days(calendar: &Calendar) -> i64 {
    calendar.months.iter().map(|month| i64::from(month.days)).sum()
}

/// A number that the limits of the calendar keep small.
fn small<T: TryFrom<i64>>(number: i64) -> T {
    T::try_from(number).ok().expect("the limits of calendar and game time keep it small")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn short(date: &GameDate) -> String {
        let GameDate { year, month, day, hour, minute, second, .. } = date;
        format!("{year}-{month}-{day} {hour}:{minute:02}:{second:02}")
    }

    #[track_caller]
    fn check(game_ms: i64, expected: &str, rest: (&str, &str, Season, DayPart)) {
        let date = date(&standard(), game_ms);
        assert_eq!(short(&date), expected);
        assert_eq!((&*date.month_name, &*date.weekday, date.season(), date.day_part()), rest);
        assert_eq!(super::game_ms(&standard(), &date), Ok(game_ms / 1_000 * 1_000));
    }

    #[test]
    fn a_game_time_has_a_date() {
        check(0, "1-1-1 0:00:00", ("Thaw", "Moonday", Season::Spring, DayPart::Night));
        check(29 * HOUR_MS + 61_999, "1-1-2 5:01:01", ("Thaw", "Fireday", Season::Spring, DayPart::Dawn));
        let year = 360 * 24 * HOUR_MS;
        check(year - 1, "1-12-30 23:59:59", ("Wolf", "Riverday", Season::Winter, DayPart::Night));
        check(year + 19 * HOUR_MS, "2-1-1 19:00:00", ("Thaw", "Treeday", Season::Spring, DayPart::Dusk));
        let end = date(&standard(), MAX_GAME_MS);
        assert_eq!((end.year, end.month_name.as_str()), (32_151, "Blossom"));
    }

    #[track_caller]
    fn absent(date: GameDate, message: &str) {
        let error = game_ms(&standard(), &date).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::OutOfRange, message));
    }

    #[test]
    fn a_date_that_the_calendar_does_not_have_is_out_of_range() {
        let first = date(&standard(), 0);
        absent(GameDate { month: 0, ..first.clone() }, "month is 0, the calendar has 1 to 12");
        absent(GameDate { month: 13, ..first.clone() }, "month is 13, the calendar has 1 to 12");
        absent(GameDate { day: 31, ..first.clone() }, "day is 31, the calendar has 1 to 30 in `Thaw`");
        absent(GameDate { hour: 24, ..first.clone() }, "hour is 24, the calendar has 0 to 23");
        absent(GameDate { second: 60, ..first.clone() }, "second is 60, the calendar has 0 to 59");
        let years = "game time begins in 1 and lasts 10^15 milliseconds";
        absent(GameDate { year: 0, ..first.clone() }, &format!("year is 0, {years}"));
        absent(GameDate { year: i32::MAX, ..first.clone() }, &format!("year is 2147483647, {years}"));
        let late = GameDate { year: 32_151, month: 12, ..first };
        absent(late, "the date is after 10^15 milliseconds of game time");
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Calendar), message: &str) {
        let mut calendar = standard();
        change(&mut calendar);
        let error = checked(Some(calendar)).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::InvalidArgument, message));
    }

    #[test]
    fn a_calendar_without_time_is_refused() {
        assert_eq!(checked(Some(standard())), Ok(standard()));
        refused(|calendar| calendar.hours_per_day = 0, "hours_per_day is 0, it must be 1 to 100");
        refused(|calendar| calendar.weekdays.clear(), "number of weekdays is 0, it must be 1 to 20");
        refused(|calendar| calendar.months.clear(), "number of months is 0, it must be 1 to 40");
        refused(|calendar| calendar.months[1].days = 0, "days of month `Seed` is 0, it must be 1 to 1000");
        refused(|calendar| calendar.weekdays[0].clear(), "weekday is empty");
        let seasons = "it must be one of SEASON_SPRING, SEASON_SUMMER, SEASON_AUTUMN, SEASON_WINTER";
        refused(|calendar| calendar.months[0].season = 0, &format!("season of month `Thaw` is missing, {seasons}"));
        assert_eq!(checked(None).unwrap_err().message(), "calendar is missing");
    }

    #[test]
    fn seasons_follow_each_other_without_gaps() {
        let month = 30 * 24 * HOUR_MS;
        let check = |from, to, expected: &[(Season, i64, i64)]| {
            let spans = seasons(&standard(), from, to).unwrap();
            let spans: Vec<_> = spans.iter().map(|span| (span.season(), span.from_ms, span.to_ms)).collect();
            assert_eq!(spans, expected);
        };
        check(-5, 0, &[]);
        check(-5, 7, &[(Season::Spring, 0, 7)]);
        let (summer, autumn) = (3 * month, 6 * month);
        check(1, autumn, &[(Season::Spring, 1, summer), (Season::Summer, summer, autumn)]);
        // Winter of one year and spring of the next.
        check(
            11 * month,
            13 * month,
            &[(Season::Winter, 11 * month, 12 * month), (Season::Spring, 12 * month, 13 * month)],
        );
        let error = seasons(&standard(), 0, 17 * 12 * month).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::OutOfRange, "there are more than 64 seasons in that time"));
        let mut endless = standard();
        endless.months.truncate(1);
        let spans = seasons(&endless, 0, MAX_GAME_MS).unwrap();
        assert_eq!(spans, [SeasonSpan { season: Season::Spring.into(), from_ms: 0, to_ms: MAX_GAME_MS }]);
    }

    proptest! {
        #[test]
        fn a_date_leads_back_to_its_time(
            seconds in 0..=MAX_GAME_MS / 1_000, hours in 1_u32..=100, days in proptest::collection::vec(1_u32..=1_000, 1..=12),
        ) {
            let months = days.into_iter().map(|days| Month { name: "m".to_owned(), days, season: 1 }).collect();
            let calendar = Calendar { hours_per_day: hours, months, ..standard() };
            prop_assert_eq!(game_ms(&calendar, &date(&calendar, seconds * 1_000)), Ok(seconds * 1_000));
        }
    }
}
