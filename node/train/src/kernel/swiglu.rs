//! The gated activation `silu(gate) * up` (Shazeer 2020, arXiv:2002.05202).

use super::math::exp;
use super::simd::wide;

/// Computes `out = silu(gate) * up`; a row of `gate_up` is `inner` gates then `inner` ups.
pub(crate) fn forward(gate_up: &[f32], inner: usize, out: &mut [f32]) {
    wide(|| {
        for (row, out) in gate_up.chunks_exact(2 * inner).zip(out.chunks_exact_mut(inner)) {
            let (gate, up) = row.split_at(inner);
            for ((o, &g), &u) in out.iter_mut().zip(gate).zip(up) {
                *o = g / (1.0 + exp(-g)) * u;
            }
        }
    });
}

/// Computes the gradient towards `gate_up` into `dgate_up`.
pub(crate) fn backward(gate_up: &[f32], inner: usize, dout: &[f32], dgate_up: &mut [f32]) {
    let rows = gate_up.chunks_exact(2 * inner).zip(dgate_up.chunks_exact_mut(2 * inner));
    wide(|| {
        for ((row, drow), dout) in rows.zip(dout.chunks_exact(inner)) {
            let (gate, up) = row.split_at(inner);
            let (dgate, dup) = drow.split_at_mut(inner);
            let inputs = gate.iter().zip(up).zip(dout);
            for ((dg, du), ((&g, &u), &d)) in dgate.iter_mut().zip(dup).zip(inputs) {
                let sigmoid = 1.0 / (1.0 + exp(-g));
                let silu = g * sigmoid;
                *du = d * silu;
                *dg = d * u * (sigmoid + silu * (1.0 - sigmoid));
            }
        }
    });
}
