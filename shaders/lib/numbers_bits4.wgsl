// Formats of 4 bits.
const $W_middle: f32 = 8.0;
const $W_minimum: bool = $MINIMUM;
//#include raws_quad W=$W

fn $W_numbers(raw: $W_Raw) -> Numbers {
    let codes = raw ^ vec4(0x88888888u);
    return numbers_of(signed4(codes.x), signed4(codes.y), signed4(codes.z), signed4(codes.w));
}
