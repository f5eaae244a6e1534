//! Size planning: from a picture's width and height to the size the vision tower sees.
//!
//! The rules are those of Vision-Exp. A picture is enlarged to a least area, rounded up to whole
//! patches, and shrunk again if its block would pass the token budget. All arithmetic is `f64` in
//! one fixed order, because a value that lands on the other side of a `floor` changes the grid.

use super::layout::{ALIGN, span_tokens};
use crate::{Error, Result};

/// What the size planner needs of a vision config.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlanConfig {
    /// Side of a square patch, in pixels.
    pub patch_size: u32,
    /// Patches a side that the aligner merges to one token.
    pub downsample_ratio: u32,
    /// Token budget of one picture, leading alignment PADs included.
    pub max_n_token: u32,
    /// Area in pixels below which a picture is enlarged.
    pub min_pixels: u32,
    /// Width over height from which a picture is stretched instead of letterboxed, and above which
    /// its planned width is cut; `None` for no such rule.
    pub max_wh_ratio: Option<f64>,
}

impl Default for PlanConfig {
    /// The values of the Vision-Exp checkpoint.
    fn default() -> Self {
        Self {
            patch_size: 14,
            downsample_ratio: 3,
            max_n_token: 384,
            min_pixels: 147_456,
            max_wh_ratio: Some(8.0),
        }
    }
}

impl PlanConfig {
    /// Checks that the numbers make sense by themselves.
    ///
    /// # Errors
    /// [`Error::Config`] names the field that does not.
    pub fn check(&self) -> Result<()> {
        let bad = |what: &str| Err(Error::Config(format!("vision: {what}")));
        if self.patch_size == 0 || self.patch_size > 1024 {
            return bad("patch_size must lie in 1..=1024");
        }
        if self.downsample_ratio == 0 || self.downsample_ratio > 64 {
            return bad("downsample_ratio must lie in 1..=64");
        }
        if self.max_n_token > 1 << 20 {
            return bad("max_n_token must not pass 1048576");
        }
        if self.max_wh_ratio.is_some_and(|r| !r.is_finite() || r <= 0.0) {
            return bad("max_wh_ratio must be a positive number");
        }
        Ok(())
    }
}

/// The planned size of one picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Plan {
    /// Width of the canvas in pixels, a multiple of the patch size.
    pub target_w: u32,
    /// Height of the canvas in pixels, a multiple of the patch size.
    pub target_h: u32,
    /// Patches in a row.
    pub patches_w: usize,
    /// Rows of patches.
    pub patches_h: usize,
    /// Image tokens in a row (`lw`): patches over the downsample ratio, rounded up.
    pub grid_w: usize,
    /// Rows of image tokens (`lh`).
    pub grid_h: usize,
    /// Whether the picture fills the canvas by stretching; otherwise it is letterboxed.
    pub stretch: bool,
}

impl Plan {
    /// Tokens of the block from START to END, the leading PADs not counted.
    pub fn span_tokens(&self) -> usize {
        span_tokens(self.grid_h, self.grid_w)
    }

    /// Most tokens the block can take, at the worst prompt position.
    pub fn max_tokens(&self) -> usize {
        self.span_tokens() + ALIGN - 1
    }
}

/// A canvas in pixels, both sides whole patches.
#[derive(Clone, Copy)]
struct Canvas {
    w: u64,
    h: u64,
}

impl Canvas {
    fn grid(self, cfg: &PlanConfig) -> (usize, usize) {
        let cells = |side: u64| {
            (side / u64::from(cfg.patch_size)).div_ceil(u64::from(cfg.downsample_ratio)) as usize
        };
        (cells(self.h), cells(self.w))
    }

    fn tokens(self, cfg: &PlanConfig) -> usize {
        let (lh, lw) = self.grid(cfg);
        span_tokens(lh, lw)
    }
}

/// Plans a `width` x `height` picture (pixels).
///
/// # Errors
/// [`Error::Request`] for an empty picture or when no canvas fits the token budget, and
/// [`Error::Config`] for a config that [`PlanConfig::check`] rejects.
pub fn plan(width: u32, height: u32, cfg: &PlanConfig) -> Result<Plan> {
    cfg.check()?;
    if width == 0 || height == 0 {
        return Err(Error::Request(format!("a {width}x{height} picture is empty")));
    }
    let (mut w, mut h) = (f64::from(width), f64::from(height));
    let mut stretch = false;
    if let Some(ratio) = cfg.max_wh_ratio {
        stretch = w >= ratio * h;
        if w > h * ratio {
            w = h * ratio;
        }
    }
    let min_pixels = f64::from(cfg.min_pixels);
    if w * h < min_pixels {
        let scale = (min_pixels / (w * h)).sqrt();
        (w, h) = ((w * scale).trunc(), (h * scale).trunc());
    }

    let patch = f64::from(cfg.patch_size);
    let mut canvas =
        Canvas { w: ((w / patch).ceil() * patch) as u64, h: ((h / patch).ceil() * patch) as u64 };
    // The block may need up to ALIGN - 1 leading PADs; the budget holds at the worst position.
    let too_small = || {
        let what = format!("a token budget of {} is too small", cfg.max_n_token);
        Error::Request(format!("{what} for a {width}x{height} picture"))
    };
    let limit = (cfg.max_n_token as usize).checked_sub(ALIGN - 1).ok_or_else(too_small)?;
    let mut budget = limit;
    // A canvas solved for a budget can still come out above it (an odd row count adds a row of
    // PADs), hence the loop with a budget one smaller each time.
    while canvas.tokens(cfg) > limit {
        canvas = shrink(w, h, budget, cfg).ok_or_else(too_small)?;
        budget -= 1;
    }

    let (grid_h, grid_w) = canvas.grid(cfg);
    let side = |pixels: u64| u32::try_from(pixels).ok().filter(|&p| p > 0).ok_or_else(too_small);
    Ok(Plan {
        target_w: side(canvas.w)?,
        target_h: side(canvas.h)?,
        patches_w: (canvas.w / u64::from(cfg.patch_size)) as usize,
        patches_h: (canvas.h / u64::from(cfg.patch_size)) as usize,
        grid_w,
        grid_h,
        stretch,
    })
}

