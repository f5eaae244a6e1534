//! Every kernel on every backend: parsed and validated by naga, translated to SPIR-V, MSL and HLSL as
//! wgpu would, and held against WebGPU's core limits. Needs no GPU, so that Metal and DX12 cannot
//! break unseen where only Vulkan runs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use fathom::formats::{Checkpoint, ModelConfig, Weights};
use fathom::gpu::shader::{self, CHAIN_BINDINGS, Link};
use fathom::gpu::{Kernel, Limits};
use fathom::graph::{Access, Graph, StepSize};
use fathom::models::deepseek_v4_vision::vision_graph;
use fathom::models::{Capacity, ModelWeights, text_graph};
use fathom::ops::FEW_ROWS;
use naga::back::{hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy, Layouter};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ResourceBinding, ShaderStage, StorageAccess};

type Consts = &'static [(&'static str, u32)];

/// The ways in which the ops specialise a shader: one of each list of flag sets (several flags of a
/// set apart by blanks), with one of the lists of constants.
struct Variants {
    shader: &'static str,
    flags: &'static [&'static [&'static str]],
    consts: &'static [Consts],
}

#[rustfmt::skip]
const FORMAT: &[&str] = &[
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
    "IQ4_NL", "IQ4_XS", "MXFP4", "FP8", "FP8_F32",
];
/// Those that are multiplied as integers.
#[rustfmt::skip]
const INTEGERS: &[&str] = &[
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "MXFP4",
];
const SUBGROUPS: &[&str] = &["", "SUBGROUPS"];
/// Of kernels that reduce.
const REDUCE: &[&str] = &["", "SUBGROUPS", "SUBGROUPS ONE_SUBGROUP"];
/// Attention of one head of 64, of many rows of them, and of many heads of 512.
const FLASH: &[Consts] = &[
    &[("QUERIES", 4), ("KEYS", 64), ("WG", 64), ("VALUE_LANES", 16), ("VALUE_FOURS", 1)],
    &[("QUERIES", 32), ("KEYS", 32), ("WG", 64), ("VALUE_LANES", 8), ("VALUE_FOURS", 2)],
    &[("QUERIES", 16), ("KEYS", 64), ("WG", 128), ("VALUE_LANES", 32), ("VALUE_FOURS", 4)],
];
/// Attention of few queries by one subgroup.
const FLASH_FEW: &[Consts] = &[
    &[("QUERIES", 1), ("KEYS", 4), ("WG", 4), ("VALUE_FOURS", 8)],
    &[("QUERIES", 3), ("KEYS", 8), ("WG", 8), ("VALUE_FOURS", 2)],
];
/// Queries that see the same keys, by one subgroup.
const FLASH_SAME: &[Consts] = &[
    &[("QUERIES", 4), ("WG", 4), ("KEYS", 16), ("VALUE_FOURS", 2)],
    &[("QUERIES", 16), ("WG", 8), ("KEYS", 32), ("VALUE_FOURS", 16)],
];
/// The tile of large products.
const LARGE_TILE: Consts = &[("BM", 64), ("BN", 64), ("TM", 8), ("TN", 8)];
/// The tiles of experts.
const EXPERT_TILES: &[Consts] = &[
    &[("BM", 16), ("BN", 64), ("SMALL_TILES", 1)],
    &[("BM", 32), ("BN", 64), ("TM", 4), ("TN", 8)],
];
/// The others that may be tuned for: of one weight or of two, which the last has as many invocations for as
/// there may be.
const TUNED_EXPERT_TILES: &[Consts] = &[
    &[("BM", 16), ("BN", 64), ("TM", 2), ("TN", 4), ("SMALL_TILES", 1)],
    &[("BM", 16), ("BN", 32), ("TM", 2), ("TN", 4), ("SMALL_TILES", 1)],
    &[("BM", 32), ("BN", 32), ("TM", 4), ("TN", 4)],
    &[("BM", 32), ("BN", 32), ("TM", 4), ("TN", 2)],
    &[("BM", 32), ("BN", 64), ("TM", 4), ("TN", 4)],
    &[("BM", 32), ("BN", 64), ("TM", 4), ("TN", 2)],
];
/// The other tiles and teams that may be tuned for.
const TILES: &[Consts] = &[
    &[("BM", 32), ("BN", 32), ("TM", 2), ("TN", 4)],
    &[("BM", 16), ("BN", 64), ("TM", 4), ("TN", 4)],
    &[("BM", 32), ("BN", 64), ("TM", 4), ("TN", 4)],
    &[("BM", 64), ("BN", 64), ("TM", 8), ("TN", 4)],
    &[("BM", 64), ("BN", 64), ("TM", 4), ("TN", 4)],
    &[("BM", 128), ("BN", 64), ("TM", 8), ("TN", 8)],
];
const TEAMS: &[Consts] = &[
    &[("LANES", 8), ("OUTS", 2), ("ROWS", 1)],
    &[("LANES", 8), ("OUTS", 1), ("ROWS", 4)],
    &[("LANES", 16), ("OUTS", 2), ("ROWS", 4)],
    &[("LANES", 16), ("OUTS", 1), ("ROWS", 1)],
    &[("LANES", 32), ("OUTS", 1), ("ROWS", 4)],
];
/// More rows repeat the same lines more often.
const LANES_FOR_TWO_ROWS: Consts = &[("PARTS", 1), ("PART", 2), ("BLOCK", 16)];
/// From one stream to the most that there may be.
const STREAMS: &[Consts] = &[&[("N", 1)], &[("N", 4)], &[("N", 8)]];
/// The same, multiplied with a mixing matrix by lanes that run at the same time, or one after the other.
const MIXED: &[Consts] = &[
    &[("N", 1), ("WG", 32), ("PER", 1)],
    &[("N", 8), ("WG", 32), ("PER", 1)],
    &[("N", 4), ("WG", 8), ("PER", 4)],
];

const fn variants(
    shader: &'static str,
    flags: &'static [&'static [&'static str]],
    consts: &'static [Consts],
) -> Variants {
    Variants { shader, flags, consts }
}

/// All of them. Constants are those of small models and of the largest published ones.
const VARIANTS: &[Variants] = &[
    variants("act_round", &[&["", "IN_PLACE", "IN_PLACE CLOSED"], &["", "ROTATE"]], &[&[]]),
    variants("attention", &[&["", "FOURS"], &["", "PARTS"]], FLASH),
    variants(
        "attention",
        &[&["", "FOURS", "FOURS WIDE"], &["", "PARTS"], &["SERIAL SUBGROUPS"]],
        FLASH,
    ),
    variants(
        "attention",
        &[&["", "FOURS", "FOURS WIDE"], &["", "PARTS"], &["FEW_QUERIES SUBGROUPS"]],
        FLASH_FEW,
    ),
    variants(
        "attention",
        &[&["", "FOURS", "FOURS WIDE"], &["", "PARTS"], &["SAME_KEYS SUBGROUPS"]],
        FLASH_SAME,
    ),
    variants("attention_merge", &[&["", "TURN_BACK"]], &[&[]]),
    variants("causal_attention", &[&["", "FOURS"], &["", "PARTS"]], FLASH),
    variants(
        "causal_attention",
        &[&["", "FOURS", "FOURS WIDE"], &["", "PARTS"], &["SERIAL SUBGROUPS"]],
        FLASH,
    ),
    variants(
        "causal_attention",
        &[&["", "FOURS", "FOURS WIDE"], &["", "PARTS"], &["FEW_QUERIES SUBGROUPS"]],
        FLASH_FEW,
    ),
    variants(
        "causal_attention",
        &[&["", "FOURS", "FOURS WIDE"], &["", "PARTS"], &["SAME_KEYS SUBGROUPS"]],
        FLASH_SAME,
    ),
    variants(
        "causal_attention",
        &[&["", "FOURS", "FOURS WIDE"], &["", "PARTS"], &["QUERIES_A_LANE SUBGROUPS"]],
        &[&[("QUERIES", 16), ("WG", 4), ("KEY_FOURS", 3), ("VALUE_FOURS", 32)]],
    ),
    variants("combine", &[&["", "SHARED"]], &[&[("SPAN", 256)]]),
    variants("compress", &[REDUCE, &["", "TWO"]], &[&[("MOST", 512)], &[("MOST", 1024)]]),
    variants("copy_columns", &[], &[&[]]),
    variants("embed", &[FORMAT, &["", "VISION"]], &[&[]]),
    variants("expert_tiles", &[], &[&[("EXPERTS", 1)], &[("EXPERTS", 256)], &[("EXPERTS", 512)]]),
    variants("gather", &[], &[&[]]),
    variants("gelu", &[], &[&[]]),
    variants("head_rope", &[], &[&[]]),
    variants("index_scores", &[&["", "FOURS"]], &[&[("HEADS", 1)], &[("HEADS", 16)]]),
    variants(
        "index_scores",
        &[&["", "FOURS", "FOURS WIDE"], &["SERIAL SUBGROUPS"]],
        &[&[("HEADS", 4), ("WG", 4), ("KEYS", 4)], &[("HEADS", 16), ("WG", 8), ("KEYS", 4)]],
    ),
    variants("latent_keep", &[REDUCE], &[&[]]),
    variants("layer_norm", &[REDUCE], &[&[]]),
    variants(
        "matmul_rows",
        &[FORMAT, &["", "X8"], &["", "BIAS"], &["", "RESIDUAL"]],
        &[&[("ROWS", 1)], &[("ROWS", 2)], &[("ROWS", 4)]],
    ),
    variants(
        "matmul_rows",
        &[FORMAT, &["", "X8"], &["NORM", "BIAS NORM", "GATED", "GATED NORM"]],
        &[&[("ROWS", 1)], &[("ROWS", 4)]],
    ),
    variants("matmul_rows", &[FORMAT, &["EXPERTS"], &["", "X8"], &["", "GATED"]], &[&[]]),
    variants(
        "matmul_tiles",
        &[FORMAT, &["", "X8"], &["", "BIAS"], &["", "RESIDUAL"]],
        &[&[], LARGE_TILE],
    ),
    variants("matmul_tiles", &[FORMAT, &["EXPERTS"], &["", "X8"], &["", "GATED"]], EXPERT_TILES),
    variants(
        "matmul_lanes",
        &[&["BF16", "Q4_K"], &["SUBGROUPS"], &["X8"]],
        &[&[("PARTS", 1), ("PART", 2), ("OUTS", 1)], &[("PARTS", 1), ("PART", 2), ("OUTS", 4)]],
    ),
    variants("matmul_rows", &[&["BF16", "Q4_K"], &["X8"], &["", "GATED NORM"]], TEAMS),
    variants("matmul_rows", &[&["BF16", "Q4_K"], &["X8"], &["EXPERTS GATED"]], TEAMS),
    variants("matmul_tiles", &[&["BF16", "Q4_K"], &["", "X8"], &["BIAS RESIDUAL"]], TILES),
    variants(
        "matmul_tiles",
        &[&["BF16", "Q4_K"], &["X8"], &["EXPERTS", "EXPERTS GATED"]],
        TUNED_EXPERT_TILES,
    ),
    variants("matmul_rows_q8", &[&["Q8_0", "Q4_K"], &["", "EXPERTS GATED"]], TEAMS),
    variants("matmul_tiles_q8", &[&["Q8_0", "Q4_K"], &["BIAS"]], TILES),
    variants(
        "matmul_tiles_q8",
        &[&["Q8_0", "Q4_K"], &["EXPERTS", "EXPERTS GATED"]],
        TUNED_EXPERT_TILES,
    ),
    variants(
        "matmul_rows_q8",
        &[INTEGERS, &["", "BIAS"], &["", "RESIDUAL"]],
        &[&[("OUTS", 4), ("ROWS", 1)], &[("OUTS", 8), ("ROWS", 4)]],
    ),
    variants("matmul_rows_q8", &[INTEGERS, &["EXPERTS"], &["", "GATED"]], &[&[("OUTS", 8)]]),
    variants("matmul_tiles_q8", &[INTEGERS, &["", "BIAS"], &["", "RESIDUAL"]], &[&[], LARGE_TILE]),
    variants("matmul_tiles_q8", &[INTEGERS, &["EXPERTS"], &["", "GATED"]], EXPERT_TILES),
    variants(
        "matmul_lanes",
        &[
            FORMAT,
            &["SUBGROUPS"],
            &["", "X8", "X8 WIDE"],
            &["", "BIAS", "RESIDUAL", "BIAS RESIDUAL"],
        ],
        &[LANES_FOR_TWO_ROWS],
    ),
    variants(
        "matmul_lanes",
        &[FORMAT, &["SUBGROUPS EXPERTS"], &["", "X8", "X8 WIDE"], &["", "GATED"]],
        &[LANES_FOR_TWO_ROWS],
    ),
    variants(
        "matmul_lanes",
        &[
            INTEGERS,
            &["SUBGROUPS EIGHT_BITS"],
            &["", "BYTES", "WIDE"],
            &["", "BIAS", "EXPERTS", "EXPERTS GATED"],
        ],
        &[LANES_FOR_TWO_ROWS],
    ),
    variants(
        "matmul_lanes_pairs",
        &[
            &["Q4_0", "Q4_1", "Q4_K"],
            &["SUBGROUPS"],
            &["", "TWO", "WIDE TWO"],
            &["", "BIAS", "RESIDUAL", "EXPERTS", "EXPERTS GATED"],
        ],
        &[&[("PAIRS", 1), ("ROWS", 2)]],
    ),
    variants(
        "matmul_lanes_ring",
        &[FORMAT, &["SUBGROUPS"], &["", "X8", "X8 WIDE"], &["", "BIAS", "RESIDUAL"]],
        &[&[]],
    ),
    variants(
        "matmul_lanes_ring",
        &[FORMAT, &["SUBGROUPS TWO X8"], &["", "WIDE WIDER"]],
        &[&[("LOADED", 2), ("OUTS", 32)]],
    ),
    variants(
        "matmul_lanes_ring",
        &[
            FORMAT,
            &["SUBGROUPS", "SUBGROUPS TWO X8 WIDE WIDER"],
            &["", "X8", "X8 WIDE"],
            &["EXPERTS", "EXPERTS GATED"],
        ],
        &[&[]],
    ),
    variants(
        "matmul_lanes_ring",
        &[
            INTEGERS,
            &["SUBGROUPS EIGHT_BITS"],
            &["", "BYTES", "WIDE", "TWO"],
            &["", "BIAS", "EXPERTS", "EXPERTS GATED"],
        ],
        &[&[]],
    ),
    variants(
        "matmul_lanes_rows",
        &[
            FORMAT,
            &["SUBGROUPS"],
            &["", "X8 TOUCH", "X8 WIDE"],
            &["", "BIAS NORM", "RESIDUAL", "GATED NORM", "EXPERTS", "EXPERTS GATED"],
        ],
        &[&[("ROWS", 2)], &[("ROWS", 1), ("OUTS", 16)]],
    ),
    variants(
        "matmul_lanes_rows",
        &[
            FORMAT,
            &["SUBGROUPS TWO X8"],
            &["", "WIDE WIDER TOUCH"],
            &["", "GATED NORM", "EXPERTS GATED"],
        ],
        &[&[("LOADED", 2), ("ROWS", 1)]],
    ),
    variants(
        "matmul_lanes_rows",
        &[
            INTEGERS,
            &["SUBGROUPS EIGHT_BITS"],
            &["", "BYTES TOUCH", "WIDE"],
            &["", "BIAS", "EXPERTS", "EXPERTS GATED"],
        ],
        &[&[("ROWS", 1)]],
    ),
    variants(
        "matmul_matrices",
        &[FORMAT, &["SUBGROUPS HALF"], &["", "X8"], &["", "BIAS", "RESIDUAL"]],
        &[
            &[],
            &[("BM", 32), ("MS", 1)],
            &[("BM", 128), ("BN", 128), ("MS", 4), ("NS", 4), ("DEPTH", 16)],
        ],
    ),
    variants(
        "matmul_matrices",
        &[FORMAT, &["SUBGROUPS EIGHTS"], &["", "X8"], &["", "BIAS", "RESIDUAL"]],
        &[
            &[("MS", 4), ("NS", 4), ("DEPTH", 16)],
            &[("BM", 32), ("MS", 2), ("NS", 4), ("DEPTH", 16)],
            &[("BM", 128), ("MS", 8), ("NS", 4), ("DEPTH", 8)],
        ],
    ),
    variants(
        "matmul_matrices",
        &[FORMAT, &["SUBGROUPS EXPERTS"], &["HALF"], &["", "GATED"], &["", "X8"]],
        &[
            &[("BM", 16), ("MS", 1), ("NS", 1), ("DEPTH", 16), ("LANES", 64), ("SMALL_TILES", 1)],
            &[("BM", 32), ("MS", 1), ("NS", 2), ("DEPTH", 16)],
            &[("BM", 32), ("BN", 32), ("MS", 1), ("NS", 1)],
        ],
    ),
    variants(
        "matmul_matrices",
        &[FORMAT, &["SUBGROUPS EXPERTS EIGHTS"], &["", "HALF"], &["", "GATED"], &["", "X8"]],
        &[
            &[("BM", 16), ("MS", 2), ("NS", 2), ("DEPTH", 16), ("SMALL_TILES", 1)],
            &[("BM", 32), ("MS", 2), ("NS", 4), ("DEPTH", 8)],
            &[("BM", 16), ("BN", 32), ("MS", 2), ("NS", 1), ("DEPTH", 8), ("SMALL_TILES", 1)],
            &[("BM", 32), ("BN", 32), ("MS", 2), ("NS", 2), ("DEPTH", 8)],
        ],
    ),
    // Of one weight: of two at once there is no room for as many outputs.
    variants(
        "matmul_matrices",
        &[FORMAT, &["SUBGROUPS EXPERTS"], &["HALF"], &["", "X8"]],
        &[
            &[("BM", 16), ("BN", 128), ("MS", 1), ("NS", 2), ("SMALL_TILES", 1)],
            &[("BM", 32), ("BN", 128), ("MS", 1), ("NS", 4), ("DEPTH", 16)],
        ],
    ),
    variants(
        "matmul_matrices",
        &[FORMAT, &["SUBGROUPS EXPERTS EIGHTS"], &["", "HALF"], &["", "X8"]],
        &[
            &[("BM", 16), ("BN", 128), ("MS", 2), ("NS", 4), ("DEPTH", 16), ("SMALL_TILES", 1)],
            &[("BM", 32), ("BN", 128), ("MS", 2), ("NS", 8), ("DEPTH", 16)],
        ],
    ),
    variants(
        "matmul_transposed",
        &[FORMAT],
        &[&[("ROWS", 1)], &[("ROWS", 8)], &[("ROWS", 1), ("SPLIT", 16)]],
    ),
    variants(
        "matmul_transposed",
        &[FORMAT, &["ALONE"]],
        &[&[("WG", 8), ("SPLIT", 1), ("ROWS", 1)]],
    ),
    variants("mhc_head", &[REDUCE], STREAMS),
    variants("mhc_post", &[&["", "FOURS"], &["", "SUM", "SUM BESIDE"]], STREAMS),
    variants("mhc_post", &[&["FOURS MIX"], &["", "SUM", "SUM BESIDE"]], MIXED),
    variants("mhc_pre", &[REDUCE], STREAMS),
    variants("rope_keep", &[], &[&[]]),
    variants("quantize_activations", &[&["", "BYTES"]], &[&[]]),
    variants("ring_write", &[], &[&[]]),
    variants("rms_norm", &[&["", "IN_PLACE"], &["", "FOURS"], REDUCE], &[&[]]),
    variants(
        "rms_norm",
        &[&["EIGHT_BITS FOURS"], &["", "WIDE"], &["", "BYTES"], &["", "KEEP"], REDUCE],
        &[&[]],
    ),
    variants("rms_norm", &[&["FOURS WIDE"], REDUCE], &[&[]]),
    variants(
        "route",
        &[&["", "SIGMOID", "SOFTMAX"], &["", "GROUPS", "GROUPS TOP_TWO"], &["", "NORMALISE"]],
        &[&[]],
    ),
    variants("sample", &[SUBGROUPS], &[&[]]),
    variants("swiglu", &[&["", "PACKED"], &["", "FOURS", "FOURS WIDE"]], &[&[]]),
    variants(
        "swiglu",
        &[&["PACKED EIGHT_BITS FOURS"], &["", "WIDE"], &["", "BYTES"], &["", "KEEP"]],
        &[&[]],
    ),
    variants(
        "topk",
        &[&["", "FOURS", "FOURS WIDE"]],
        &[&[], &[("WG", 4)], &[("LIST", 1), ("DIGIT_BITS", 11)]],
    ),
    variants("try_matrices", &[&["SUBGROUPS"], &["HALF", "EIGHTS", "HALF EIGHTS"]], &[&[]]),
    variants("unfold", &[], &[&[]]),
    variants("vit_attention", &[], &[&[("CHUNKS", 1)], &[("CHUNKS", 2)], &[("CHUNKS", 4)]]),
    variants("vit_rope", &[], &[&[]]),
];

impl Variants {
    /// Every set of flags.
    fn flag_sets(&self) -> Vec<BTreeSet<&'static str>> {
        let mut sets = vec![BTreeSet::new()];
        for choices in self.flags {
            let with = |set: &BTreeSet<&'static str>, choice: &&'static str| {
                set.iter().copied().chain(choice.split_whitespace()).collect()
            };
            sets = sets.iter().flat_map(|s| choices.iter().map(move |c| with(s, c))).collect();
        }
        sets
    }
}

#[test]
fn every_variant_translates_within_core_limits() {
    let mut count = 0;
    for v in VARIANTS {
        for set in v.flag_sets() {
            let flags: Vec<_> = set.into_iter().collect();
            for consts in v.consts {
                check(v.shader, &flags, consts);
                count += 1;
            }
        }
    }
    println!("{count} variants");
}

/// Nothing escapes [`VARIANTS`] that is in the shaders: no file, and no flag that a file asks for.
#[test]
fn every_shader_and_flag_has_variants() {
    let mut listed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for v in VARIANTS {
        listed.entry(v.shader).or_default().extend(v.flag_sets().into_iter().flatten());
    }
    assert_eq!(listed.keys().copied().collect::<Vec<_>>(), shader::names());
    for (shader, flags) in listed {
        let mut asked = BTreeSet::new();
        let mut formats: Option<BTreeSet<String>> = None;
        flags_of(&format!("{shader}.wgsl"), &mut asked, &mut formats);
        asked.extend(formats.unwrap_or_default());
        // These come in with every use of a library file, and make no difference to all its users.
        for flag in flags {
            assert!(asked.contains(flag), "{shader}.wgsl does not know {flag}");
            asked.remove(flag);
        }
        for flag in ["SUBGROUPS", "ONE_SUBGROUP", "WIDE", "WIDER", "NORM"] {
            asked.remove(flag);
        }
        assert!(asked.is_empty(), "no variant of {shader} sets {asked:?}");
    }
}

/// The flags of the `//#if` lines of a file in `shaders` and of what it includes; and the flags that
/// name a file in each of the folders it includes from.
fn flags_of(file: &str, flags: &mut BTreeSet<String>, formats: &mut Option<BTreeSet<String>>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    for line in text.lines().map(str::trim) {
        if let Some(flag) = line.strip_prefix("//#if ") {
            flags.insert(flag.to_owned());
        } else if let Some(lib) = line.strip_prefix("//#include ") {
            let lib = lib.split(' ').next().unwrap();
            match lib.strip_suffix('?') {
                Some(folder) => {
                    let files: BTreeSet<_> = files_of(folder).into_iter().collect();
                    *formats = Some(match formats.take() {
                        Some(others) => others.intersection(&files).cloned().collect(),
                        None => files,
                    });
                }
                None => flags_of(&format!("lib/{lib}.wgsl"), flags, formats),
            }
        }
    }
}

/// The flags that name a file of a folder of `shaders/lib`.
fn files_of(folder: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders/lib").join(folder);
    let files = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    files.map(|p| p.file_stem().unwrap().to_str().unwrap().to_uppercase()).collect()
}

/// What the models here ask for, with their own constants: it is among the variants, its bindings are
/// those of its shader, and it too translates.
#[test]
fn models_ask_for_kernels_that_translate() {
    let listed: HashSet<_> =
        VARIANTS.iter().flat_map(|v| v.flag_sets().into_iter().map(|f| (v.shader, f))).collect();
    let mut seen = BTreeSet::new();
    for folder in models() {
        for graph in graphs(&folder) {
            for subgroups in [false, true] {
                let limits = Limits { subgroups, ..Limits::CORE };
                for node in graph.nodes() {
                    for kernel in node.op.kernels(&graph, &limits) {
                        let Kernel { shader, flags, consts, .. } = &kernel;
                        if !seen.insert((*shader, flags.clone(), consts.clone())) {
                            continue;
                        }
                        let set = flags.iter().copied().collect();
                        let place = format!("{} of {}: {kernel:?}", node.label, graph.name);
                        assert!(listed.contains(&(*shader, set)), "not listed: {place}");
                        bindings_fit(&check(shader, flags, consts), &kernel, &place);
                    }
                }
            }
        }
    }
    println!("{} distinct kernels", seen.len());
    assert!(seen.iter().any(|s| s.1.contains(&"GATED")) && seen.iter().any(|s| s.0 == "unfold"));
}

fn models() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let oracle = std::fs::read_dir(root.join("tests/fixtures/oracle")).unwrap();
    let folders = oracle.map(|entry| entry.unwrap().path()).filter(|p| p.is_dir());
    folders.chain([root.join("weights/minnow")]).collect()
}

