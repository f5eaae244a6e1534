// FP4 e2m1.
//#include fit_times W=$W TIMES=0x1p14
//#include halves
const $W_middle: f32 = 0.0;
const $W_minimum: bool = false;
//#include raws_quad W=$W

fn $W_numbers(raw: $W_Raw) -> Numbers {
    return numbers_of(e2m1_halves(raw.x), e2m1_halves(raw.y), e2m1_halves(raw.z), e2m1_halves(raw.w));
}
