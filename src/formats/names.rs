//! The names tensors go by. Model code asks for the canonical name: DeepSeek's official one for V4,
//! Hugging Face's for all others. Checkpoints that Transformers or mlx-vlm wrote spell the former
//! otherwise, GGUF files all of them, and some keep all experts of a layer in one tensor.

use super::{Checkpoint, TensorView, gguf};
use crate::{Error, Result};

/// The spellings of one tensor, or of the module whose `weight`, `bias` or `scale` it is, in the
/// order of [`PREFIXES`]. An empty entry means the official spelling.
type Row = [&'static str; 4];

/// What precedes `layers.N.` in each dialect: the official one; the Transformers one; what
/// Transformers writes when it converts names back on saving, which is official but for a few
/// slips; the mlx-vlm one.
const PREFIXES: Row = ["", "model.", "model.", "language_model.model."];

/// Tensors outside the layers.
#[rustfmt::skip]
const TOP: [Row; 6] = [
    ["embed",         "model.embed_tokens",     "model.embed_tokens",     "language_model.model.embed_tokens"],
    ["head",          "lm_head",                "",                       "language_model.lm_head"],
    ["norm",          "model.norm",             "model.norm",             "language_model.model.norm"],
    ["hc_head_fn",    "model.hc_head.hc_fn",    "model.hc_head.hc_fn",    "language_model.model.hc_head.fn"],
    ["hc_head_base",  "model.hc_head.hc_base",  "model.hc_head.hc_base",  "language_model.model.hc_head.base"],
    ["hc_head_scale", "model.hc_head.hc_scale", "model.hc_head.hc_scale", "language_model.model.hc_head.scale"],
];

/// Tensors of a layer, below `layers.N.`.
#[rustfmt::skip]
const LAYER: [Row; 32] = [
    ["attn_norm",                     "input_layernorm",                                     "",          ""],
    ["ffn_norm",                      "post_attention_layernorm",                            "",          ""],
    ["hc_attn_fn",                    "attn_hc.fn",                                          "",          "attn_hc.fn"],
    ["hc_attn_base",                  "attn_hc.base",                                        "",          "attn_hc.base"],
    ["hc_attn_scale",                 "attn_hc.scale",                                       "",          "attn_hc.scale"],
    ["hc_ffn_fn",                     "ffn_hc.fn",                                           "",          "ffn_hc.fn"],
    ["hc_ffn_base",                   "ffn_hc.base",                                         "",          "ffn_hc.base"],
    ["hc_ffn_scale",                  "ffn_hc.scale",                                        "",          "ffn_hc.scale"],
    ["attn.wq_a",                     "self_attn.q_a_proj",                                  "",          ""],
    ["attn.wq_b",                     "self_attn.q_b_proj",                                  "",          ""],
    ["attn.q_norm",                   "self_attn.q_a_norm",                                  "",          ""],
    ["attn.wkv",                      "self_attn.kv_proj",                                   "",          ""],
    ["attn.kv_norm",                  "self_attn.kv_norm",                                   "attn.norm", ""],
    ["attn.wo_a",                     "self_attn.o_a_proj",                                  "",          ""],
    ["attn.wo_b",                     "self_attn.o_b_proj",                                  "",          ""],
    ["attn.attn_sink",                "self_attn.sinks",                                     "",          ""],
    ["attn.compressor.wkv",           "self_attn.compressor.kv_proj",                        "",          ""],
    ["attn.compressor.wgate",         "self_attn.compressor.gate_proj",                      "",          ""],
    ["attn.compressor.ape",           "self_attn.compressor.position_bias",                  "",          ""],
    ["attn.compressor.norm",          "self_attn.compressor.kv_norm",                        "",          ""],
    ["attn.indexer.wq_b",             "self_attn.compressor.indexer.q_b_proj",               "",          ""],
    ["attn.indexer.weights_proj",     "self_attn.compressor.indexer.scorer.weights_proj",    "",          ""],
    ["attn.indexer.compressor.wkv",   "self_attn.compressor.indexer.kv_proj",                "",          ""],
    ["attn.indexer.compressor.wgate", "self_attn.compressor.indexer.gate_proj",              "",          ""],
    ["attn.indexer.compressor.ape",   "self_attn.compressor.indexer.position_bias",          "",          ""],
    ["attn.indexer.compressor.norm",  "self_attn.compressor.indexer.kv_norm",                "",          ""],
    ["ffn.gate",                      "mlp.gate",                                            "",          ""],
    ["ffn.gate.bias",                 "mlp.gate.e_score_correction_bias",                    "",          "ffn.gate.e_score_correction_bias"],
    ["ffn.gate.tid2eid",              "mlp.gate.tid2eid",                                    "",          ""],
    ["ffn.shared_experts.w1",         "mlp.shared_experts.gate_proj",                        "",          "ffn.shared_experts.gate_proj"],
    ["ffn.shared_experts.w2",         "mlp.shared_experts.down_proj",                        "",          "ffn.shared_experts.down_proj"],
    ["ffn.shared_experts.w3",         "mlp.shared_experts.up_proj",                          "",          "ffn.shared_experts.up_proj"],
];

/// Tensors of a block of the vision tower, below `vision.blocks.B.`.
const VISION_BLOCK: [Row; 2] = [["mlp.w1", "", "", "ffn.w1"], ["mlp.w2", "", "", "ffn.w2"]];

/// An expert's matrix: its official name, its Transformers name where experts are stored one by
/// one, the tensor of all experts in Transformers and which half of each expert's rows it is, and
/// the tensor of all experts in mlx-vlm.
#[rustfmt::skip]
const EXPERT: [(&str, &str, &str, Part, &str); 3] = [
    ("w1", "gate_proj", "gate_up_proj", Part::Gate,  "gate_proj"),
    ("w2", "down_proj", "down_proj",    Part::Whole, "down_proj"),
    ("w3", "up_proj",   "gate_up_proj", Part::Up,    "up_proj"),
];

/// Which rows of an expert's slice of a fused tensor are wanted.
#[derive(Clone, Copy)]
pub(super) enum Part {
    /// All of them.
    Whole,
    /// The first half.
    Gate,
    /// The second half.
    Up,
}

/// What to do with a stored tensor to get the canonical one.
#[derive(Clone, Copy)]
pub(super) enum Pick {
    /// Nothing.
    AsStored,
    /// Fold a leading dimension of groups into the rows: `[g, r, c]` becomes `[g*r, c]`.
    Flatten,
    /// Take one expert's rows of `[experts, rows, columns]`.
    Expert(usize, Part),
}

/// Finds tensors by their canonical name in a checkpoint of any dialect.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    checkpoint: &'a Checkpoint,
}

