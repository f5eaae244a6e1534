// Codes of which twice 32 are not loaded sooner together.
fn $W_two_raws(at: u32, g: u32) -> $W_TwoRaws {
    return $W_TwoRaws($W_raw(at, g), $W_raw(at, g + 1u));
}
