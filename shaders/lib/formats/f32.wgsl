// F32.
//#include scales_apart W=$W
const $W_group: u32 = 1u;
const $W_shifted: bool = false;

fn $W_codes(at: u32, o: u32) -> Oct {
    let i = at + 2u * o;
    return Oct(bitcast<vec4<f32>>($W_quad(i)), bitcast<vec4<f32>>($W_quad(i + 1u)));
}

fn $W_scale(at: u32, g: u32) -> Scale {
    return Scale(1.0, 0.0);
}