impl<'a> Weights<'a> {
    /// The weights of `checkpoint`.
    pub fn new(checkpoint: &'a Checkpoint) -> Self {
        Self { checkpoint }
    }

    /// The checkpoint they are in.
    pub fn checkpoint(self) -> &'a Checkpoint {
        self.checkpoint
    }

    /// The tensor canonically called `name`, e.g. `layers.3.ffn.experts.17.w1.weight` (V4) or
    /// `model.layers.3.mlp.experts.17.gate_proj.weight` (the others), with its canonical shape. If
    /// it is missing, the error lists every name it was looked for under.
    pub fn get(self, name: &str) -> Result<TensorView<'a>> {
        if let Some(view) = self.find(name)? {
            return Ok(view);
        }
        let tried = self.spellings(name).into_iter().filter(|(tried, _)| tried != name);
        let others: Vec<_> = tried.map(|(tried, _)| format!("`{tried}`")).collect();
        Err(Error::tensor(
            name,
            match others.as_slice() {
                [] => "not in the checkpoint".to_owned(),
                others => format!("not in the checkpoint, nor as {}", others.join(", ")),
            },
        ))
    }

    /// As [`Self::get`], but `None` if the tensor is missing. An error means that it is there but
    /// in a fused tensor of the wrong shape.
    pub fn find(self, name: &str) -> Result<Option<TensorView<'a>>> {
        let mut spellings = self.spellings(name).into_iter();
        spellings
            .find_map(|(spelling, pick)| Some((self.checkpoint.get(&spelling)?, pick)))
            .map(|(view, pick)| apply(view, pick))
            .transpose()
    }

    /// Whether the tensor canonically called `name` is there under any of its names.
    pub fn contains(self, name: &str) -> bool {
        self.spellings(name).iter().any(|(spelling, _)| self.checkpoint.contains(spelling))
    }

    /// The name in the files of the tensor canonically called `name`, if it is there; that of the
    /// tensor it is a part of, where experts are fused.
    pub fn stored_name(self, name: &str) -> Option<String> {
        let mut spellings = self.spellings(name).into_iter().map(|(spelling, _)| spelling);
        spellings.find(|spelling| self.checkpoint.contains(spelling))
    }

    /// Every name the tensor canonically called `name` may have in files of this kind, and how to
    /// get it from the tensor of that name.
    fn spellings(self, name: &str) -> Vec<(String, Pick)> {
        match self.checkpoint.gguf() {
            Some(_) => gguf::spellings(name),
            None => spellings(name),
        }
    }
}

