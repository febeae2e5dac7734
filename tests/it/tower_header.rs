//! Timeouts in headers: which values are read, which are ignored, and that a value that is written
//! can be read again. Tested through both layers.

use std::convert::Infallible;
use std::future;
use std::task::Poll;
use std::time::Duration;

use errgroup::Context;
use errgroup::tower::{ContextLayer, PropagateLayer};
use http::{HeaderName, HeaderValue, Request, Response};
use proptest::prelude::*;
use tokio::runtime::Runtime;
use tower::{Layer, Service, service_fn};

use crate::support::ms;
use crate::tower_support::{Script, respond};

const GRPC: HeaderName = HeaderName::from_static("grpc-timeout");
const PLAIN: HeaderName = HeaderName::from_static("x-request-timeout");
const MILLIS: HeaderName = HeaderName::from_static("connect-timeout-ms");

/// The longest timeout that a context gets: thirty years.
const LONGEST: Duration = Duration::from_secs(86_400 * 365 * 30);

thread_local! {
    static STANDING: Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
}

/// Runs `f` under a clock that does not advance.
fn standing<T>(f: impl FnOnce() -> T) -> T {
    STANDING.with(|runtime| runtime.block_on(async { f() }))
}

/// The timeout that a server reads from such a header, or `None` if it ignores the header. A
/// response of 504 means zero.
fn read(name: &HeaderName, value: HeaderValue) -> Option<Duration> {
    let request = Request::get("/").header(name, value);
    let request = request.body(Script::new()).unwrap();
    let layer = ContextLayer::new(&Context::background())
        .header(PLAIN)
        .header(MILLIS);
    let mut ctx = None;
    let service = service_fn(|request: Request<_>| {
        ctx = Some(crate::tower_support::context_of(&request));
        future::ready(crate::tower_support::ok(Script::new()))
    });
    let mut call = tokio_test::task::spawn(layer.layer(service).call(request));
    let Poll::Ready(Ok(response)) = call.poll() else {
        panic!("the handler is ready");
    };
    drop(call);
    match ctx {
        Some(ctx) => ctx
            .deadline()
            .map(|at| at.duration_since(tokio::time::Instant::now())),
        None => {
            assert_eq!(response.status(), 504);
            Some(Duration::ZERO)
        }
    }
}

/// The header that a client sends if `left` is left.
fn written(name: &HeaderName, left: Duration) -> HeaderValue {
    let mut sent = None;
    let service = service_fn(|request: Request<Script>| {
        sent = request.headers().get(name).cloned();
        future::ready(Ok::<_, Infallible>(Response::new(Script::new())))
    });
    let ctx = Context::background().with_timeout(left);
    let layer = PropagateLayer::new()
        .header(PLAIN)
        .header(MILLIS)
        .context(&ctx);
    let mut call = tokio_test::task::spawn(layer.layer(service).call(crate::tower_support::get()));
    assert!(call.poll().is_ready());
    drop(call);
    sent.expect("there is a time to send")
}

#[track_caller]
fn all_read(name: &HeaderName, cases: &[(&str, Option<Duration>)]) {
    standing(|| {
        for (text, time) in cases {
            let value = HeaderValue::from_bytes(text.as_bytes()).unwrap();
            assert_eq!(read(name, value), *time, "{text:?}");
        }
    });
}

#[test]
fn grpc_timeouts_are_one_to_eight_digits_and_a_unit() {
    let some = |time| Some(time);
    all_read(
        &GRPC,
        &[
            ("1n", some(Duration::from_nanos(1))),
            ("250000u", some(ms(250))),
            ("100m", some(ms(100))),
            ("00000100m", some(ms(100))),
            ("99999999n", some(Duration::from_nanos(99_999_999))),
            ("2S", some(ms(2_000))),
            ("3M", some(ms(180_000))),
            ("1H", some(ms(3_600_000))),
            ("0n", some(Duration::ZERO)),
            ("0S", some(Duration::ZERO)),
            // Eleven thousand years.
            ("99999999H", some(LONGEST)),
        ],
    );
}

#[test]
fn what_is_not_a_grpc_timeout_is_ignored() {
    let ignored = [
        "",
        "S",
        "1",
        "100",
        "-5S",
        "+5S",
        "1.5S",
        "5s",
        "5ms",
        "5 S",
        " 100m",
        "100m ",
        "1e3S",
        "0x1S",
        "100mm",
        "m100",
        "123456789n",
        "99999999999999999999999H",
        "5S,6S",
        "٣S",
        "５S",
        "5µ",
        "∞",
        "NaNS",
        "infS",
    ];
    all_read(&GRPC, &ignored.map(|text| (text, None)));
}

#[test]
fn plain_times_are_a_number_and_perhaps_a_unit() {
    all_read(
        &PLAIN,
        &[
            ("250ms", Some(ms(250))),
            ("2s", Some(ms(2_000))),
            ("1.5", Some(ms(1_500))),
            ("1.5ms", Some(Duration::from_micros(1_500))),
            ("0.000000001", Some(Duration::from_nanos(1))),
            ("0.0000000019", Some(Duration::from_nanos(1))),
            ("0.5h", Some(ms(1_800_000))),
            ("2m", Some(ms(120_000))),
            ("7us", Some(Duration::from_micros(7))),
            ("7ns", Some(Duration::from_nanos(7))),
            ("0", Some(Duration::ZERO)),
            ("0.0ms", Some(Duration::ZERO)),
            (
                "0.99999999999999999999999999999999999999999999",
                Some(Duration::from_nanos(999_999_999)),
            ),
            ("18446744073709551616", Some(LONGEST)),
            (
                "99999999999999999999999999999999999999999999999999h",
                Some(LONGEST),
            ),
        ],
    );
}

