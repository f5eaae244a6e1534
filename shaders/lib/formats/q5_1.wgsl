// Q5_1: 4 bits and 1, an f16 scale and minimum for 32.
//#include planes W=$W
const $W_group: u32 = 4u;
const $W_shifted: bool = true;

fn $W_codes(at: u32, o: u32) -> Oct {
    let high = bits1($W_u8(at, params.plane1, o));
    return integers(joined(bits4($W_u32(at, 0u, o)), high, 4u));
}

fn $W_scale(at: u32, g: u32) -> Scale {
    let d = $W_f16x2(at, params.plane2, g);
    return Scale(d.x, d.y);
}

fn $W_two_scales(at: u32, g: u32) -> TwoScales {
    let d = $W_two_u32(at, params.plane2, g);
    let first = unpack2x16float(d.x);
    let last = unpack2x16float(d.y);
    return TwoScales(Scale(first.x, first.y), Scale(last.x, last.y));
}
