// As lib/quads.wgsl, but that `$W: array<vec4<u64>>`.
//#include wide_words
fn $W_quad(i: u32) -> vec4<u32> {
    let half = i % 2u * 2u;
    return words_of(vec2($W[i / 2u][half], $W[i / 2u][half + 1u]));
}

// Quads `i` and `i + 1`, of which the first has an even number.
fn $W_quads(i: u32) -> Quads {
    let v = $W[i / 2u];
    return Quads(words_of(v.xy), words_of(v.zw));
}

fn $W_word(i: u32) -> u32 {
    return u32($W[i / 8u][i / 2u % 4u] >> (i % 2u * 32u));
}

// Words `i` and `i + 1`, of which the first has an even number.
fn $W_words(i: u32) -> vec2<u32> {
    let v = $W[i / 8u][i / 2u % 4u];
    return vec2(u32(v), u32(v >> 32u));
}
