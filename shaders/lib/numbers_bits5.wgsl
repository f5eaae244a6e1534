// Formats of 4 bits and 1, 32 of these in a word.
fn $W_numbers(at: u32, g: u32) -> Numbers {
    let raw = $W_quad(at + g);
    let high = $W_u32(at, params.plane1, g);
    return numbers_of(
        integers(joined(bits4(raw.x), bits1(high), 4u)),
        integers(joined(bits4(raw.y), bits1(high >> 8u), 4u)),
        integers(joined(bits4(raw.z), bits1(high >> 16u), 4u)),
        integers(joined(bits4(raw.w), bits1(high >> 24u), 4u)),
    );
}
