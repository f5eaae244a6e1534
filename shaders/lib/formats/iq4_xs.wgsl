// IQ4_XS: 4-bit places in a table, a signed scale for 32, an f16 scale of these for 256.
//#include scales_apart W=$W
//#include planes W=$W
const $W_group: u32 = 4u;
const $W_shifted: bool = false;

fn $W_codes(at: u32, o: u32) -> Oct {
    let c = bits4($W_u32(at, 0u, o));
    return Oct(iq4(c.lo), iq4(c.hi));
}

fn $W_scale(at: u32, g: u32) -> Scale {
    let s = signed_byte($W_u8(at, params.plane1, g));
    return Scale($W_f16(at, params.plane2, g / 8u) * s, 0.0);
}