/// A model's graphs: prefill, decode of one sequence and of as many as that phase may have, vision.
fn graphs(folder: &Path) -> Vec<Graph> {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let config = ModelConfig::from_checkpoint(&checkpoint).unwrap();
    let mut weights = ModelWeights::new(Weights::new(&checkpoint));
    let capacity = Capacity { slots: 2, context: 512, chunk: 64 };
    let mut graphs = vec![];
    for (rows, outs) in [(64, 1), (64, 64), (1, 1), (2, 2), (FEW_ROWS, FEW_ROWS)] {
        let max = StepSize { rows, outs };
        graphs.push(text_graph(&config, &mut weights, capacity, max).unwrap().0);
    }
    if let Some(v) = config.vision() {
        let patches = v.max_tokens * v.downsample * v.downsample;
        for max in [StepSize { rows: patches, outs: v.max_tokens }, StepSize { rows: 4, outs: 1 }] {
            graphs.push(vision_graph(config.hidden(), v, &mut weights, max).unwrap().0);
        }
    }
    graphs
}

/// Each binding of the shader is there, and written only if the op says so.
fn bindings_fit(module: &Module, kernel: &Kernel, place: &str) {
    let layouter = layout(module);
    for (_, var) in module.global_variables.iter() {
        let Some(at) = var.binding else { continue };
        match (at.binding, var.space) {
            (0, AddressSpace::Uniform) => {
                let size = layouter[var.ty].size as usize;
                let given = kernel.params.len().next_multiple_of(16);
                assert!(size <= given, "Params of {size} bytes in {given}: {place}");
            }
            (1, AddressSpace::Uniform) => {}
            (b @ 2.., AddressSpace::Storage { access }) => {
                let b = b as usize - 2;
                let given = match kernel.bindings.get(b) {
                    Some(binding) => binding.used.access != Access::Read,
                    // After all others, what it tells.
                    None => {
                        let there = b == kernel.bindings.len() && kernel.tells.is_some();
                        assert!(there, "no storage binding {b}: {place}");
                        true
                    }
                };
                let writes = access.contains(StorageAccess::STORE);
                assert_eq!(writes, given, "storage binding {b}: {place}");
            }
            (b, space) => panic!("binding {b} is {space:?}: {place}"),
        }
    }
}

