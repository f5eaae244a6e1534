// Q3_K: 2 bits and 1 about 4, a signed scale for 16, an f16 scale of these for 256.
//#include scales_apart W=$W
//#include planes W=$W
const $W_group: u32 = 2u;
const $W_shifted: bool = true;

fn $W_codes(at: u32, o: u32) -> Oct {
    let high = bits1($W_u8(at, params.plane1, o));
    return integers(joined(bits2($W_u16(at, 0u, o)), high, 2u));
}

fn $W_scale(at: u32, g: u32) -> Scale {
    let s = signed_byte($W_u8(at, params.plane2, g));
    let d = $W_f16(at, params.plane3, g / 16u) * s;
    return Scale(d, -4.0 * d);
}
