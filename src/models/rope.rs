//! Rotary position embedding: frequencies, and the tables of cosines and sines that go with a
//! step's rows (Su et al. 2021, arXiv:2104.09864; YaRN: Peng et al. 2023, arXiv:2309.00071).
//!
//! The tables are made on the host: sine and cosine of large angles are imprecise on GPUs (Vulkan
//! promises them only within [-pi, pi]).

use crate::formats::{Llama3, RopeScaling, Yarn};
use crate::graph::TensorId;

/// The `dim / 2` angles a position, `theta^(-2i/dim)`, stretched by `scaling`.
pub fn frequencies(dim: usize, theta: f32, scaling: &RopeScaling) -> Vec<f32> {
    let plain = (0..dim / 2).map(|i| 1.0 / theta.powf((2 * i) as f32 / dim as f32));
    match scaling {
        RopeScaling::Plain => plain.collect(),
        RopeScaling::Linear(factor) => plain.map(|f| f / factor).collect(),
        RopeScaling::Factors(factors) => plain.zip(factors).map(|(f, by)| f / by).collect(),
        RopeScaling::Llama3(llama3) => plain.map(|f| llama3_frequency(f, *llama3)).collect(),
        RopeScaling::Yarn(yarn) => {
            let ramp = yarn_ramp(dim, theta, *yarn);
            plain.zip(ramp).map(|(f, ramp)| f * (1.0 - ramp) + f / yarn.factor * ramp).collect()
        }
    }
}

/// How far each frequency is on its way from kept (0) to stretched (1).
fn yarn_ramp(dim: usize, theta: f32, yarn: Yarn) -> impl Iterator<Item = f32> {
    // The index of the frequency that turns `rotations` times over the original context.
    let index_of = |rotations: f32| {
        let turns = yarn.original_context as f64 / (f64::from(rotations) * std::f64::consts::TAU);
        dim as f64 * turns.ln() / (2.0 * f64::from(theta).ln())
    };
    let low = index_of(yarn.beta_fast).floor().max(0.0);
    let high = index_of(yarn.beta_slow).ceil().min(dim as f64 - 1.0);
    // As the reference: never a division by zero.
    let span = if high == low { 0.001 } else { high - low };
    (0..).map(move |i| ((f64::from(i) - low) / span).clamp(0.0, 1.0) as f32)
}

/// `f` where it turns often over the original context, `f / factor` where it turns seldom, blended
/// between.
fn llama3_frequency(f: f32, s: Llama3) -> f32 {
    let turns = s.original_context as f32 * f / std::f32::consts::TAU;
    let kept = ((turns - s.low_freq) / (s.high_freq - s.low_freq)).clamp(0.0, 1.0);
    f * kept + f / s.factor * (1.0 - kept)
}

/// An input of cosines and sines that a graph wants for each row of a step.
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// The graph's input: `[T, dim]`, cosines then sines.
    pub input: TensorId,
    /// Angle a position, `dim / 2` of them.
    pub frequencies: Vec<f32>,
    /// Factor on the cosines and sines.
    pub amplitude: f32,
    /// If set, a row's angle is that of the start of the window of this many tokens which the row
    /// closes, rather than of the row's own position.
    pub window: Option<usize>,
}

impl RopeTable {
    /// The table for rows at `positions`.
    pub fn fill(&self, positions: impl IntoIterator<Item = u32>) -> Vec<f32> {
        let mut out = vec![];
        for p in positions {
            let at = match self.window {
                // Rows that close no window read nothing of it.
                Some(w) => (p + 1).saturating_sub(w as u32),
                None => p,
            };
            push_angles(&mut out, self.frequencies.iter().map(|f| at as f32 * f));
        }
        out.iter_mut().for_each(|v| *v *= self.amplitude);
        out
    }
}

/// Appends the cosines, then the sines of `angles`. The angles are products in f32, as models were
/// trained with; the functions are taken in f64.
pub fn push_angles(out: &mut Vec<f32>, angles: impl Iterator<Item = f32> + Clone) {
    out.extend(angles.clone().map(|a| f64::from(a).cos() as f32));
    out.extend(angles.map(|a| f64::from(a).sin() as f32));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yarn_keeps_the_fast_and_stretches_the_slow() {
        let yarn = Yarn { factor: 16.0, original_context: 65536, beta_fast: 32.0, beta_slow: 1.0 };
        let plain = frequencies(64, 160_000.0, &RopeScaling::Plain);
        let yarned = frequencies(64, 160_000.0, &RopeScaling::Yarn(yarn));
        // V4-Flash: the ramp runs from 15 to 25.
        assert_eq!(plain[..16], yarned[..16]);
        assert!(yarned[16] < plain[16]);
        for (p, y) in plain.iter().zip(&yarned).skip(25) {
            assert_eq!(p / 16.0, *y);
        }
    }

    #[test]
    fn llama3_keeps_the_fast_and_stretches_the_slow() {
        let llama3 = Llama3 { factor: 8.0, original_context: 8192, low_freq: 1.0, high_freq: 4.0 };
        let plain = frequencies(128, 500_000.0, &RopeScaling::Plain);
        let scaled = frequencies(128, 500_000.0, &RopeScaling::Llama3(llama3));
        // Llama 3.1: wavelengths of 2048 and of 8192 lie at 28.2 and 35 of the 64.
        assert_eq!(plain[..29], scaled[..29]);
        assert!(scaled[29] < plain[29] && scaled[34] > plain[34] / 8.0);
        for (p, s) in plain.iter().zip(&scaled).skip(35) {
            assert_eq!(p / 8.0, *s);
        }
    }

    #[test]
    fn a_window_table_holds_the_angle_of_its_start() {
        let mut g = crate::graph::Graph::new("t", crate::graph::StepSize { rows: 1, outs: 1 });
        let input = g.input("r", crate::graph::Elem::F32, crate::graph::Extent::ROWS, 2);
        let table = RopeTable { input, frequencies: vec![0.5], amplitude: 2.0, window: Some(4) };
        let t = table.fill([7]);
        assert_eq!(t, [2.0 * 2.0f64.cos() as f32, 2.0 * 2.0f64.sin() as f32]);
    }
}