/// Parses, validates and translates one specialisation, and holds it against the core limits.
fn check(shader: &str, flags: &[&str], consts: &[(&str, u32)]) -> Module {
    let place = format!("{shader} {flags:?} {consts:?}");
    let module = translate(&shader::specialise(shader, flags, consts), flags, &place);
    core_limits(&module, &place);
    module
}

/// Parses, validates and translates a shader that has these flags.
fn translate(wgsl: &str, flags: &[&str], place: &str) -> Module {
    let module = naga::front::wgsl::parse_str(wgsl)
        .unwrap_or_else(|e| panic!("{place}: {}", e.emit_to_string(wgsl)));
    let subgroups = flags.contains(&"SUBGROUPS");
    // Nothing beyond the core (unpack2x16float is of it), except in the tier that says so.
    let mut may = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    may.set(Capabilities::SUBGROUP, subgroups);
    may.set(Capabilities::SHADER_INT64, flags.contains(&"WIDE"));
    let matrices = wgsl.contains("enable wgpu_cooperative_matrix;");
    may.set(Capabilities::COOPERATIVE_MATRIX, matrices);
    may.set(Capabilities::SHADER_FLOAT16, flags.contains(&"HALF"));
    let info = Validator::new(ValidationFlags::all(), may)
        .validate(&module)
        .unwrap_or_else(|e| panic!("{place}: {}", e.emit_to_string(wgsl)));
    // As the tests run it and as it ships.
    for checked in [true, false] {
        to_spirv(&module, &info, subgroups, checked, place);
        to_msl(&module, &info, subgroups, checked, place);
        // HLSL has no such matrices, nor does wgpu say that DX12 does.
        if !matrices {
            to_hlsl(&module, &info, subgroups, checked, place);
        }
    }
    module
}

