// Q4_0: 4 bits about 8, an f16 scale for 32.
//#include planes W=$W
const $W_group: u32 = 4u;
const $W_shifted: bool = true;

fn $W_codes(at: u32, o: u32) -> Oct {
    return integers(bits4($W_u32(at, 0u, o)));
}

fn $W_scale(at: u32, g: u32) -> Scale {
    let d = $W_f16(at, params.plane1, g);
    return Scale(d, -8.0 * d);
}

fn $W_two_scales(at: u32, g: u32) -> TwoScales {
    let d = $W_f16x2(at, params.plane1, g / 2u);
    return TwoScales(Scale(d.x, -8.0 * d.x), Scale(d.y, -8.0 * d.y));
}
