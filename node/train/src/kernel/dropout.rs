//! Dropout from a counter: the mask is a pure function of (seed, step, layer, slot, row, column).
//!
//! No generator state is carried, so the same step gives the same mask after a
//! restart, in the backward pass, and however rows are spread over workers.

use crate::rng::mix;

/// The dropout of one training step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Dropout {
    key: u64,
    threshold: u16,
    scale: f32,
    first_row: u64,
}

impl Dropout {
    /// Drops a share of `probability_ppm` parts per million, for one step of one seed.
    ///
    /// Returns `None` when nothing would be dropped. The share is rounded to 1/65,536
    /// and capped below 1. `first_row` is the position of this micro-batch's first
    /// token inside the whole batch.
    pub(crate) fn new(seed: u64, step: u64, probability_ppm: u32, first_row: u64) -> Option<Self> {
        let share = u64::from(probability_ppm) * 65_536 / 1_000_000;
        let threshold = u16::try_from(share).unwrap_or(u16::MAX);
        if threshold == 0 {
            return None;
        }
        let scale = 65_536.0 / (65_536.0 - f32::from(threshold));
        Some(Self { key: mix(seed ^ mix(step)), threshold, scale, first_row })
    }

    fn row_key(&self, layer: usize, slot: usize, row: usize) -> u64 {
        let place = ((layer as u64) << 8) | slot as u64;
        let row = self.first_row.wrapping_add(row as u64);
        mix(mix(self.key ^ mix(place)) ^ row)
    }

    /// Writes the kept elements of `x`, scaled up, and zeros elsewhere; adds them when `add`.
    pub(crate) fn apply(
        &self,
        layer: usize,
        slot: usize,
        width: usize,
        x: &[f32],
        out: &mut [f32],
        add: bool,
    ) {
        let rows = x.chunks_exact(width).zip(out.chunks_exact_mut(width));
        for (row, (x, out)) in rows.enumerate() {
            let mut counter = self.row_key(layer, slot, row);
            for (x, out) in x.chunks(4).zip(out.chunks_mut(4)) {
                counter = counter.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let bits = mix(counter);
                for (lane, (&x, out)) in x.iter().zip(out).enumerate() {
                    let draw = (bits >> (16 * lane)) as u16;
                    let kept = if draw < self.threshold { 0.0 } else { x * self.scale };
                    *out = if add { *out + kept } else { kept };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_asked_share_and_the_expected_sum() {
        let dropout = Dropout::new(1, 2, 50_000, 0).expect("five percent drops something");
        let (x, mut out) = (vec![1f32; 200 * 192], vec![0f32; 200 * 192]);
        dropout.apply(3, 1, 192, &x, &mut out, false);
        let dropped = out.iter().filter(|&&v| v == 0.0).count() as f64 / out.len() as f64;
        assert!((dropped - 0.05).abs() < 0.004, "dropped {dropped}");
        let mean = out.iter().map(|&v| f64::from(v)).sum::<f64>() / out.len() as f64;
        assert!((mean - 1.0).abs() < 0.005, "mean {mean}");
    }

    #[test]
    fn a_row_is_masked_alike_whichever_shard_holds_it() {
        let x = vec![1f32; 6 * 20];
        let (mut whole, mut part) = (vec![0f32; 6 * 20], vec![0f32; 2 * 20]);
        let at = |first| Dropout::new(9, 4, 300_000, first).expect("drops something");
        at(10).apply(0, 2, 20, &x, &mut whole, false);
        at(14).apply(0, 2, 20, &x[..40], &mut part, false);
        assert_eq!(&whole[4 * 20..], &part[..]);
    }

    #[test]
    fn zero_drops_nothing() {
        assert_eq!(Dropout::new(1, 1, 0, 0), None);
    }
}
