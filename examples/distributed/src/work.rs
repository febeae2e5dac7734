//! An item is the number of primes in one hundred numbers. The first thousand items are the 9,592
//! primes below 100,000.

use errgroup::{Context, ContextError};

/// How many numbers belong to an item.
pub const NUMBERS: u64 = 100;

/// The number of primes from `item * 100` up to the next hundred.
///
/// # Errors
///
/// If the context is done: a loop that computes has no await at which it could be dropped, so it
/// checks.
pub fn primes(ctx: &Context, item: u64) -> Result<u64, ContextError> {
    let mut count = 0;
    for number in item * NUMBERS..(item + 1) * NUMBERS {
        ctx.check()?;
        count += u64::from(is_prime(number));
    }
    Ok(count)
}

fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..)
            .take_while(|d| d * d <= number)
            .all(|d| !number.is_multiple_of(d))
}