/// Every name the tensor canonically called `name` may have in safetensors files, the canonical one
/// first. A name in no table has only itself.
fn spellings(name: &str) -> Vec<(String, Pick)> {
    let mut found = vec![(name.to_owned(), Pick::AsStored)];
    let numbered = |prefix: &str| name.strip_prefix(prefix)?.split_once('.');
    if let Some((layer, tail)) = numbered("layers.") {
        let pick = if tail == "attn.wo_a.weight" { Pick::Flatten } else { Pick::AsStored };
        for (tail, prefix) in row(&LAYER, tail).into_iter().zip(PREFIXES) {
            found.push((format!("{prefix}layers.{layer}.{tail}"), pick));
        }
        if let Some(expert) = tail.strip_prefix("ffn.experts.") {
            found.extend(expert_spellings(layer, expert));
        }
    } else if let Some((layer, tail)) = numbered("model.layers.") {
        if let Some(expert) = tail.strip_prefix("mlp.experts.") {
            found.extend(expert_spellings(layer, expert));
        }
    } else if let Some((block, tail)) = numbered("vision.blocks.") {
        for tail in row(&VISION_BLOCK, tail) {
            found.push((format!("vision.blocks.{block}.{tail}"), Pick::AsStored));
        }
    } else {
        found.extend(row(&TOP, name).into_iter().map(|name| (name, Pick::AsStored)));
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|(name, _)| seen.insert(name.clone()));
    found
}

/// The four spellings of `name` by the table, or of `name` itself if the table lacks it.
fn row(table: &[Row], name: &str) -> [String; 4] {
    let find = |name: &str| table.iter().find(|row| row[0] == name);
    let (stem, leaf, row) = match (find(name), name.rsplit_once('.')) {
        (None, Some((stem, leaf))) => (stem, Some(leaf), find(stem)),
        (row, _) => (name, None, row),
    };
    std::array::from_fn(|dialect| {
        let other = row.map_or("", |row| row[dialect]);
        let stem = if other.is_empty() { stem } else { other };
        match leaf {
            None => stem.to_owned(),
            // Only the renamed Transformers modules rename their scales.
            Some("scale") if dialect == 1 && row.is_some() => format!("{stem}.weight_scale_inv"),
            Some(leaf) => format!("{stem}.{leaf}"),
        }
    })
}

