// Formats of 4 bits.
// The codes of 32 elements of w, less 8, and 2^16 times those of w3.
fn pairs(w: vec4<u32>, w3: vec4<u32>) -> Integers {
    let first = (w & vec4(0xffffu)) | (w3 << vec4(16u));
    let last = (w >> vec4(16u)) | (w3 & vec4(0xffff0000u));
    return Integers(array(
        four_pairs(first.x), four_pairs(last.x), four_pairs(first.y), four_pairs(last.y),
        four_pairs(first.z), four_pairs(last.z), four_pairs(first.w), four_pairs(last.w),
    ));
}

fn four_pairs(word: u32) -> vec4<i32> {
    let codes = (vec4(word) >> vec4(0u, 4u, 8u, 12u)) & vec4(0x000f000fu);
    return bitcast<vec4<i32>>(codes) - vec4(0x00080008);
}
