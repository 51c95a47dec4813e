//! Dates of the calendar, and how RFC 3339 writes moments.

/// How a moment is written, given in seconds since 1970.
pub(crate) fn rfc3339(seconds: u64) -> String {
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads `YYYY-MM-DDThh:mm:ss` of 1970 or later with `Z` or `+hh:mm` behind it, as
/// seconds since 1970.
pub(crate) fn parse_rfc3339(text: &str) -> Option<u64> {
    let (moment, zone) = text.split_at_checked(19)?;
    let digits = |range: std::ops::Range<usize>| number::<u64>(moment.get(range)?);
    let marks = [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":")];
    let well_formed = marks
        .iter()
        .all(|(at, mark)| moment.get(*at..at + 1) == Some(mark));
    if !well_formed {
        return None;
    }
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let (hour, minute, second) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
    if year < 1970 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days(year, month, day)?;
    let local = days * 86_400 + hour * 3_600 + minute * 60 + second;
    local.checked_add_signed(-offset(zone)?)
}

/// How many seconds a zone is ahead.
fn offset(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes() {
        b"Z" => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    let two = |text: &str, most| {
        let number = number::<i64>(text).filter(|_| text.len() == 2);
        number.filter(|number| *number <= most)
    };
    Some(sign * (two(hours, 23)? * 3_600 + two(minutes, 59)? * 60))
}

/// Days since 1970: `days_from_civil`. `None`: there is no such day.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year_from_march = if month > 2 { year } else { year - 1 };
    let (era, year_of_era) = (year_from_march / 400, year_from_march % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    // The 31st of a month that has 30 days is in the next.
    (date(days) == (year, month, day)).then_some(days)
}

/// Year, month and day of a number of days since 1970, by Howard Hinnant's
/// `civil_from_days`: years that start in March put the leap day last.
pub(crate) fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// A number in digits alone.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let is_digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| is_digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_and_written() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T00:00:00Z", 951_782_400),
            ("2026-11-20T23:59:59Z", 1_795_219_199),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(parse_rfc3339(text), Some(seconds), "{text}");
            assert_eq!(rfc3339(seconds), text);
        }
        let utc = parse_rfc3339("2026-12-01T00:00:00Z");
        assert_eq!(parse_rfc3339("2026-12-01T01:30:00+01:30"), utc);
        assert_eq!(parse_rfc3339("2026-11-30T16:00:00-08:00"), utc);
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "tomorrow",
            "2026-12-01",
            "2026-12-01T00:00:00",
            "2026-12-01 00:00:00Z",
            "2026-12-01T00:00:00z",
            "2026-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-12-00T00:00:00Z",
            "2026-12-01T24:00:00Z",
            "2026-12-01T00:60:00Z",
            "2026-12-01T00:00:60Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "2026-12-01T00:00:00+1:00",
            "2026-12-01T00:00:00+24:00",
            "+026-12-01T00:00:00Z",
            "2026-12-01T00:00:0\u{e9}",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
