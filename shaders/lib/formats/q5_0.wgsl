// Q5_0: 4 bits and 1 about 16, an f16 scale for 32.
//#include planes W=$W
const $W_group: u32 = 4u;
const $W_shifted: bool = true;

fn $W_codes(at: u32, o: u32) -> Oct {
    let high = bits1($W_u8(at, params.plane1, o));
    return integers(joined(bits4($W_u32(at, 0u, o)), high, 4u));
}

fn $W_scale(at: u32, g: u32) -> Scale {
    let d = $W_f16(at, params.plane2, g);
    return Scale(d, -16.0 * d);
}

fn $W_two_scales(at: u32, g: u32) -> TwoScales {
    let d = $W_f16x2(at, params.plane2, g / 2u);
    return TwoScales(Scale(d.x, -16.0 * d.x), Scale(d.y, -16.0 * d.y));
}
