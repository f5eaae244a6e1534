// Floats as integers of the same order, so that selection can work on bits: a < b exactly if
// order_key(a) < order_key(b). The two zeros are one; NaN has its place at either end.
fn order_key(x: f32) -> u32 {
    let bits = select(bitcast<u32>(x), 0u, x == 0.0);
    return bits ^ select(0x80000000u, 0xffffffffu, bits >= 0x80000000u);
}

// The float of a key; the way back.
fn order_value(key: u32) -> f32 {
    return bitcast<f32>(key ^ select(0xffffffffu, 0x80000000u, key >= 0x80000000u));
}
