// Weight matrices are read 8 elements at a time: rows are padded to a multiple of 8, and a binding
// is an array of Raw. One decode function a storage format.

struct Oct {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

fn oct_dot(a: Oct, b: Oct) -> f32 {
    return dot(a.lo, b.lo) + dot(a.hi, b.hi);
}

//#if BF16
alias Raw = vec4<u32>;

fn decode(raw: Raw) -> Oct {
    let even = bitcast<vec4<f32>>(raw << vec4(16u));
    let odd = bitcast<vec4<f32>>(raw & vec4(0xffff0000u));
    return Oct(vec4(even.x, odd.x, even.y, odd.y), vec4(even.z, odd.z, even.w, odd.w));
}
//#else
//#if F16
alias Raw = vec4<u32>;

fn decode(raw: Raw) -> Oct {
    return Oct(
        vec4(unpack2x16float(raw.x), unpack2x16float(raw.y)),
        vec4(unpack2x16float(raw.z), unpack2x16float(raw.w)),
    );
}
//#else
alias Raw = Oct;

fn decode(raw: Raw) -> Oct {
    return raw;
}
//#endif
//#endif
