// Weight matrix $W, whatever it is stored in. Its binding is `$W: array<vec4<u32>>`, with flag WIDE
// `array<vec2<u64>>`, with WIDER `array<vec4<u64>>`; a row begins at a multiple of 16 bytes, with
// WIDER of 32, `at` below counting 16. Params has where in a row of a block format
// its second, third and fourth plane begin, in words: plane1, plane2, plane3.
//
// Each file of `formats` has, for the format it is called after:
//   $W_group    Octs of a row that have a scale in common
//   $W_shifted  whether a Scale has a shift other than 0
//   $W_codes    8 elements, the Oct `o` of the row at `at`, before scaling
//   $W_scale    the Scale of the row's group `g`
//   $W_two_scales  of groups `g`, which is even, and `g + 1`
//#include oct
//#if WIDER
//#include quads_wider W=$W
//#else
//#include quads W=$W
//#endif
//#include formats/? W=$W

// Elements 8 * o and on of the row at `at`.
fn $W_oct(at: u32, o: u32) -> Oct {
    let v = $W_codes(at, o);
    let s = $W_scale(at, o / $W_group);
    if $W_shifted {
        return Oct(v.lo * s.scale + s.shift, v.hi * s.scale + s.shift);
    }
    return Oct(v.lo * s.scale, v.hi * s.scale);
}

// The product of 8 elements that are still to be scaled by `s` with those of x.
fn $W_dot(codes: Oct, s: Scale, x: Oct) -> f32 {
    let sum = s.scale * oct_dot(codes, x);
    if $W_shifted {
        return sum + s.shift * oct_sum(x);
    }
    return sum;
}
