// Scales of which two are not loaded sooner together.
fn $W_two_scales(at: u32, g: u32) -> TwoScales {
    return TwoScales($W_scale(at, g), $W_scale(at, g + 1u));
}
