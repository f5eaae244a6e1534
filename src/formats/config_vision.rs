//! The part of `config.json` about a vision tower.

use super::fields::Fields;
use crate::Result;

/// Dimensions of the vision tower and of the plan that cuts pictures into patches.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Transformer blocks.
    pub layers: usize,
    /// Width of a patch's vector.
    pub dim: usize,
    /// Attention heads; each is `dim / heads` wide, a multiple of 4.
    pub heads: usize,
    /// Width inside the gated feed-forward.
    pub inter: usize,
    /// Side of a square patch in pixels.
    pub patch: usize,
    /// Base of the 2-D rotary embedding.
    pub theta: f32,
    /// Patches along each side of the square that becomes one token.
    pub downsample: usize,
    /// Most tokens a picture may take, its markers and padding included.
    pub max_tokens: usize,
    /// Pictures of fewer pixels are enlarged to about this many.
    pub min_pixels: usize,
    /// Pictures wider than this many times their height are squeezed; `None` for no such limit.
    pub max_wh_ratio: Option<usize>,
}

/// The vision tower: there if `vision_n_layers` is there and above 0. Values a file leaves out are
/// those of the one released model.
pub(super) fn vision(f: &Fields<'_>) -> Result<Option<VisionConfig>> {
    let layers = f.count(&["vision_n_layers"])?.unwrap_or(0);
    if layers == 0 {
        return Ok(None);
    }
    let vision = VisionConfig {
        layers,
        dim: f.size(&["vision_dim"])?,
        heads: f.size(&["vision_n_heads"])?,
        inter: f.size(&["vision_inter_dim"])?,
        patch: f.size_or(&["vision_patch_size"], 14)?,
        theta: f.positive(&["vision_rope_theta"])?.unwrap_or(10_000.0),
        downsample: f.size_or(&["vision_downsample_ratio"], 3)?,
        max_tokens: f.size_or(&["vision_max_n_token"], 384)?,
        min_pixels: f.count(&["vision_min_pixels"])?.unwrap_or(384 * 384),
        max_wh_ratio: f.count(&["vision_max_wh_ratio"])?.filter(|&ratio| ratio > 0),
    };
    // Sizes of pictures are multiplied with each other, so each has a bound of its own.
    for (name, value, most) in [
        ("vision_patch_size", vision.patch, 1024),
        ("vision_downsample_ratio", vision.downsample, 64),
        ("vision_max_n_token", vision.max_tokens, 1 << 20),
    ] {
        if value > most {
            return Err(f.error(name, format!("expected at most {most}")));
        }
    }
    // Rotation splits a head into rows and columns, and each into pairs.
    if !vision.dim.is_multiple_of(4 * vision.heads) {
        let what = format!("does not divide `vision_dim` {} into multiples of 4", vision.dim);
        return Err(f.error("vision_n_heads", what));
    }
    Ok(Some(vision))
}