/// Several kernels in one: each has its own names and bindings, and what it may not write it does not.
#[test]
fn chains_translate() {
    let norm: &[&str] = &["SUBGROUPS", "ONE_SUBGROUP", "FOURS"];
    let product: &[&str] = &["Q4_1", "SUBGROUPS", "X8", "RESIDUAL"];
    let attention: &[&str] = &["SUBGROUPS", "FOURS", "FEW_QUERIES"];
    let width: &[(&str, u32)] = &[("WG", 8)];
    let few: &[(&str, u32)] = &[("QUERIES", 3), ("KEYS", 8), ("WG", 8), ("VALUE_FOURS", 2)];
    // The norm's weight, and the weight of each product, are read only.
    let link = |name, flags, consts, read_only, placed, params| Link {
        name,
        flags,
        consts,
        read_only,
        placed,
        params,
    };
    let links = [
        link("rms_norm", norm, width, &[false, true, false], &[false, true, true], 3),
        link("matmul_lanes_rows", product, width, &[false, true, false, false], &[true; 4], 2),
        link("rope_keep", &[], width, &[true, false, true, false, false], &[false; 5], 1),
        link(
            "causal_attention",
            attention,
            few,
            &[true, false, false, false, true, false],
            &[false, true, true, true, false, true],
            1,
        ),
        link("matmul_lanes_rows", product, width, &[false, true, false, false], &[false; 4], 1),
    ];
    let module = translate(&shader::chain(&links, 8, 20), &["SUBGROUPS"], "chain");
    let bindings: Vec<_> = bound(&module).collect();
    let of = |space: fn(AddressSpace) -> bool| bindings.iter().filter(|b| space(b.1)).count();
    let read_only: usize = links.iter().flat_map(|l| l.read_only).filter(|&&r| r).count();
    let all: usize = links.iter().map(|l| l.read_only.len()).sum();
    // The chain's own are its calls, the step and its progress.
    assert_eq!(of(|s| s == AddressSpace::Uniform), links.len() + 2);
    assert_eq!(of(|s| s == AddressSpace::Storage { access: StorageAccess::LOAD }), read_only);
    let places: HashSet<_> = bindings.iter().map(|b| b.0.binding).collect();
    assert_eq!(places.len(), links.len() + all + CHAIN_BINDINGS);
}

