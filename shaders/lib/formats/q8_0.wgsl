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
