// Loads from a packed row of weight $W, the planes of which src/formats/block tells: item `i` of the
// plane that begins at word `plane` of the row at `at`.

fn $W_u32(at: u32, plane: u32, i: u32) -> u32 {
    return $W_word(at * 4u + plane + i);
}

// Items `i` and `i + 1`; `i` and `plane` are even.
fn $W_two_u32(at: u32, plane: u32, i: u32) -> vec2<u32> {
    return $W_words(at * 4u + plane + i);
}

fn $W_u16(at: u32, plane: u32, i: u32) -> u32 {
    return ($W_u32(at, plane, i / 2u) >> (i % 2u * 16u)) & 0xffffu;
}

fn $W_u8(at: u32, plane: u32, i: u32) -> u32 {
    return ($W_u32(at, plane, i / 4u) >> (i % 4u * 8u)) & 0xffu;
}

fn $W_f16(at: u32, plane: u32, i: u32) -> f32 {
    return unpack2x16float($W_u16(at, plane, i)).x;
}

// A scale and what is its minimum's.
fn $W_f16x2(at: u32, plane: u32, i: u32) -> vec2<f32> {
    return unpack2x16float($W_u32(at, plane, i));
}