#[test]
fn a_header_that_ends_in_ms_is_in_milliseconds() {
    all_read(
        &MILLIS,
        &[
            ("250", Some(ms(250))),
            ("1.5", Some(Duration::from_micros(1_500))),
            ("2s", Some(ms(2_000))),
        ],
    );
}

#[test]
fn what_is_not_a_plain_time_is_ignored() {
    let ignored = [
        "", "s", "ms", ".", ".5", "1.", "1.s", "1..5", "1.5.5", "-5", "-5s", "+5", "1e3", "5S",
        "5H", "5 s", " 5", "5 ", "5s5", "0x10", "1_000", "1,5", "5d", "inf", "nan", "٣", "５s",
        "5µs", "∞",
    ];
    all_read(&PLAIN, &ignored.map(|text| (text, None)));
    all_read(&MILLIS, &ignored.map(|text| (text, None)));
}

#[test]
fn a_time_is_written_in_the_finest_unit_of_eight_digits() {
    standing(|| {
        for (left, text) in [
            (Duration::from_nanos(1), "1n"),
            (Duration::from_micros(1_500), "1500000n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_000), "100000u"),
            (ms(250), "250000u"),
            (Duration::from_secs(30), "30000000u"),
            (Duration::from_micros(99_999_999), "99999999u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(108_000), "108000S"),
            (Duration::from_secs(100_000_000), "1666666M"),
            // The deadline of such a context is thirty years away.
            (Duration::MAX, "15768000M"),
        ] {
            assert_eq!(written(&GRPC, left), text, "{left:?}");
        }
        assert_eq!(written(&PLAIN, ms(250)), "250ms");
        assert_eq!(written(&PLAIN, Duration::from_micros(1_500)), "1ms");
        assert_eq!(written(&PLAIN, Duration::from_nanos(999_999)), "999us");
        assert_eq!(written(&PLAIN, Duration::from_nanos(999)), "999ns");
        assert_eq!(written(&MILLIS, Duration::from_micros(250_900)), "250");
        assert_eq!(written(&MILLIS, Duration::from_nanos(999_999)), "1");
    });
}

/// The same reading, as gRPC words it: digits, at most eight, a unit.
fn grpc_by_the_book(text: &str) -> Option<Duration> {
    let nanos = match text.chars().last()? {
        'n' => 1,
        'u' => 1_000,
        'm' => 1_000_000,
        'S' => 1_000_000_000,
        'M' => 60_000_000_000,
        'H' => 3_600_000_000_000,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    let well_formed = (1..=8).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_digit());
    let number: u128 = well_formed.then(|| digits.parse().unwrap())?;
    let nanos = number * nanos;
    let time = Duration::new(
        (nanos / 1_000_000_000) as u64,
        (nanos % 1_000_000_000) as u32,
    );
    Some(time.min(LONGEST))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_value_of_a_header_makes_a_server_panic(
        value in proptest::collection::vec(any::<u8>(), 0..40),
        near in "[0-9.+-]{0,24}[a-zA-Zµ]{0,3}",
    ) {
        standing(|| {
            for value in [&value[..], near.as_bytes()] {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    for name in [GRPC, PLAIN, MILLIS] {
                        // Every timeout that is read can be the timeout of a context.
                        if let Some(time) = read(&name, value.clone()) {
                            assert!(time <= LONGEST);
                        }
                    }
                }
            }
        });
    }

    #[test]
    fn grpc_timeouts_are_read_as_specified(text in "[0-9]{0,10}[HMSmunsx]?") {
        standing(|| {
            let value = HeaderValue::from_str(&text).unwrap();
            assert_eq!(read(&GRPC, value), grpc_by_the_book(&text), "{text:?}");
        });
    }

    #[test]
    fn a_written_time_is_read_as_no_more_and_hardly_less(
        secs in prop_oneof![0..2_u64, 0..200_000_u64, 0..LONGEST.as_secs()],
        nanos in prop_oneof![1..2_000_u32, 1..1_000_000_000_u32],
    ) {
        let left = Duration::new(secs, nanos);
        standing(|| {
            let value = written(&GRPC, left);
            // The next finer unit is a thousandth, and would have taken nine digits.
            let precision = left / 99_999 + Duration::from_nanos(1);
            assert!(value.len() <= 9 && value.as_bytes()[value.len() - 1].is_ascii_alphabetic());
            let again = read(&GRPC, value).unwrap();
            assert!(again <= left && left - again < precision, "{left:?}, {again:?}");

            let again = read(&PLAIN, written(&PLAIN, left)).unwrap();
            let precision = if left < ms(1) { Duration::from_micros(1) } else { ms(1) };
            assert!(again <= left && left - again < precision, "{left:?}, {again:?}");

            let again = read(&MILLIS, written(&MILLIS, left)).unwrap();
            // Never 0.
            let most = left.max(ms(1));
            assert!(again >= ms(1) && again <= most && most - again < ms(1), "{left:?}, {again:?}");
        });
    }
}

/// `respond` asserts nothing of the headers; this does.
#[test]
fn a_header_that_is_not_configured_is_not_read() {
    standing(|| {
        let request = Request::get("/").header(PLAIN, "1s").body(Script::new());
        let layer = ContextLayer::new(&Context::background());
        let (ctx, _) = respond(&layer, request.unwrap(), Response::new(Script::new()));
        assert_eq!(ctx.deadline(), None);
    });
}
