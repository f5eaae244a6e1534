// Formats of 4 bits.
const $W_middle: f32 = 8.0;
const $W_minimum: bool = $MINIMUM;

alias $W_Raw = vec4<u32>;

fn $W_raw(at: u32, g: u32) -> $W_Raw {
    return $W_quad(at + g);
}

fn $W_two_raws(at: u32, g: u32) -> $W_TwoRaws {
    let raws = $W_quads(at + g);
    return $W_TwoRaws(raws.first, raws.last);
}

fn $W_numbers(raw: $W_Raw) -> Numbers {
    let codes = raw ^ vec4(0x88888888u);
    return numbers_of(signed4(codes.x), signed4(codes.y), signed4(codes.z), signed4(codes.w));
}
