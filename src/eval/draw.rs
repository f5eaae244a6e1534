//! Small random choices from a seeded stream.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A seeded source of choices; the same seed makes the same choices on every machine.
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// A stream for `seed`.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number below `n`, which must not be 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.0.next_u32()) * n as u64) >> 32) as usize
    }

    /// A number from `low` to `high`, both included.
    pub fn range(&mut self, low: i32, high: i32) -> i32 {
        low + self.below((high - low + 1) as usize) as i32
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `items`, which must not be empty.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// `n` different items, in random order; all of them if there are fewer.
    pub fn sample<T: Copy>(&mut self, items: &[T], n: usize) -> Vec<T> {
        let mut pool = items.to_vec();
        let n = n.min(pool.len());
        for i in 0..n {
            let j = i + self.below(pool.len() - i);
            pool.swap(i, j);
        }
        pool.truncate(n);
        pool
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_reach_both_ends() {
        let mut rng = Draw::new(1);
        let drawn: Vec<i32> = (0..400).map(|_| rng.range(-2, 3)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&-2), Some(&3)));
    }

    #[test]
    fn a_sample_has_no_repeats() {
        let mut rng = Draw::new(2);
        for _ in 0..50 {
            let mut s = rng.sample(&[1, 2, 3, 4, 5], 3);
            s.sort_unstable();
            s.dedup();
            assert_eq!(s.len(), 3);
        }
        assert_eq!(rng.sample(&[1, 2], 5).len(), 2);
    }
}
