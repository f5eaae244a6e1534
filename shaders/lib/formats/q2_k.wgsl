// Q2_K: 2 bits, 4-bit scale and minimum for 16, f16 scales of these for 256.
//#include scales_apart W=$W
//#include planes W=$W
const $W_group: u32 = 2u;
const $W_shifted: bool = true;

fn $W_codes(at: u32, o: u32) -> Oct {
    return integers(bits2($W_u16(at, 0u, o)));
}

fn $W_scale(at: u32, g: u32) -> Scale {
    let s = $W_u8(at, params.plane1, g);
    let d = $W_f16x2(at, params.plane2, g / 16u);
    return Scale(d.x * f32(s & 15u), -d.y * f32(s >> 4u));
}
