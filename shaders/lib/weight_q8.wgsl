// Weight matrix $W, to be multiplied by activations in 8 bits. Beside what lib/weight.wgsl says of
// `formats`, each file of `integers` has, for the block format it is called after:
//   $W_packed  codes of 32 elements, the group `g` of the row at `at`, as integers of 8 bits
//   $W_meant   the Scale of these integers, given that of the codes
//   $W_meant_shifted  whether that has a shift other than 0
//#include oct
//#include quads W=$W
//#include packed
//#include formats/? W=$W
//#include integers/? W=$W

// Whether the 16 elements at either end of 32 have a Scale each.
const $W_halves: bool = $W_group == 2u;

// The Scales of the first 16 elements and of the last.
struct $W_Scales {
    first: Scale,
    last: Scale,
}

fn $W_scales(at: u32, g: u32) -> $W_Scales {
    if $W_halves {
        return $W_Scales($W_meant($W_scale(at, 2u * g)), $W_meant($W_scale(at, 2u * g + 1u)));
    }
    let s = $W_meant($W_scale(at, g));
    return $W_Scales(s, s);
}

// That of half `part`.
fn $W_part(s: $W_Scales, part: u32) -> Scale {
    if part == 0u {
        return s.first;
    }
    return s.last;
}

// The product of 32 elements, given the sums of products of codes of either half, and of x what a
// code of 1 means and the sums of either half.
fn $W_scaled(dots: vec2<f32>, s: $W_Scales, x: vec3<f32>) -> f32 {
    var sum: f32;
    if $W_halves {
        sum = s.first.scale * dots.x + s.last.scale * dots.y;
    } else {
        sum = s.first.scale * (dots.x + dots.y);
    }
    sum *= x.x;
    if $W_meant_shifted {
        sum += s.first.shift * x.y + s.last.shift * x.z;
    }
    return sum;
}

// The product of 32 elements with those of x.
fn $W_dot8(codes: Packed, s: $W_Scales, x: Activations) -> f32 {
    let scales = bitcast<vec3<f32>>(vec3(x.scale, x.first, x.last));
    return $W_scaled(vec2<f32>(packed_dots(codes, x.codes)), s, scales);
}
