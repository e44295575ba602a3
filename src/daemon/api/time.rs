//! Times as Go writes them in JSON.

use crate::dag::unixfs::Mtime;

/// A time in RFC 3339, in UTC, with as many digits as it needs; without one, what Go has for none: the year 1.
pub fn rfc3339(time: Option<Mtime>) -> String {
    let Some(Mtime { seconds, nanoseconds }) = time else { return "0001-01-01T00:00:00Z".to_owned() };
    let (days, second) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    let (year, month, day) = civil(days);
    let fraction = match format!(".{nanoseconds:09}").trim_end_matches('0') {
        "." => String::new(),
        digits => digits.to_owned(),
    };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// The date of a day, counted from 1970-01-01, in the Gregorian calendar extended both ways: eras of 400 years, each of
/// which begins on the first of March, so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    // From 0000-03-01; i128 as the seconds may be any.
    let days = i128::from(days) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    (year as i64, month as i64, day as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        let text = |seconds, nanoseconds| rfc3339(Some(Mtime { seconds, nanoseconds }));
        assert_eq!(text(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(text(1_795_247_885, 478_427_373), "2026-11-21T07:58:05.478427373Z");
        assert_eq!(text(951_782_400, 500_000_000), "2000-02-29T00:00:00.5Z");
        assert_eq!(text(-1, 0), "1969-12-31T23:59:59Z");
        assert_eq!(text(-62_135_596_800, 0), "0001-01-01T00:00:00Z");
        assert_eq!(rfc3339(None), "0001-01-01T00:00:00Z");
        let _ = (text(i64::MIN, 0), text(i64::MAX, 0));
    }
}
