// Q8_0: signed bytes, an f16 scale for 32.
//#include planes W=$W
const $W_group: u32 = 4u;
const $W_shifted: bool = false;

fn $W_codes(at: u32, o: u32) -> Oct {
    let lo = signed_bytes($W_u32(at, 0u, 2u * o));
    return Oct(lo, signed_bytes($W_u32(at, 0u, 2u * o + 1u)));
}

fn $W_scale(at: u32, g: u32) -> Scale {
    return Scale($W_f16(at, params.plane1, g), 0.0);
}

fn $W_two_scales(at: u32, g: u32) -> TwoScales {
    let d = $W_f16x2(at, params.plane1, g / 2u);
    return TwoScales(Scale(d.x, 0.0), Scale(d.y, 0.0));
}
