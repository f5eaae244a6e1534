// The bindings that tell which rows of a bank multiply which slots.

struct Tile {
    expert: u32,
    first: u32,  // into sorted
    count: u32,
    spare: u32,
}
@group(0) @binding(5) var<storage, read> pages: array<u32>;   // [experts]: where its rows are
@group(0) @binding(6) var<storage, read> sorted: array<u32>;  // [slots]: slots by expert
// As expert_tiles.wgsl writes them: the first tells how many of them are large, and then they come.
@group(0) @binding(7) var<storage, read> tiles: array<Tile>;
// Whether those of this kernel are the small ones alone, which come after all others.
override SMALL_TILES: u32 = 0u;