fn layout(module: &Module) -> Layouter {
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).unwrap();
    layouter
}

/// WebGPU's default limits, that no tier of ours may exceed in a shader.
fn core_limits(module: &Module, place: &str) {
    let limits = wgpu::Limits::default();
    let layouter = layout(module);
    let of = |space: fn(AddressSpace) -> bool| {
        module.global_variables.iter().map(|(_, v)| v).filter(move |v| space(v.space))
    };

    let shared: u32 = of(|s| s == AddressSpace::WorkGroup)
        .map(|v| layouter[v.ty].size.next_multiple_of(16))
        .sum();
    let most = limits.max_compute_workgroup_storage_size;
    assert!(shared <= most, "{place}: {shared} bytes of workgroup memory, over {most}");

    let storage = of(|s| matches!(s, AddressSpace::Storage { .. })).count();
    let most = limits.max_storage_buffers_per_shader_stage as usize;
    assert!(storage <= most, "{place}: {storage} storage buffers, over {most}");

    assert!(module.overrides.is_empty(), "{place}: overrides are left");
    let [entry] = module.entry_points.as_slice() else {
        panic!("{place}: one entry point, please")
    };
    assert_eq!((entry.name.as_str(), entry.stage), ("main", ShaderStage::Compute), "{place}");
    let [x, y, z] = entry.workgroup_size;
    let most = limits.max_compute_invocations_per_workgroup;
    assert!(x * y * z <= most, "{place}: {x} x {y} x {z} invocations, over {most}");
}

