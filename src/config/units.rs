//! Durations and sizes as text, both ways. Whole numbers only: `90s`, not `1.5m`.

use std::time::Duration;

const DURATIONS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Reads `500ms`, `15s`, `10m`, `24h`, `7d`; nothing else, and nothing past 64 bits of ms.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    scaled(text, &DURATIONS).map(Duration::from_millis)
}

/// Reads `100B`, `1KiB`, `64MiB`, `10GiB`, `1TiB`, and the decimal `kB`, `MB`, `GB`, `TB`.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    scaled(text, &SIZES)
}

/// The shortest text that [`parse_duration`] reads back; a single day is `24h`. Parts of a ms are lost.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    let fits = |unit: u64| ms.is_multiple_of(unit) && (unit < 86_400_000 || ms > unit);
    shown(ms, &DURATIONS, fits)
}

/// The shortest text that [`parse_size`] reads back.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    shown(bytes, &SIZES, |unit| {
        bytes > 0 && bytes.is_multiple_of(unit)
    })
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

fn shown(number: u64, units: &[(&str, u64)], fits: impl Fn(u64) -> bool) -> String {
    let fitting = units.iter().filter(|(_, scale)| fits(*scale));
    match fitting.min_by_key(|(_, scale)| number / scale) {
        Some((name, scale)) => format!("{}{name}", number / scale),
        None => format!("{number}{}", units.last().map_or("", |(name, _)| name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(number: u64, zeros in 0_u32..40) {
            let bytes = (number >> zeros) << zeros;
            prop_assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
            let duration = Duration::from_millis(number % 10_000_000_000);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }
    }

    #[test]
    fn units() {
        for (text, ms) in [
            ("500ms", 500),
            ("15s", 15_000),
            ("10m", 600_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)));
            assert_eq!(show_duration(Duration::from_millis(ms)), text);
        }
        for (text, bytes) in [
            ("100B", 100),
            ("1KiB", 1_024),
            ("64MiB", 64 << 20),
            ("10GiB", 10 << 30),
            ("5kB", 5_000),
            ("3MB", 3_000_000),
            ("2GB", 2_000_000_000),
            ("0B", 0),
        ] {
            assert_eq!(parse_size(text), Some(bytes));
            assert_eq!(show_size(bytes), text);
        }
    }

    #[test]
    fn refuses_what_is_neither() {
        for text in [
            "",
            "s",
            "15",
            "15 s",
            "1.5s",
            "-1s",
            "15S",
            "15sec",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
        for text in [
            "",
            "B",
            "64",
            "64mib",
            "64 MiB",
            "1.5GiB",
            "64Mb",
            "99999999999999TiB",
        ] {
            assert_eq!(parse_size(text), None, "{text:?}");
        }
    }
}
