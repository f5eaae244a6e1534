// Loads of 16 and of 4 bytes from buffer $W, counted from its beginning, and of two of these together.
//#include wide_words
//#if WIDE
// Software adapters load for one lane after the other, as long over 64 bits as over 32:
// `$W: array<vec2<u64>>`.
fn $W_quad(i: u32) -> vec4<u32> {
    return words_of($W[i]);
}

fn $W_word(i: u32) -> u32 {
    return u32($W[i / 4u][i / 2u % 2u] >> (i % 2u * 32u));
}

// Words `i` and `i + 1`, of which the first has an even number.
fn $W_words(i: u32) -> vec2<u32> {
    let v = $W[i / 4u][i / 2u % 2u];
    return vec2(u32(v), u32(v >> 32u));
}
//#else
fn $W_quad(i: u32) -> vec4<u32> {
    return $W[i];
}

fn $W_word(i: u32) -> u32 {
    return $W[i / 4u][i % 4u];
}

fn $W_words(i: u32) -> vec2<u32> {
    return vec2($W_word(i), $W_word(i + 1u));
}
//#endif

fn $W_quads(i: u32) -> Quads {
    return Quads($W_quad(i), $W_quad(i + 1u));
}
