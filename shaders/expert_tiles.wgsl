// Stable counting sort of (token, choice) slots by expert, and its tiles. One workgroup in all.
// See src/ops/expert_tiles.rs.
//
// ids     [T * k] u32, an expert a slot
// sorted  [T * k] u32, slots
// tiles   [1 + T * k] vec4 u32: (count, 0, 0, 0), then (expert, first, slots, 0), then zeros

// There is only one workgroup, so it is as wide as may be.
override WG: u32 = 256u;
// Number of experts; sizes workgroup memory.
override EXPERTS: u32 = 256u;
// Experts whose prefix sums one lane works out.
const PER_LANE = (EXPERTS + WG - 1u) / WG;
//#include scan

struct Params {
    k: u32,
    tile: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> sorted: array<u32>;
@group(0) @binding(4) var<storage, read_write> tiles: array<vec4<u32>>;

// Slots of each expert; later, where its next slot goes. Sums of integers, so that the order in
// which lanes add makes no difference.
var<workgroup> place: array<atomic<u32>, EXPERTS>;
var<workgroup> block: array<u32, WG>;

@compute @workgroup_size(WG)
fn main(inv: Ids) {
    let slots = step.rows * params.k;
    for (var e = inv.lane; e < EXPERTS; e += WG) {
        atomicStore(&place[e], 0u);
    }
    workgroupBarrier();
    for (var s = inv.lane; s < slots; s += WG) {
        atomicAdd(&place[min(ids[s], EXPERTS - 1u)], 1u);
    }
    workgroupBarrier();

    var my_slots = 0u;
    var my_tiles = 0u;
    for (var i = 0u; i < PER_LANE; i++) {
        let e = inv.lane * PER_LANE + i;
        if e < EXPERTS {
            let n = atomicLoad(&place[e]);
            my_slots += n;
            my_tiles += (n + params.tile - 1u) / params.tile;
        }
    }
    var first = scan_before(inv, my_slots);
    var tile = scan_before(inv, my_tiles);
    let tile_count = scan_total();
    for (var i = 0u; i < PER_LANE; i++) {
        let e = inv.lane * PER_LANE + i;
        if e < EXPERTS {
            let n = atomicLoad(&place[e]);
            for (var done = 0u; done < n; done += params.tile) {
                tile++;
                tiles[tile] = vec4<u32>(e, first + done, min(params.tile, n - done), 0u);
            }
            atomicStore(&place[e], first);
            first += n;
        }
    }
    for (var i = tile_count + 1u + inv.lane; i <= slots; i += WG) {
        tiles[i] = vec4<u32>();
    }
    if inv.lane == 0u {
        tiles[0] = vec4<u32>(tile_count, 0u, 0u, 0u);
    }

    // Block by block: a slot goes behind those of its expert in earlier blocks and, within its own
    // block, in lower lanes.
    for (var start = 0u; start < slots; start += WG) {
        let s = start + inv.lane;
        let here = min(WG, slots - start);
        var expert = 0u;
        if s < slots {
            expert = min(ids[s], EXPERTS - 1u);
        }
        workgroupBarrier();
        block[inv.lane] = expert;
        workgroupBarrier();
        if inv.lane < here {
            var before = 0u;
            for (var lane = 0u; lane < inv.lane; lane++) {
                before += u32(block[lane] == expert);
            }
            sorted[atomicLoad(&place[expert]) + before] = s;
        }
        workgroupBarrier();
        if inv.lane < here {
            atomicAdd(&place[expert], 1u);
        }
    }
}