fn policies(checked: bool) -> BoundsCheckPolicies {
    let policy = if checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    BoundsCheckPolicies {
        index: policy,
        buffer: policy,
        image_load: policy,
        binding_array: BoundsCheckPolicy::Unchecked,
    }
}

/// Where each bound variable goes: buffers in the order of their bindings.
fn bound(module: &Module) -> impl Iterator<Item = (ResourceBinding, AddressSpace)> {
    module.global_variables.iter().filter_map(|(_, v)| Some((v.binding?, v.space)))
}

/// For Vulkan 1.0, or for 1.1 where there are subgroups; and for 1.3.
fn to_spirv(module: &Module, info: &ModuleInfo, subgroups: bool, checked: bool, place: &str) {
    use spv::Capability as C;
    let mut may: naga::FastHashSet<_> = [C::Shader, C::Matrix].into_iter().collect();
    if subgroups {
        may.extend([
            C::GroupNonUniform,
            C::GroupNonUniformArithmetic,
            C::GroupNonUniformBallot,
            C::GroupNonUniformShuffle,
        ]);
    }
    // Where there are matrices; they bring what they need along.
    may.extend([
        C::CooperativeMatrixKHR,
        C::VulkanMemoryModel,
        C::Float16,
        C::StorageBuffer16BitAccess,
    ]);
    for lang_version in [if subgroups { (1, 3) } else { (1, 0) }, (1, 6)] {
        let options = spv::Options {
            lang_version,
            flags: spv::WriterFlags::empty(),
            capabilities: Some(may.clone()),
            bounds_check_policies: policies(checked),
            zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
            force_loop_bounding: checked,
            ..Default::default()
        };
        let pipeline =
            spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".into() };
        let words = spv::write_vec(module, info, &options, Some(&pipeline))
            .unwrap_or_else(|e| panic!("{place}: SPIR-V {lang_version:?}: {e}"));
        keep(place, checked, &ending(lang_version, "spv"), bytemuck::cast_slice(&words));
    }
}

