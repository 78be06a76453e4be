//! A date as a number.
//!
//! There is no time zone but UTC here: a time without an offset is taken as UTC, and one that names
//! a zone (`[Europe/Berlin]`) is refused, since its rules are the system's and change.

use jiff::Timestamp;
use jiff::civil::{Time, date};
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::Offset;
use outhaul_types::DateUnit;

const SECONDS_A_DAY: f64 = 86_400.0;

/// How dates are written, and what becomes of them.
pub(super) struct Dates {
    format: Option<String>,
    unit: DateUnit,
}

impl Dates {
    /// Checks that a format tells a day.
    pub(super) fn new(format: Option<&str>, unit: DateUnit) -> Result<Self, String> {
        if let Some(format) = format {
            check(format)?;
        }
        Ok(Dates { format: format.map(str::to_owned), unit })
    }

    /// Returns what the model takes for a text; `None` where it is not such a date.
    pub(super) fn number(&self, text: &[u8]) -> Option<f64> {
        let time = match &self.format {
            None => plain(text)?,
            Some(format) => formatted(format, text)?,
        };
        Some(count(time, self.unit))
    }

    /// Says what a text must be, for somebody who sent something else.
    pub(super) fn rule(&self) -> String {
        let example = match &self.format {
            None => "2026-03-31 or 2026-03-31T14:30:00Z".to_owned(),
            Some(format) => strtime::format(format, example()).unwrap_or_else(|_| format.clone()),
        };
        format!("a date as in {example}")
    }
}

/// A day whose parts are not mistaken for each other.
fn example() -> BrokenDownTime {
    let time = date(2026, 3, 31).at(14, 30, 0, 0);
    Offset::UTC.to_timestamp(time).map_or_else(|_| BrokenDownTime::from(time), BrokenDownTime::from)
}

/// Fails where a format does not tell which day is meant, or what is written by it does not read back.
fn check(format: &str) -> Result<(), String> {
    let wrong = |error: jiff::Error| format!("the format \"{format}\" cannot be read: {error}");
    let written = strtime::format(format, example()).map_err(wrong)?;
    strtime::parse(format, &written).map_err(wrong)?;
    match formatted(format, written.as_bytes()) {
        Some(_) => Ok(()),
        None => Err(format!("the format \"{format}\" does not tell which day is meant")),
    }
}

/// RFC 3339, or a day, or a day and a time.
fn plain(text: &[u8]) -> Option<Timestamp> {
    let pieces = DateTimeParser::new().parse_pieces(text).ok()?;
    if pieces.time_zone_annotation().is_some() {
        return None;
    }
    let time = pieces.time().unwrap_or(Time::midnight());
    let offset = pieces.to_numeric_offset().unwrap_or(Offset::UTC);
    offset.to_timestamp(pieces.date().to_datetime(time)).ok()
}

fn formatted(format: &str, text: &[u8]) -> Option<Timestamp> {
    let parsed = strtime::parse(format, text).ok()?;
    if parsed.iana_time_zone().is_some() {
        return None;
    }
    if let Some(timestamp) = parsed.timestamp() {
        return Some(timestamp);
    }
    let offset = parsed.offset().unwrap_or(Offset::UTC);
    offset.to_timestamp(parsed.to_datetime().ok()?).ok()
}

fn count(time: Timestamp, unit: DateUnit) -> f64 {
    // Through the nanoseconds of whole seconds, so that a whole second is exact.
    let seconds = time.as_second() as f64 + f64::from(time.subsec_nanosecond()) / 1e9;
    let civil = Offset::UTC.to_datetime(time);
    match unit {
        DateUnit::Seconds => seconds,
        DateUnit::Days => seconds / SECONDS_A_DAY,
        DateUnit::Year => f64::from(civil.year()),
        DateUnit::Month => f64::from(civil.month()),
        DateUnit::Day => f64::from(civil.day()),
        DateUnit::Weekday => f64::from(civil.weekday().to_monday_zero_offset()),
        DateUnit::Hour => f64::from(civil.hour()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(format: Option<&str>, text: &str) -> Option<f64> {
        Dates::new(format, DateUnit::Seconds).unwrap().number(text.as_bytes())
    }

    #[test]
    fn what_is_no_date_is_told_from_what_is() {
        struct Case(Option<&'static str>, &'static str, Option<f64>);
        let (plain, german) = (None, Some("%d.%m.%Y"));
        let cases = [
            Case(plain, "1970-01-02", Some(86_400.0)),
            Case(plain, "1970-01-02T00:00:01", Some(86_401.0)),
            Case(plain, "1970-01-02 00:00:01", Some(86_401.0)),
            Case(plain, "1970-01-02T00:00:00.25Z", Some(86_400.25)),
            Case(plain, "1970-01-02T00:00:00+01:00", Some(82_800.0)),
            Case(plain, "1969-12-31T23:59:59.5Z", Some(-0.5)),
            Case(plain, "1970-01-02T00:00:00[Europe/Berlin]", None),
            Case(plain, "1970-02-30", None),
            Case(plain, "02.01.1970", None),
            Case(plain, "1970-01", None),
            Case(plain, "0", None),
            Case(german, "02.01.1970", Some(86_400.0)),
            Case(german, "30.02.1970", None),
            Case(german, "02.01.1970 x", None),
            Case(german, "1970-01-02", None),
            Case(Some("%Y-%m-%d %H:%M %z"), "1970-01-01 02:00 +0200", Some(0.0)),
            Case(Some("%Y-%m-%d %H:%M"), "1970-01-01 02:00", Some(7200.0)),
            Case(Some("%Y-%m-%d %Q"), "1970-01-01 +0200", Some(-7200.0)),
            Case(Some("%Y-%m-%d %Q"), "1970-01-01 Europe/Berlin", None),
            Case(Some("%s"), "12", Some(12.0)),
            Case(Some("%b %d, %Y"), "Jan 02, 1970", Some(86_400.0)),
        ];
        for Case(format, text, expected) in cases {
            assert_eq!(seconds(format, text), expected, "{format:?} {text}");
        }
        let dates = Dates::new(None, DateUnit::Days).unwrap();
        assert_eq!(dates.number(b"\xff"), None);
    }

    #[test]
    fn a_format_that_tells_no_day_is_refused() {
        let refused = |format| Dates::new(Some(format), DateUnit::Days).err().unwrap();
        for format in ["%H:%M", "%Y-%m", "", "day"] {
            let expected = format!("the format \"{format}\" does not tell which day is meant");
            assert_eq!(refused(format), expected);
        }
        assert!(refused("%d.%K").starts_with("the format \"%d.%K\" cannot be read: "));
        let rule = |format| Dates::new(format, DateUnit::Days).unwrap().rule();
        assert_eq!(rule(Some("%d.%m.%Y")), "a date as in 31.03.2026");
        assert_eq!(rule(None), "a date as in 2026-03-31 or 2026-03-31T14:30:00Z");
    }
}
