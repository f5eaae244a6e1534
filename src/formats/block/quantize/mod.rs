//! From numbers to stored blocks.

mod k_quants;
mod legacy;

use half::f16;

use super::BlockFormat;
use super::layout::Parts;

impl BlockFormat {
    /// Whether [`BlockFormat::quantize`] makes this format.
    pub fn can_quantize(self) -> bool {
        quantizer(self).is_some()
    }

    /// Appends the stored row of `values`.
    ///
    /// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and MXFP4 come out as ggml's reference makes them; Q4_K and Q6_K
    /// have scales that nearly minimise the sum of squared errors.
    ///
    /// # Errors
    /// What is in the way, to be told with the tensor's name: a format that is only read, a row that
    /// ends inside a block, a value that is not finite or too large for the format's scales.
    pub fn quantize(self, values: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
        let Some(quantize) = quantizer(self) else {
            return Err(format!("{self} can be read, not made"));
        };
        if !values.len().is_multiple_of(self.block()) {
            let (n, block) = (values.len(), self.block());
            return Err(format!("a row of {n} is no multiple of the {block} of a {self} block"));
        }
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            return Err(format!("element {i} of a row is {}", values[i]));
        }
        let mut parts = Parts::default();
        for values in values.chunks_exact(self.block()) {
            quantize(values, &mut parts);
            // A ue8m0 byte spans all of f32; everything else here is an f16 or two.
            let halves = parts.top[..self.top_bytes()].as_chunks::<2>().0;
            if halves.iter().any(|&h| !f16::from_le_bytes(h).is_finite()) {
                let most = values.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
                return Err(format!("{most} is too large for the scales of {self}"));
            }
            parts.put_together(self, out);
        }
        Ok(())
    }
}

/// Fills in the parts of one block.
type Quantizer = fn(&[f32], &mut Parts);

fn quantizer(format: BlockFormat) -> Option<Quantizer> {
    Some(match format {
        BlockFormat::Q4_0 => legacy::q4_0,
        BlockFormat::Q4_1 => legacy::q4_1,
        BlockFormat::Q5_0 => legacy::q5_0,
        BlockFormat::Q5_1 => legacy::q5_1,
        BlockFormat::Q8_0 => legacy::q8_0,
        BlockFormat::MXFP4 => legacy::mxfp4,
        BlockFormat::Q4K => k_quants::q4_k,
        BlockFormat::Q6K => k_quants::q6_k,
        _ => return None,
    })
}
