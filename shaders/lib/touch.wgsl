// Loads a word of each 64 bytes of rows `first` .. `end` of $W, one after the other, so that a cache has them
// when they are wanted: many rows in turns, a piece of each at a time, are not what processors
// foresee. `up` vec4s are added to where rows are. Returns 0, which compilers cannot know.
fn $W_touch(first: u32, end: u32, up: u32, lane: u32) -> u32 {
    var words = 0u;
    for (var at = first * params.pitch + 4u * lane; at < end * params.pitch; at += 4u * WG) {
        words |= $W_word(4u * (at + up));
    }
    return select(0u, 1u, words == 1u && params.outs == 0u);
}
