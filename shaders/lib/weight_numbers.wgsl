// Weight matrix $W, 32 elements at a time; beside what lib/weight.wgsl has, each file of `numbers` has,
// for the format it is called after:
//   $W_Raw      32 elements as they lie in memory
//   $W_raw      those of the group `g` of the row at `at`
//   $W_two_raws those of `g`, which is even, and of `g + 1`
//   $W_numbers  their codes before scaling, less $W_middle: sums of products with codes of one sign are
//               larger, and what shifts they leave cancels them
//   $W_fit      x as these are multiplied with
//   $W_minimum  whether a shift is left
// They are loaded apart from being decoded: a compiler keeps everything that is in use over a load's
// branches in memory, so all loads should come first.
//#include weight W=$W
//#include numbers
//#include numbers/? W=$W

// Whether the 16 elements at either end of 32 have a Scale each.
const $W_halves: bool = $W_group == 2u;

struct $W_TwoRaws {
    first: $W_Raw,
    last: $W_Raw,
}

struct $W_Loaded {
    raw: $W_Raw,
    first: Scale,
    last: Scale,
}

// Elements 32 * g and on of the row at `at`.
fn $W_load(at: u32, g: u32) -> $W_Loaded {
    return $W_load_with($W_raw(at, g), at, g);
}

fn $W_load_with(raw: $W_Raw, at: u32, g: u32) -> $W_Loaded {
    if $W_halves {
        return $W_Loaded(raw, $W_centred($W_scale(at, 2u * g)), $W_centred($W_scale(at, 2u * g + 1u)));
    }
    var s = Scale(1.0, 0.0);
    if $W_group != 1u {
        s = $W_centred($W_scale(at, g * 4u / $W_group));
    }
    return $W_Loaded(raw, s, s);
}

struct $W_TwoLoaded {
    first: $W_Loaded,
    last: $W_Loaded,
}

// Those of `g`, which is even, and of `g + 1`: an adapter that loads for one lane after the other does so
// sooner for twice the bytes.
fn $W_load_two(at: u32, g: u32) -> $W_TwoLoaded {
    let raws = $W_two_raws(at, g);
    if $W_group != 4u {
        let first = $W_load_with(raws.first, at, g);
        return $W_TwoLoaded(first, $W_load_with(raws.last, at, g + 1u));
    }
    let s = $W_two_scales(at, g);
    let first = $W_centred(s.first);
    let last = $W_centred(s.last);
    return $W_TwoLoaded($W_Loaded(raws.first, first, first), $W_Loaded(raws.last, last, last));
}

// Those of `g`, of which the Scale is one of `two`, for formats where 32 elements have one.
fn $W_load_codes(at: u32, g: u32, two: TwoScales) -> $W_Loaded {
    var s = $W_centred(two.first);
    if g % 2u == 1u {
        s = $W_centred(two.last);
    }
    return $W_Loaded($W_raw(at, g), s, s);
}

fn $W_centred(s: Scale) -> Scale {
    return Scale(s.scale, s.shift + $W_middle * s.scale);
}

// What the shifts add to a product, given the sums of x over either half.
fn $W_shifts(w: $W_Loaded, sums: vec2<f32>) -> f32 {
    if !$W_minimum {
        return 0.0;
    }
    if $W_halves {
        return w.first.shift * sums.x + w.last.shift * sums.y;
    }
    return w.first.shift * (sums.x + sums.y);
}
