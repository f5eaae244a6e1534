//! Rotary embeddings as configs describe them: the base, and how frequencies are stretched for
//! contexts longer than the model was first trained on.

use super::fields::Fields;
use crate::Result;

/// A rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base: the slowest frequency is nearly its inverse.
    pub theta: f32,
    /// How the frequencies are stretched.
    pub scaling: RopeScaling,
    /// Factor on the cosines and sines.
    pub amplitude: f32,
}

/// How rotary frequencies are stretched.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    Plain,
    /// All divided by this.
    Linear(f32),
    /// Each divided by its own, as GGUF files store what Llama 3.1 does.
    Factors(Vec<f32>),
    /// As Llama 3.1 does.
    Llama3(Llama3),
    /// YaRN (Peng et al. 2023, arXiv:2309.00071).
    Yarn(Yarn),
}

/// YaRN stretching: fast frequencies stay, slow ones are divided, those between are blended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// How many times the original context the stretched one is.
    pub factor: f32,
    /// Tokens of context before stretching.
    pub original_context: usize,
    /// Rotations over the original context above which a frequency is left as it is.
    pub beta_fast: f32,
    /// Rotations below which a frequency is divided by `factor` in full.
    pub beta_slow: f32,
}

/// Llama 3.1's stretching: as YaRN, but blended by wavelength.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3 {
    /// Slow frequencies are divided by this.
    pub factor: f32,
    /// Tokens of context before stretching.
    pub original_context: usize,
    /// Rotations over the original context below which a frequency counts as slow.
    pub low_freq: f32,
    /// Rotations above which it is left as it is.
    pub high_freq: f32,
}

/// YaRN's growth of attention with the stretched context: 1 for a factor of 1.
fn mscale(factor: f32, weight: f32) -> f32 {
    if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 }
}

/// The object that describes the rotary embedding: `rope_scaling`, or `rope_parameters` as
/// Transformers 5 writes it.
fn scaling_object<'a>(f: &Fields<'a>) -> Result<Option<Fields<'a>>> {
    f.object(&["rope_scaling", "rope_parameters"])
}

/// The embedding of a model of `max_context` tokens, `dim` elements of whose heads are rotated, in
/// all layers alike. What Transformers takes for values left out is taken here.
pub(super) fn rope(f: &Fields<'_>, dim: usize, max_context: usize) -> Result<Rope> {
    let object = scaling_object(f)?;
    let inner = object.as_ref().map_or(Ok(None), |s| s.positive(&["rope_theta"]))?;
    let theta = inner.or(f.positive(&["rope_theta"])?).unwrap_or(10_000.0);
    let mut rope = Rope { theta, scaling: RopeScaling::Plain, amplitude: 1.0 };
    for f in [Some(f), object.as_ref()].into_iter().flatten() {
        if f.positive(&["partial_rotary_factor"])?.is_some_and(|share| share != 1.0) {
            return Err(f.error("partial_rotary_factor", "only 1 is supported"));
        }
    }
    if let Some(factors) = factors(f, dim)? {
        rope.scaling = RopeScaling::Factors(factors);
        return Ok(rope);
    }
    let Some(s) = object else { return Ok(rope) };
    let needed = |name| s.positive(&[name])?.ok_or_else(|| s.missing(&[name]));
    let original = || s.size_or(&["original_max_position_embeddings"], max_context);
    match kind(&s)?.as_str() {
        "default" => {}
        "linear" => rope.scaling = RopeScaling::Linear(needed("factor")?),
        "llama3" => {
            let (low_freq, high_freq) = (needed("low_freq_factor")?, needed("high_freq_factor")?);
            if low_freq >= high_freq {
                let what = format!("expected more than the {low_freq} of `low_freq_factor`");
                return Err(s.error("high_freq_factor", what));
            }
            let (factor, original_context) = (needed("factor")?, original()?);
            rope.scaling =
                RopeScaling::Llama3(Llama3 { factor, original_context, low_freq, high_freq });
        }
        "yarn" => {
            s.fixed("truncate", true)?;
            let original_context = original()?;
            let factor = match s.positive(&["factor"])? {
                Some(factor) => factor,
                None => max_context as f32 / original_context as f32,
            };
            let beta = |name, default| Ok(s.positive(&[name])?.unwrap_or(default));
            let (beta_fast, beta_slow) = (beta("beta_fast", 32.0)?, beta("beta_slow", 1.0)?);
            rope.scaling =
                RopeScaling::Yarn(Yarn { factor, original_context, beta_fast, beta_slow });
            let weights = (weight(&s, "mscale")?, weight(&s, "mscale_all_dim")?);
            rope.amplitude = match (s.positive(&["attention_factor"])?, weights) {
                (Some(amplitude), _) => amplitude,
                (None, (Some(m), Some(all))) => mscale(factor, m) / mscale(factor, all),
                (None, _) => mscale(factor, 1.0),
            };
        }
        _ => {
            let name = if s.has(&["rope_type"]) { "rope_type" } else { "type" };
            let what = "only \"default\", \"linear\", \"llama3\" and \"yarn\" are supported";
            return Err(s.error(name, what));
        }
    }
    Ok(rope)
}

/// `fathom_rope_factors`: what each of the `dim / 2` frequencies is divided by.
fn factors(f: &Fields<'_>, dim: usize) -> Result<Option<Vec<f32>>> {
    let (name, count) = ("fathom_rope_factors", dim / 2);
    let found: Option<Vec<f32>> = f.get(&[name], "a list of numbers")?;
    let good = |factors: &Vec<f32>| {
        factors.len() == count && factors.iter().all(|x| x.is_finite() && *x > 0.0)
    };
    if found.as_ref().is_none_or(good) {
        return Ok(found);
    }
    Err(f.error(name, format!("expected {count} numbers above 0")))
}

/// By how much a DeepSeek V2 or V3 model multiplies its attention scores for the stretching that its
/// config describes.
pub(super) fn sharpening(f: &Fields<'_>, rope: &Rope) -> Result<f32> {
    let (Some(s), RopeScaling::Yarn(yarn)) = (scaling_object(f)?, &rope.scaling) else {
        return Ok(1.0);
    };
    let m = weight(&s, "mscale_all_dim")?.map_or(1.0, |all| mscale(yarn.factor, all));
    Ok(m * m)
}

/// A weight of [`mscale`]; configs write 0 for none.
fn weight(s: &Fields<'_>, name: &str) -> Result<Option<f32>> {
    match s.get::<f32>(&[name], "a number")? {
        Some(0.0) => Ok(None),
        _ => s.positive(&[name]),
    }
}

/// What a rope object says it is.
pub(super) fn kind(s: &Fields<'_>) -> Result<String> {
    Ok(s.get(&["rope_type", "type"], "a text")?.unwrap_or_else(|| "default".into()))
}
