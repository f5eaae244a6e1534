// Several kernels, its links, in one dispatch, for software adapters, where each dispatch wakes threads
// and waits for them, which takes as long as a small kernel's work. As many workgroups as there are
// threads take the links' blocks (what would be workgroups of theirs) in order, and none of a link before
// all of the links before it are done. A block is waited for only once a workgroup has taken it, which
// waits for earlier ones alone, so that it ends if but workgroups that have begun go on running,
// however few run at a time.
//
// Links are kernels whose workgroups are one subgroup and have no barriers. src/gpu/shader.rs puts
// them after this file, with `link_0_`, `link_1_`, ... before all of their names. What one writes and
// another reads is bound `read_write` in both, and ordered by atomics on `progress`.

override LINKS: u32 = 1u;
// Lanes of a subgroup, which is the workgroup.
override WG: u32 = 8u;
//#include step

struct Chain {
    grids: array<vec4<u32>, LINKS>,  // blocks of each link, by dimension
}
@group(0) @binding(0) var<uniform> chain: Chain;

struct Progress {
    taken: atomic<u32>,
    done: atomic<u32>,
    left: atomic<u32>,  // workgroups that found no block any more
}
// All zero before, and after.
@group(0) @binding(2) var<storage, read_write> progress: Progress;

@compute @workgroup_size(WG)
fn main(ids_in: Ids) {
    let first = ids_in.sublane == 0u;
    var link = 0u;
    // Blocks of earlier links.
    var before = 0u;
    loop {
        var taken = 0u;
        if first {
            taken = atomicAdd(&progress.taken, 1u);
        }
        taken = subgroupBroadcastFirst(taken);
        while link < LINKS && taken >= before + blocks(link) {
            before += blocks(link);
            link++;
        }
        if link == LINKS {
            break;
        }
        if first {
            // An addition, since a mere load may be moved out of the loop.
            while atomicAdd(&progress.done, 0u) < before {
            }
        }
        let block = taken - before;
        let grid = chain.grids[link].xyz;
        var ids = ids_in;
        ids.group = vec3(block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y);
        ids.groups = grid;
        switch link {
//#each I LINKS
            case $Iu: {
                link_$I_main(ids);
            }
//#end
            default: {
            }
        }
        if first {
            atomicAdd(&progress.done, 1u);
        }
    }
    if first && atomicAdd(&progress.left, 1u) == ids_in.groups.x - 1u {
        atomicStore(&progress.taken, 0u);
        atomicStore(&progress.done, 0u);
        atomicStore(&progress.left, 0u);
    }
}

fn blocks(link: u32) -> u32 {
    let grid = chain.grids[link];
    return grid.x * grid.y * grid.z;
}
