//! The Gaussian error linear unit, exact: `x = x (1 + erf(x / sqrt(2))) / 2` (Hendrycks and Gimpel
//! 2016, arXiv:1606.08415).

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Graph, Op, StepSize, TensorId, Use};

/// Applies it to `x` `[n, cols]` in place.
pub fn gelu(g: &mut Graph, x: TensorId) {
    g.push("gelu", Gelu { x });
}

#[derive(Debug)]
struct Gelu {
    x: TensorId,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    cols: u32,
    rows_per_row: u32,
    rows_per_out: u32,
}

/// Columns a workgroup: `WG` of the shader.
const WG: usize = 64;

impl Op for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn uses(&self) -> Vec<Use> {
        vec![self.x.update()]
    }

    fn reference(&self, host: &Host<'_>) {
        for x in host.f32_mut(self.x).iter_mut() {
            let v = f64::from(*x);
            *x = (0.5 * v * (1.0 + erf(v * std::f64::consts::FRAC_1_SQRT_2))) as f32;
        }
    }

    fn kernels(&self, graph: &Graph, _: &Limits) -> Vec<Kernel> {
        let t = graph.tensor(self.x);
        let (rows, cols) = (t.rows, t.cols);
        let params = Params {
            cols: cols as u32,
            rows_per_row: rows.per_row as u32,
            rows_per_out: rows.per_out as u32,
        };
        let groups = move |s| grid(rows.at(s) * cols.div_ceil(WG));
        vec![Kernel::new("gelu", params, self.uses(), groups)]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let t = graph.tensor(self.x);
        let n = (t.rows.at(step) * t.cols) as u64;
        Cost { bytes: 8 * n, flops: 20 * n }
    }
}

/// The error function by its series without alternating signs (NIST DLMF 7.6.2):
/// `erf(z) = 2 / sqrt(pi) * exp(-z^2) * sum_n 2^n z^(2n+1) / (1 * 3 * ... * (2n+1))`.
fn erf(z: f64) -> f64 {
    // 1 - erf(6) is 2e-17: nothing beside 1.
    if z.abs() > 6.0 {
        return z.signum();
    }
    let (mut term, mut sum, mut n) = (z, z, 0.0);
    while term.abs() > 1e-17 * sum.abs() {
        n += 1.0;
        term *= 2.0 * z * z / (2.0 * n + 1.0);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-z * z).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::erf;

    #[test]
    fn erf_is_that_of_the_tables() {
        // NIST DLMF 7.23 points to tables; these are Abramowitz and Stegun's table 7.1.
        for (z, value) in [(0.0, 0.0), (0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9)] {
            assert!((erf(z) - value).abs() < 1e-10 && (erf(-z) + value).abs() < 1e-10);
        }
        assert!((erf(2.0) - 0.995_322_265_0).abs() < 1e-10);
        assert!((1.0 - erf(5.9)).abs() < 1e-15);
    }
}
