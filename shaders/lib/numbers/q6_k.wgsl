// Q6_K: 4 bits and 2.
fn $W_numbers(at: u32, g: u32) -> Numbers {
    let raw = $W_quad(at + g);
    let first = $W_u32(at, params.plane1, 2u * g);
    let last = $W_u32(at, params.plane1, 2u * g + 1u);
    return numbers_of(
        integers(joined(bits4(raw.x), bits2(first), 4u)),
        integers(joined(bits4(raw.y), bits2(first >> 16u), 4u)),
        integers(joined(bits4(raw.z), bits2(last), 4u)),
        integers(joined(bits4(raw.w), bits2(last >> 16u), 4u)),
    );
}
