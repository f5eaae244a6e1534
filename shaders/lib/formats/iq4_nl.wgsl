// IQ4_NL: 4-bit places in a table, an f16 scale for 32.
//#include planes W=$W
const $W_group: u32 = 4u;
const $W_shifted: bool = false;

fn $W_codes(at: u32, o: u32) -> Oct {
    let c = bits4($W_u32(at, 0u, o));
    return Oct(iq4(c.lo), iq4(c.hi));
}

fn $W_scale(at: u32, g: u32) -> Scale {
    return Scale($W_f16(at, params.plane1, g), 0.0);
}

fn $W_two_scales(at: u32, g: u32) -> TwoScales {
    let d = $W_f16x2(at, params.plane1, g / 2u);
    return TwoScales(Scale(d.x, 0.0), Scale(d.y, 0.0));
}
