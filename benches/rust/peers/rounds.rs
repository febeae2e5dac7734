//! How two sides are measured next to each other.

use std::time::{Duration, Instant};

/// How many rounds: until the budget is spent, but not fewer than `least` or more than `most`.
#[derive(Clone, Copy)]
pub(crate) struct Rounds {
    pub(crate) budget: Duration,
    pub(crate) least: usize,
    pub(crate) most: usize,
}

/// The result of a pair of sides.
pub(crate) struct Paired {
    /// The median.
    pub(crate) ours: f64,
    /// The median.
    pub(crate) peer: f64,
    /// The median of the ratios of the rounds.
    ///
    /// It is not the ratio of the two medians. When the machine is slow for longer than a round,
    /// both sides of that round are slow, but the two medians may come from different rounds.
    pub(crate) ratio: f64,
    /// The quartiles of the rounds' ratios.
    pub(crate) middle_half: (f64, f64),
    pub(crate) rounds: usize,
}

impl Rounds {
    /// A round runs each side once, and alternates which is first. One round before the first is
    /// not counted.
    pub(crate) fn pair(
        self,
        mut ours: impl FnMut() -> f64,
        mut peer: impl FnMut() -> f64,
    ) -> Paired {
        ours();
        peer();

        let start = Instant::now();
        let mut pairs: Vec<(f64, f64)> = Vec::with_capacity(self.most);
        while pairs.len() < self.most && (pairs.len() < self.least || start.elapsed() < self.budget)
        {
            pairs.push(if pairs.len() % 2 == 0 {
                let first = ours();
                (first, peer())
            } else {
                let first = peer();
                (ours(), first)
            });
        }

        let ratios = sorted(pairs.iter().map(|(ours, peer)| ours / peer));
        Paired {
            ours: quantile(&sorted(pairs.iter().map(|pair| pair.0)), 0.5),
            peer: quantile(&sorted(pairs.iter().map(|pair| pair.1)), 0.5),
            ratio: quantile(&ratios, 0.5),
            middle_half: (quantile(&ratios, 0.25), quantile(&ratios, 0.75)),
            rounds: pairs.len(),
        }
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Interpolates if the quantile is between two values.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = part * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}
