// Formats of 4 bits.
const $W_middle: f32 = select(0.0, 8.0, PAIRED);
const $W_minimum: bool = $MINIMUM || !PAIRED;
//#include raws_quad W=$W

fn $W_numbers(raw: $W_Raw) -> Numbers {
    return numbers_of(in_place4(raw.x), in_place4(raw.y), in_place4(raw.z), in_place4(raw.w));
}

fn $W_fit(x: Numbers) -> Numbers {
    return in_place_of4(x);
}
