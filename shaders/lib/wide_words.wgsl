struct Quads {
    first: vec4<u32>,
    last: vec4<u32>,
}

//#if WIDE
fn words_of(v: vec2<u64>) -> vec4<u32> {
    let high = v >> vec2(32u);
    return vec4(u32(v.x), u32(high.x), u32(v.y), u32(high.y));
}
//#endif
