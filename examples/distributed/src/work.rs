//! What an item is: the number of primes in one hundred numbers. Over the first thousand items these are the 9,592 primes
//! below 100,000.

use errgroup::{Context, ContextError};

/// How many numbers belong to an item.
pub const NUMBERS: u64 = 100;

/// The number of primes from `item * 100` up to the next hundred.
///
/// # Errors
///
/// If the context ends meanwhile: a loop that computes has to ask, for nobody can drop it.
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
