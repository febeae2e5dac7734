//! Times in headers: read with suspicion, written so that they never say more than is left, but for a part of a millisecond.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// gRPC's own, which every request is asked for.
pub(super) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// As many digits as gRPC allows a timeout.
const GRPC_DIGITS: usize = 8;

const NANOS_PER_SEC: u128 = 1_000_000_000;

/// From the most to the least precise, in nanoseconds.
const GRPC_UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', NANOS_PER_SEC),
    (b'M', 60 * NANOS_PER_SEC),
    (b'H', 3_600 * NANOS_PER_SEC),
];

/// The shortest time that one of these headers allows; what cannot be read is as if it were not there.
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

/// What `value` means in the header `name`.
pub(super) fn parse(name: &HeaderName, value: &[u8]) -> Option<Duration> {
    if *name == GRPC_TIMEOUT {
        return parse_grpc(value);
    }
    parse_plain(value, if is_in_millis(name) { "ms" } else { "s" })
}

/// How `time`, which is not zero, is written in the header `name`.
pub(super) fn format(name: &HeaderName, time: Duration) -> HeaderValue {
    let text = if *name == GRPC_TIMEOUT {
        format_grpc(time)
    } else if is_in_millis(name) {
        // Not 0, which some take for no limit at all.
        time.as_millis().max(1).to_string()
    } else {
        format_plain(time)
    };
    match HeaderValue::try_from(text) {
        Ok(value) => value,
        Err(_) => unreachable!("digits and letters are a header value"),
    }
}

/// `connect-timeout-ms`, `x-envoy-expected-rq-timeout-ms`: the name says the unit, and the value is bare.
fn is_in_millis(name: &HeaderName) -> bool {
    name.as_str().ends_with("-ms")
}

/// One to eight digits and a unit, as gRPC has it.
fn parse_grpc(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let (_, nanos) = GRPC_UNITS.iter().find(|(letter, _)| letter == unit)?;
    if digits.is_empty() || digits.len() > GRPC_DIGITS {
        return None;
    }
    number(digits).map(|number| from_nanos(number.saturating_mul(*nanos)))
}

/// In the most precise unit that eight digits are enough for; what is left over is cut off.
fn format_grpc(time: Duration) -> String {
    let most = 10_u128.pow(GRPC_DIGITS as u32) - 1;
    let fits = GRPC_UNITS
        .iter()
        .map(|(letter, nanos)| (letter, time.as_nanos() / nanos))
        .find(|(_, number)| *number <= most);
    match fits {
        Some((letter, number)) => format!("{number}{}", char::from(*letter)),
        // Eleven thousand years.
        None => format!("{most}H"),
    }
}

/// Digits, perhaps a fraction, perhaps a unit: `250ms`, `2s`, `1.5`.
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

/// In whole milliseconds, or finer where there is not even one.
fn format_plain(time: Duration) -> String {
    let nanos = time.as_nanos();
    match nanos {
        0..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}us", nanos / 1_000),
        _ => format!("{}ms", nanos / 1_000_000),
    }
}

/// At least one digit and nothing else; too large a number is the largest.
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

/// What stands behind the point, of a unit of so many nanoseconds.
fn fraction_of(digits: &[u8], nanos: u128) -> Option<u128> {
    // All must be digits; an hour has no more than 13 that count.
    number(digits)?;
    let digits = &digits[..digits.len().min(18)];
    let scale = 10_u128.pow(digits.len() as u32);
    number(digits).map(|number| number * nanos / scale)
}

fn from_nanos(nanos: u128) -> Duration {
    match u64::try_from(nanos / NANOS_PER_SEC) {
        Ok(secs) => Duration::new(secs, (nanos % NANOS_PER_SEC) as u32),
        Err(_) => Duration::MAX,
    }
}
