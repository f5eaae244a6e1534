// Formats that are read by the Oct. Beyond the row's end its last one comes again.
//#include raws_apart W=$W
//#include fit_none W=$W
const $W_middle: f32 = 0.0;
const $W_minimum: bool = $W_shifted;

alias $W_Raw = Numbers;

fn $W_raw(at: u32, g: u32) -> $W_Raw {
    let last = params.oct - 1u;
    let o = 4u * g;
    return numbers_of(
        $W_codes(at, o),
        $W_codes(at, min(o + 1u, last)),
        $W_codes(at, min(o + 2u, last)),
        $W_codes(at, min(o + 3u, last)),
    );
}

fn $W_numbers(raw: $W_Raw) -> Numbers {
    return raw;
}
