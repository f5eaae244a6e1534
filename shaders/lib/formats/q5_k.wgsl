// Q5_K: 4 bits and 1, 6-bit scale and minimum for 32, f16 scales of these for 256.
//#include planes W=$W
const $W_group: u32 = 4u;
const $W_shifted: bool = true;

fn $W_codes(at: u32, o: u32) -> Oct {
    let high = bits1($W_u8(at, params.plane1, o));
    return integers(joined(bits4($W_u32(at, 0u, o)), high, 4u));
}

fn $W_scale(at: u32, g: u32) -> Scale {
    let s = $W_u16(at, params.plane2, g);
    let d = $W_f16x2(at, params.plane3, g / 8u);
    return Scale(d.x * f32(s & 255u), -d.y * f32(s >> 8u));
}

fn $W_two_scales(at: u32, g: u32) -> TwoScales {
    let s = vec4<f32>(bytes($W_u32(at, params.plane2, g / 2u)));
    let d = $W_f16x2(at, params.plane3, g / 8u);
    return TwoScales(Scale(d.x * s.x, -d.y * s.y), Scale(d.x * s.z, -d.y * s.w));
}