/// The names other than the canonical one of an expert's matrix in layer `layer`, `tail` being e.g.
/// `17.w1.weight` of the official name or `17.gate_proj.weight` of Hugging Face's.
fn expert_spellings(layer: &str, tail: &str) -> Vec<(String, Pick)> {
    let parsed = || {
        let (expert, rest) = tail.split_once('.')?;
        let (matrix, leaf) = rest.split_once('.')?;
        let row = EXPERT.iter().find(|row| row.0 == matrix || row.1 == matrix)?;
        Some((expert.parse::<usize>().ok()?, row, leaf, row.0 == matrix))
    };
    let Some((expert, &(_, single, fused, part, stacked), leaf, official)) = parsed() else {
        return Vec::new();
    };
    let transformers = format!("model.layers.{layer}.mlp.experts");
    let (single_leaf, fused_leaf) = match leaf {
        "weight" => ("weight", ""),
        "scale" | "weight_scale_inv" => ("weight_scale_inv", "_scale_inv"),
        _ => return Vec::new(),
    };
    let mut found = vec![
        (format!("{transformers}.{expert}.{single}.{single_leaf}"), Pick::AsStored),
        (format!("{transformers}.{fused}{fused_leaf}"), Pick::Expert(expert, part)),
    ];
    if official && leaf == "weight" {
        let mlx = format!("language_model.model.layers.{layer}.ffn.switch_mlp.{stacked}.weight");
        found.push((mlx, Pick::Expert(expert, Part::Whole)));
    }
    found
}

