// FP8_F32: e4m3, an f32 scale for 128.
//#include scales_apart W=$W
//#include planes W=$W
const $W_group: u32 = 4u;
const $W_shifted: bool = false;

fn $W_codes(at: u32, o: u32) -> Oct {
    let lo = e4m3(bytes($W_u32(at, 0u, 2u * o)));
    return Oct(lo, e4m3(bytes($W_u32(at, 0u, 2u * o + 1u))));
}

fn $W_scale(at: u32, g: u32) -> Scale {
    return Scale(bitcast<f32>($W_u32(at, params.plane1, g / 4u)), 0.0);
}
