// BF16: the upper halves of floats.
//#include scales_apart W=$W
const $W_group: u32 = 1u;
const $W_shifted: bool = false;

fn $W_codes(at: u32, o: u32) -> Oct {
    let raw = $W_quad(at + o);
    let even = bitcast<vec4<f32>>(raw << vec4(16u));
    let odd = bitcast<vec4<f32>>(raw & vec4(0xffff0000u));
    return Oct(vec4(even.x, odd.x, even.y, odd.y), vec4(even.z, odd.z, even.w, odd.w));
}

fn $W_scale(at: u32, g: u32) -> Scale {
    return Scale(1.0, 0.0);
}
