// Formats of 4 bits and 1, 32 of these in a word.
//#include fit_none W=$W
const $W_middle: f32 = 16.0;
const $W_minimum: bool = $MINIMUM;

struct $W_Raw {
    low: vec4<u32>,
    high: u32,
}

fn $W_raw(at: u32, g: u32) -> $W_Raw {
    return $W_Raw($W_quad(at + g), $W_u32(at, params.plane1, g));
}

fn $W_two_raws(at: u32, g: u32) -> $W_TwoRaws {
    let low = $W_quads(at + g);
    let high = $W_two_u32(at, params.plane1, g);
    return $W_TwoRaws($W_Raw(low.first, high.x), $W_Raw(low.last, high.y));
}

fn $W_numbers(raw: $W_Raw) -> Numbers {
    return numbers_of(
        about($W_middle, joined(bits4(raw.low.x), bits1(raw.high), 4u)),
        about($W_middle, joined(bits4(raw.low.y), bits1(raw.high >> 8u), 4u)),
        about($W_middle, joined(bits4(raw.low.z), bits1(raw.high >> 16u), 4u)),
        about($W_middle, joined(bits4(raw.low.w), bits1(raw.high >> 24u), 4u)),
    );
}
