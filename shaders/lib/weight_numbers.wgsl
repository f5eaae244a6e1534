// Weight matrix $W, decoded 32 elements at a time; beside what lib/weight.wgsl has, each file of
// `numbers` has, for the format it is called after:
//   $W_numbers  the codes of 32 elements, the group `g` of the row at `at`, as numbers before scaling
//#include weight W=$W
//#include numbers
//#include numbers/? W=$W

// Elements 32 * g and on of the row at `at`.
fn $W_scaled_numbers(at: u32, g: u32) -> Numbers {
    let codes = $W_numbers(at, g);
    if $W_group == 1u {
        return codes;
    }
    if $W_group == 2u {
        return scaled(codes, $W_scale(at, 2u * g), $W_scale(at, 2u * g + 1u));
    }
    let s = $W_scale(at, g * 4u / $W_group);
    return scaled(codes, s, s);
}