/// The canvas for a `w` x `h` picture that aims at `budget` tokens; `None` if the budget is too
/// small for any.
fn shrink(w: f64, h: f64, budget: usize, cfg: &PlanConfig) -> Option<Canvas> {
    let body = budget.checked_sub(2).filter(|&body| body > 0)?;
    let patch = f64::from(cfg.patch_size);
    // Pixels a side of one image token.
    let cell = u64::from(cfg.patch_size * cfg.downsample_ratio);

    // Grid sides, as real numbers, that keep the aspect ratio and spend `body` tokens on
    // rows * (columns + 1).
    let aspect = h / w;
    let cols = (body as f64 / aspect + 0.25).sqrt() - 0.5;
    let rows = cols * aspect;
    if cols < 1.0 {
        let rows = body as u64 / 2;
        return Some(Canvas { w: cell, h: (rows - rows % 2) * cell });
    }
    if rows < 2.0 {
        let cols = (body as u64 / 2).checked_sub(1).filter(|&cols| cols > 1)?;
        return Some(Canvas { w: cols * cell, h: 2 * cell });
    }
    let cols = cols.floor() as u64;
    let rows = rows.floor() as u64 & !1;
    let scale = ((cols * cell) as f64 / w).min((rows * cell) as f64 / h);
    let side = |len: f64| (len * scale / patch).floor() as u64 * u64::from(cfg.patch_size);
    Some(Canvas { w: side(w), h: side(h) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn planned(width: u32, height: u32) -> Plan {
        plan(width, height, &PlanConfig::default()).unwrap()
    }

    #[test]
    fn known_sizes() {
        let p = planned(1920, 1080);
        assert_eq!((p.target_w, p.target_h, p.grid_h, p.grid_w), (1036, 588, 14, 25));
        assert_eq!(p.span_tokens(), 366);
        assert_eq!((planned(640, 640).grid_h, planned(640, 640).grid_w), (16, 16));
        assert_eq!((planned(800, 450).grid_h, planned(800, 450).grid_w), (11, 20));
    }

    #[test]
    fn stretch_starts_at_the_ratio() {
        assert!(planned(800, 100).stretch);
        assert!(!planned(799, 100).stretch);
        let cfg = PlanConfig { max_wh_ratio: None, ..PlanConfig::default() };
        assert!(!plan(8000, 100, &cfg).unwrap().stretch);
    }

    #[test]
    fn hopeless_inputs_are_errors() {
        let cfg = PlanConfig::default();
        assert!(plan(0, 5, &cfg).is_err());
        for max_n_token in 0..8 {
            assert!(plan(640, 480, &PlanConfig { max_n_token, ..cfg }).is_err());
        }
        assert!(plan(5, 5, &PlanConfig { patch_size: 0, ..cfg }).is_err());
        assert!(plan(5, 5, &PlanConfig { downsample_ratio: 0, ..cfg }).is_err());
        assert!(plan(5, 5, &PlanConfig { max_wh_ratio: Some(f64::NAN), ..cfg }).is_err());
    }

    proptest! {
        #[test]
        fn every_plan_is_sound(
            width in 1..=u32::MAX, height in 1..=u32::MAX,
            small in any::<bool>(), max_n_token in 0..2000u32, min_pixels in any::<u32>(),
        ) {
            let (width, height) = if small {
                (width % 4000 + 1, height % 4000 + 1)
            } else {
                (width, height)
            };
            let cfg = PlanConfig { max_n_token, min_pixels, ..PlanConfig::default() };
            if let Ok(p) = plan(width, height, &cfg) {
                prop_assert!(p.max_tokens() <= max_n_token as usize);
                prop_assert_eq!(p.target_w as usize, p.patches_w * 14);
                prop_assert_eq!(p.target_h as usize, p.patches_h * 14);
                prop_assert_eq!(p.grid_w, p.patches_w.div_ceil(3));
                prop_assert_eq!(p.grid_h, p.patches_h.div_ceil(3));
            }
        }
    }
}
