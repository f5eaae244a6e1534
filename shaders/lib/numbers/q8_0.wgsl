// Q8_0: signed bytes.
//#include numbers_bytes W=$W
//#include fit_none W=$W

fn $W_numbers(raw: $W_Raw) -> Numbers {
    return signed_numbers(raw.first, raw.last);
}