/// For the oldest Metal that wgpu would use with these shaders, and for the newest.
fn to_msl(module: &Module, info: &ModuleInfo, subgroups: bool, checked: bool, place: &str) {
    let mut slots = 0..;
    let mut slot = || slots.next().unwrap();
    let mut resources: Vec<_> = bound(module).collect();
    resources.sort_by_key(|(at, _)| at.binding);
    let resources = resources.into_iter().map(|(at, space)| {
        let mutable = space.access().contains(StorageAccess::STORE);
        (at, msl::BindTarget { buffer: Some(slot()), mutable, ..Default::default() })
    });
    let resources: msl::BindingMap = resources.collect();
    let resources =
        msl::EntryPointResources { resources, immediates_buffer: None, sizes_buffer: Some(slot()) };
    for lang_version in [if subgroups { (2, 3) } else { (2, 0) }, (3, 0), (4, 0)] {
        let options = msl::Options {
            lang_version,
            fake_missing_bindings: false,
            per_entry_point_map: [("main".to_owned(), resources.clone())].into_iter().collect(),
            bounds_check_policies: policies(checked),
            zero_initialize_workgroup_memory: false,
            force_loop_bounding: checked,
            ..Default::default()
        };
        let pipeline = msl::PipelineOptions {
            entry_point: Some((ShaderStage::Compute, "main".into())),
            ..Default::default()
        };
        let (text, written) = msl::write_string(module, info, &options, &pipeline)
            .unwrap_or_else(|e| panic!("{place}: MSL {lang_version:?}: {e}"));
        for name in written.entry_point_names {
            name.unwrap_or_else(|e| panic!("{place}: MSL {lang_version:?}: {e}"));
        }
        keep(place, checked, &ending(lang_version, "metal"), text.as_bytes());
    }
}

