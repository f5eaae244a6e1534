// Formats of 4 bits.
fn $W_numbers(at: u32, g: u32) -> Numbers {
    let raw = $W_quad(at + g);
    return numbers_of(
        integers(bits4(raw.x)), integers(bits4(raw.y)), integers(bits4(raw.z)), integers(bits4(raw.w)),
    );
}
