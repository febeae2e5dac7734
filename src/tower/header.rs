//! Timeouts in headers. An invalid value is ignored when it is read. A value that is written is
//! rounded down, so that it is never more than the time that is left. The one exception is a time
//! below a millisecond in a header that counts milliseconds: it is written as 1.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// gRPC's header for a timeout. Both layers read or write it in any case.
pub(super) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The maximum number of digits in a gRPC timeout.
const GRPC_DIGITS: usize = 8;

const NANOS_PER_SEC: u128 = 1_000_000_000;

/// The units of gRPC with their length in nanoseconds, from the most to the least precise.
const GRPC_UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', NANOS_PER_SEC),
    (b'M', 60 * NANOS_PER_SEC),
    (b'H', 3_600 * NANOS_PER_SEC),
];

/// Returns the shortest timeout in the headers with these names. Values that cannot be parsed are
/// ignored.
pub(super) fn timeout<'a>(
    headers: &HeaderMap,
    names: impl IntoIterator<Item = &'a HeaderName>,
) -> Option<Duration> {
    let of = |name: &'a HeaderName| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| parse(name, value.as_bytes()))
    };
    names.into_iter().flat_map(of).min()
}

/// Parses `value` as a timeout in the header `name`: the name determines the format.
pub(super) fn parse(name: &HeaderName, value: &[u8]) -> Option<Duration> {
    if *name == GRPC_TIMEOUT {
        return parse_grpc(value);
    }
    parse_plain(value, if is_in_millis(name) { "ms" } else { "s" })
}

/// Formats `time` for the header `name`. `time` must not be zero.
pub(super) fn format(name: &HeaderName, time: Duration) -> HeaderValue {
    let text = if *name == GRPC_TIMEOUT {
        format_grpc(time)
    } else if is_in_millis(name) {
        // At least 1: some servers take 0 for no limit.
        time.as_millis().max(1).to_string()
    } else {
        format_plain(time)
    };
    match HeaderValue::try_from(text) {
        Ok(value) => value,
        Err(_) => unreachable!("digits and letters are a header value"),
    }
}

/// Returns `true` if the header's name contains the unit: a bare number in `connect-timeout-ms` or
/// `x-envoy-expected-rq-timeout-ms` is in milliseconds.
fn is_in_millis(name: &HeaderName) -> bool {
    name.as_str().ends_with("-ms")
}

/// Parses gRPC's format: one to eight digits and a unit.
fn parse_grpc(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let (_, nanos) = GRPC_UNITS.iter().find(|(letter, _)| letter == unit)?;
    if digits.is_empty() || digits.len() > GRPC_DIGITS {
        return None;
    }
    number(digits).map(|number| from_nanos(number.saturating_mul(*nanos)))
}

/// Formats in the most precise unit that needs no more than eight digits, rounded down.
fn format_grpc(time: Duration) -> String {
    let most = 10_u128.pow(GRPC_DIGITS as u32) - 1;
    let fits = GRPC_UNITS
        .iter()
        .map(|(letter, nanos)| (letter, time.as_nanos() / nanos))
        .find(|(_, number)| *number <= most);
    match fits {
        Some((letter, number)) => format!("{number}{}", char::from(*letter)),
        // More than eight digits of hours, which is eleven thousand years.
        None => format!("{most}H"),
    }
}

/// Parses digits with an optional fraction and an optional unit: `250ms`, `2s`, `1.5`.
fn parse_plain(value: &[u8], unit_of_bare: &str) -> Option<Duration> {
    let value = std::str::from_utf8(value).ok()?;
    let end = value
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(value.len());
    let (number_text, unit) = value.split_at(end);
    let unit = if unit.is_empty() { unit_of_bare } else { unit };
    let nanos = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS_PER_SEC,
        "m" => 60 * NANOS_PER_SEC,
        "h" => 3_600 * NANOS_PER_SEC,
        _ => return None,
    };
    let (whole, fraction) = match number_text.split_once('.') {
        Some((whole, fraction)) => (whole, fraction_of(fraction.as_bytes(), nanos)?),
        None => (number_text, 0),
    };
    let whole = number(whole.as_bytes())?.saturating_mul(nanos);
    Some(from_nanos(whole.saturating_add(fraction)))
}

/// Formats in milliseconds, rounded down, or in microseconds or nanoseconds if `time` is below a
/// millisecond.
fn format_plain(time: Duration) -> String {
    let nanos = time.as_nanos();
    match nanos {
        0..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}us", nanos / 1_000),
        _ => format!("{}ms", nanos / 1_000_000),
    }
}

/// Parses one or more digits and nothing else. A number that is too large saturates.
fn number(digits: &[u8]) -> Option<u128> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u128, digit: &u8| {
        sum.saturating_mul(10)
            .saturating_add(u128::from(digit - b'0'))
    };
    Some(digits.iter().fold(0, add))
}

/// Parses the digits after the decimal point, and returns them in nanoseconds. `nanos` is the
/// length of the unit.
fn fraction_of(digits: &[u8], nanos: u128) -> Option<u128> {
    // All of them must be digits. Only the first 18 are used: even for hours, digits after the 13th
    // are below a nanosecond.
    number(digits)?;
    let digits = &digits[..digits.len().min(18)];
    let scale = 10_u128.pow(digits.len() as u32);
    number(digits).map(|number| number * nanos / scale)
}

/// Converts into a `Duration`, which saturates.
fn from_nanos(nanos: u128) -> Duration {
    match u64::try_from(nanos / NANOS_PER_SEC) {
        Ok(secs) => Duration::new(secs, (nanos % NANOS_PER_SEC) as u32),
        Err(_) => Duration::MAX,
    }
}
