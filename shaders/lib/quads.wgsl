// Loads of 16 and of 4 bytes from buffer $W, counted from its beginning.
//#if WIDE
// Software adapters load for one lane after the other, as long over 64 bits as over 32:
// `$W: array<vec2<u64>>`.
fn $W_quad(i: u32) -> vec4<u32> {
    let v = $W[i];
    let high = v >> vec2(32u);
    return vec4(u32(v.x), u32(high.x), u32(v.y), u32(high.y));
}

fn $W_word(i: u32) -> u32 {
    let v = $W[i / 4u][i / 2u % 2u];
    return u32(v >> (i % 2u * 32u));
}
//#else
fn $W_quad(i: u32) -> vec4<u32> {
    return $W[i];
}

fn $W_word(i: u32) -> u32 {
    return $W[i / 4u][i % 4u];
}
//#endif
