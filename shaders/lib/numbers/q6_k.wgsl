// Q6_K: 4 bits and 2.
//#include fit_none W=$W
const $W_middle: f32 = 32.0;
const $W_minimum: bool = false;

struct $W_Raw {
    low: vec4<u32>,
    high: vec2<u32>,
}

fn $W_raw(at: u32, g: u32) -> $W_Raw {
    return $W_Raw($W_quad(at + g), $W_two_u32(at, params.plane1, 2u * g));
}

fn $W_two_raws(at: u32, g: u32) -> $W_TwoRaws {
    let low = $W_quads(at + g);
    let high = $W_two_u32(at, params.plane1, 2u * g);
    let last = $W_two_u32(at, params.plane1, 2u * g + 2u);
    return $W_TwoRaws($W_Raw(low.first, high), $W_Raw(low.last, last));
}

fn $W_numbers(raw: $W_Raw) -> Numbers {
    return numbers_of(
        about($W_middle, joined(bits4(raw.low.x), bits2(raw.high.x), 4u)),
        about($W_middle, joined(bits4(raw.low.y), bits2(raw.high.x >> 16u), 4u)),
        about($W_middle, joined(bits4(raw.low.z), bits2(raw.high.y), 4u)),
        about($W_middle, joined(bits4(raw.low.w), bits2(raw.high.y >> 16u), 4u)),
    );
}
