//! A computation on a thread of its own, with `go_blocking`. It has no await at which it could be
//! dropped, so it checks the context between pieces.
//!
//! ```sh
//! cargo run --example computation
//! ```

#![allow(clippy::print_stdout)] // a program

use std::time::{Duration, Instant};

use errgroup::{Context, Group};

const PIECE: u32 = 1_000;

#[tokio::main]
async fn main() {
    let deadline = Instant::now() + Duration::from_millis(50);
    let ctx = Context::background().with_deadline_cause(deadline, "the page is due");
    let (g, _ctx) = Group::<anyhow::Error>::with_context(ctx);
    g.go_blocking(|ctx| {
        let mut primes = 0;
        for piece in 0..3_000 {
            if let Err(done) = ctx.check() {
                println!("{primes} primes in {piece} pieces of {PIECE} numbers");
                return Err(done.into());
            }
            primes += primes_in(piece * PIECE);
        }
        Ok(())
    });
    if let Err(error) = g.wait().await {
        println!(
            "{error:#}: it stopped {:.1?} after the deadline",
            deadline.elapsed()
        );
    }
}

/// The number of primes in one piece.
fn primes_in(start: u32) -> usize {
    let is_prime = |n: &u32| *n > 1 && (2..).take_while(|d| d * d <= *n).all(|d| n % d != 0);
    (start..start + PIECE).filter(is_prime).count()
}