/// Makes the canonical tensor from the stored one.
fn apply(view: TensorView<'_>, pick: Pick) -> Result<TensorView<'_>> {
    match pick {
        Pick::AsStored => Ok(view),
        Pick::Flatten => match view.shape[..] {
            // Cannot overflow: reading the header multiplied the dimensions in this order, checked.
            [groups, rows, columns] => {
                Ok(TensorView { shape: vec![groups * rows, columns], ..view })
            }
            _ => Ok(view),
        },
        Pick::Expert(expert, part) => {
            let &[experts, rows, _] = view.shape.as_slice() else {
                let what =
                    format!("its shape is {:?}, expected [experts, rows, columns]", view.shape);
                return Err(view.error(what));
            };
            if expert >= experts {
                let what = format!("expert {expert} asked for, it has {experts}");
                return Err(view.error(what));
            }
            let whole = view.row(expert)?;
            let (start, part) = match part {
                Part::Whole => return Ok(whole),
                Part::Gate => (0, "gate"),
                Part::Up => (rows / 2, "up"),
            };
            if !rows.is_multiple_of(2) {
                return Err(view.error(format_args!("{rows} rows do not halve into gate and up")));
            }
            whole.rows(start, rows / 2, format!("{} ({part})", whole.name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::{Dtype, TensorView as Raw, serialize};

    fn checkpoint(tensors: &[(&str, &[usize])]) -> Checkpoint {
        let bytes: Vec<u8> = (0..=255).collect();
        let views = tensors.iter().map(|(name, shape)| {
            let len = shape.iter().product();
            (*name, Raw::new(Dtype::U8, shape.to_vec(), &bytes[..len]).unwrap())
        });
        Checkpoint::from_static("{}", serialize(views, None).unwrap().leak()).unwrap()
    }

    #[test]
    fn fused_experts_are_cut_into_their_matrices() {
        let c = checkpoint(&[
            ("model.layers.0.mlp.experts.gate_up_proj", &[2, 4, 3]),
            ("model.layers.0.mlp.experts.down_proj", &[2, 3, 2]),
        ]);
        let w = Weights::new(&c);
        let gate = w.get("layers.0.ffn.experts.1.w1.weight").unwrap();
        assert_eq!(
            (gate.shape.as_slice(), gate.bytes),
            (&[2, 3][..], &[12, 13, 14, 15, 16, 17][..])
        );
        assert_eq!(gate.name, "model.layers.0.mlp.experts.gate_up_proj[1] (gate)");
        let up = w.get("layers.0.ffn.experts.1.w3.weight").unwrap();
        assert_eq!((up.shape.as_slice(), up.bytes), (&[2, 3][..], &[18, 19, 20, 21, 22, 23][..]));
        let down = w.get("layers.0.ffn.experts.0.w2.weight").unwrap();
        assert_eq!((down.shape.as_slice(), down.bytes), (&[3, 2][..], &[0, 1, 2, 3, 4, 5][..]));
        let e = w.get("layers.0.ffn.experts.2.w2.weight").unwrap_err().to_string();
        assert!(e.ends_with("down_proj`: expert 2 asked for, it has 2"), "{e}");
    }

    /// Hugging Face's names are canonical for the families before V4.
    #[test]
    fn fused_experts_are_found_by_hugging_face_names() {
        let c = checkpoint(&[
            ("model.layers.3.mlp.experts.gate_up_proj", &[2, 4, 3]),
            ("model.layers.4.mlp.experts.1.gate_proj.weight", &[2, 3]),
            ("model.layers.4.mlp.experts.1.gate_proj.weight_scale_inv", &[1]),
        ]);
        let w = Weights::new(&c);
        let up = w.get("model.layers.3.mlp.experts.1.up_proj.weight").unwrap();
        assert_eq!((up.shape.as_slice(), up.bytes), (&[2, 3][..], &[18, 19, 20, 21, 22, 23][..]));
        assert!(w.contains("model.layers.4.mlp.experts.1.gate_proj.weight"));
        assert!(w.contains("model.layers.4.mlp.experts.1.gate_proj.weight_scale_inv"));
        assert_eq!(
            w.get("model.layers.4.mlp.experts.0.down_proj.weight").unwrap_err().to_string(),
            "tensor `model.layers.4.mlp.experts.0.down_proj.weight`: not in the checkpoint, nor \
             as `model.layers.4.mlp.experts.down_proj`"
        );
    }

    #[test]
    fn fused_experts_of_a_wrong_shape_are_refused() {
        let c = checkpoint(&[
            ("model.layers.0.mlp.experts.gate_up_proj", &[2, 3, 1]),
            ("model.layers.0.mlp.experts.down_proj", &[2, 3]),
        ]);
        let w = Weights::new(&c);
        let odd = w.get("layers.0.ffn.experts.0.w1.weight").unwrap_err().to_string();
        assert!(odd.contains("3 rows do not halve"), "{odd}");
        let flat = w.get("layers.0.ffn.experts.0.w2.weight").unwrap_err().to_string();
        assert!(flat.contains("its shape is [2, 3], expected [experts, rows, columns]"), "{flat}");
    }

    #[test]
    fn scales_are_found_beside_renamed_weights() {
        let c = checkpoint(&[
            ("model.layers.1.self_attn.q_a_proj.weight_scale_inv", &[1]),
            ("model.layers.1.mlp.experts.0.up_proj.weight_scale_inv", &[2]),
            ("layers.2.attn.wq_a.scale", &[3]),
        ]);
        let w = Weights::new(&c);
        assert!(w.contains("layers.1.attn.wq_a.scale"));
        assert!(w.contains("layers.1.ffn.experts.0.w3.scale"));
        assert!(w.contains("layers.2.attn.wq_a.scale"));
        assert!(!w.contains("layers.1.attn.wq_a.weight"));
    }

    #[test]
    fn grouped_output_projections_are_flattened() {
        let c = checkpoint(&[("language_model.model.layers.0.attn.wo_a.weight", &[2, 3, 4])]);
        let view = Weights::new(&c).get("layers.0.attn.wo_a.weight").unwrap();
        assert_eq!((view.shape.as_slice(), view.bytes.len()), (&[6, 4][..], 24));
    }

    #[test]
    fn a_missing_tensor_lists_every_name_tried() {
        let c = checkpoint(&[]);
        let w = Weights::new(&c);
        assert_eq!(
            w.get("layers.0.ffn.experts.1.w1.weight").unwrap_err().to_string(),
            "tensor `layers.0.ffn.experts.1.w1.weight`: not in the checkpoint, nor as \
             `model.layers.0.ffn.experts.1.w1.weight`, \
             `language_model.model.layers.0.ffn.experts.1.w1.weight`, \
             `model.layers.0.mlp.experts.1.gate_proj.weight`, \
             `model.layers.0.mlp.experts.gate_up_proj`, \
             `language_model.model.layers.0.ffn.switch_mlp.gate_proj.weight`"
        );
        assert_eq!(
            w.get("head.weight").unwrap_err().to_string(),
            "tensor `head.weight`: not in the checkpoint, nor as `lm_head.weight`, \
             `language_model.lm_head.weight`"
        );
        assert_eq!(
            w.get("image_start").unwrap_err().to_string(),
            "tensor `image_start`: not in the checkpoint"
        );
        assert!(w.find("layers.0.attn.kv_norm.weight").unwrap().is_none());
    }
}
