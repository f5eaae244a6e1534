// Formats of 8 bits.
const $W_middle: f32 = 0.0;
const $W_minimum: bool = false;

struct $W_Raw {
    first: vec4<u32>,
    last: vec4<u32>,
}

fn $W_raw(at: u32, g: u32) -> $W_Raw {
    return $W_Raw($W_quad(at + 2u * g), $W_quad(at + 2u * g + 1u));
}
