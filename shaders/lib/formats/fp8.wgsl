// FP8: e4m3, a power-of-two scale for 32.
//#include planes W=$W
const $W_group: u32 = 4u;
const $W_shifted: bool = false;

fn $W_codes(at: u32, o: u32) -> Oct {
    let lo = e4m3(bytes($W_u32(at, 0u, 2u * o)));
    return Oct(lo, e4m3(bytes($W_u32(at, 0u, 2u * o + 1u))));
}

fn $W_scale(at: u32, g: u32) -> Scale {
    return Scale(ue8m0($W_u8(at, params.plane1, g)), 0.0);
}

fn $W_two_scales(at: u32, g: u32) -> TwoScales {
    let s = $W_u16(at, params.plane1, g / 2u);
    return TwoScales(Scale(ue8m0(s & 255u), 0.0), Scale(ue8m0(s >> 8u), 0.0));
}
