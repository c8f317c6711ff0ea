//! Zipf's law: the project of rank k gets a share in proportion to k^-s.

/// Draws ranks by Zipf's law.
#[derive(Debug, Clone)]
pub struct Zipf {
    /// The sum of the shares of all ranks up to each.
    sums: Vec<f64>,
}

impl Zipf {
    /// Over `ranks` ranks (at least 1) with exponent `s` (0: all alike).
    pub fn new(ranks: u32, s: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=ranks.max(1)).map(|rank| {
            sum += f64::from(rank).powf(-s);
            sum
        });
        Self { sums: sums.collect() }
    }

    /// A rank, from 0.
    pub fn draw(&self, random: &mut fastrand::Rng) -> u32 {
        let whole = self.sums.last().copied().unwrap_or_default();
        let at = random.f64() * whole;
        let rank = self.sums.partition_point(|sum| *sum <= at).min(self.sums.len().saturating_sub(1));
        u32::try_from(rank).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(ranks: u32, s: f64) -> Vec<f64> {
        let (zipf, mut random) = (Zipf::new(ranks, s), fastrand::Rng::with_seed(7));
        let mut counts = vec![0.0; ranks as usize];
        for _ in 0..100_000 {
            counts[zipf.draw(&mut random) as usize] += 1.0;
        }
        counts
    }

    #[test]
    fn shares_fall_as_the_law_says() {
        let counts = counts(100, 1.0);
        for rank in [2.0, 5.0, 10.0] {
            let share = counts[0] / counts[rank as usize - 1];
            assert!((share / rank - 1.0).abs() < 0.1, "rank {rank}: {share}");
        }
        assert!(counts.iter().all(|count| *count > 0.0), "every project gets something");
    }

    #[test]
    fn exponent_nought_is_even() {
        assert!(counts(10, 0.0).iter().all(|count| (count / 10_000.0 - 1.0).abs() < 0.05));
    }

    #[test]
    fn one_rank_is_all_there_is() {
        assert_eq!(counts(1, 2.0), [100_000.0]);
    }
}