/// For the FXC compiler, that Windows has, except where there are subgroups; and for DXC.
fn to_hlsl(module: &Module, info: &ModuleInfo, subgroups: bool, checked: bool, place: &str) {
    use hlsl::ShaderModel as S;
    let target = |at: ResourceBinding| hlsl::BindTarget {
        register: at.binding,
        restrict_indexing: true,
        ..Default::default()
    };
    for shader_model in [if subgroups { S::V6_0 } else { S::V5_1 }, S::V6_8] {
        let options = hlsl::Options {
            shader_model,
            fake_missing_bindings: false,
            binding_map: bound(module).map(|(at, _)| (at, target(at))).collect(),
            // wgpu needs this for num_workgroups.
            special_constants_binding: Some(hlsl::BindTarget { space: 1, ..Default::default() }),
            zero_initialize_workgroup_memory: false,
            restrict_indexing: checked,
            force_loop_bounding: checked,
            ..Default::default()
        };
        let pipeline =
            hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, "main".into())) };
        let mut text = String::new();
        let written = hlsl::Writer::new(&mut text, &options, &pipeline)
            .write(module, info, None)
            .unwrap_or_else(|e| panic!("{place}: HLSL {shader_model:?}: {e}"));
        for name in written.entry_point_names {
            name.unwrap_or_else(|e| panic!("{place}: HLSL {shader_model:?}: {e}"));
        }
        keep(place, checked, &format!("{}.hlsl", shader_model.to_str()), text.as_bytes());
    }
}

fn ending((major, minor): (u8, u8), language: &str) -> String {
    format!("{major}_{minor}.{language}")
}

/// Writes a translation into the folder that `FATHOM_KEEP_SHADERS` names, if it is set: for
/// `spirv-val`, Metal's or DirectX's own compiler, or to be read.
fn keep(place: &str, checked: bool, ending: &str, bytes: &[u8]) {
    let Some(folder) = std::env::var_os("FATHOM_KEEP_SHADERS") else { return };
    let mut name: String = place
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join("-");
    if checked {
        name += "-checked";
    }
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(Path::new(&folder).join(format!("{name}.{ending}")), bytes).unwrap();
}
