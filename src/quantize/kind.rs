//! Which format each tensor of a quantized model gets, by the conventions of llama.cpp.

use clap::ValueEnum;

use crate::formats::{BlockFormat, DType};

/// A kind of quantized model: most of its weights have one format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// 8.5 bits a weight: hardly to be told from the original
    #[value(name = "q8_0")]
    Q8_0,
    /// 6.6 bits a weight
    #[value(name = "q6_k")]
    Q6K,
    /// 4.5 bits a weight, some matrices in Q6_K: llama.cpp's Q4_K_M
    #[value(name = "q4_k")]
    Q4K,
    /// 4.5 bits a weight, simpler and less exact than q4_k
    #[value(name = "q4_0")]
    Q4_0,
    /// 4.25 bits a weight: the experts of a mixture, which has the rest in Q8_0
    #[value(name = "mxfp4")]
    MXFP4,
    /// 16 bits a weight
    #[value(name = "f16")]
    F16,
    /// 16 bits a weight, with the range of f32
    #[value(name = "bf16")]
    BF16,
    /// Not quantized
    #[value(name = "f32")]
    F32,
}

/// Matrices that stay in F32: small, and what follows depends much on them.
const KEPT: [&str; 5] = ["_norm.", "ffn_gate_inp.", "hc_", "_ape.", "rope_freqs."];

/// What a choice of formats depends on beside the tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    /// The kind of model to make.
    pub kind: Kind,
    /// Its layers.
    pub layers: usize,
    /// Whether the embedding table is the head too.
    pub tied: bool,
    /// Whether it has experts.
    pub experts: bool,
}

/// A tensor's format, and the one that was wanted if its rows do not consist of whole blocks of that.
pub(super) type Choice = (DType, Option<DType>);

impl Kind {
    /// The number that says this in a file's `general.file_type`.
    pub fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q4K => 15,
            Self::Q6K => 18,
            Self::BF16 => 32,
            Self::MXFP4 => 38,
        }
    }

    /// The format of most weights.
    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::BF16 => DType::BF16,
            Self::Q4_0 => DType::Block(BlockFormat::Q4_0),
            Self::Q8_0 => DType::Block(BlockFormat::Q8_0),
            Self::Q4K => DType::Block(BlockFormat::Q4K),
            Self::Q6K => DType::Block(BlockFormat::Q6K),
            Self::MXFP4 => DType::Block(BlockFormat::MXFP4),
        }
    }
}

impl Context {
    /// The format of the tensor called `name` in the file to be made, `stored` so far.
    pub fn choose(&self, name: &str, shape: &[usize], stored: DType) -> Choice {
        // Tables of integers.
        if matches!(stored, DType::I64 | DType::I32) {
            return (DType::I32, None);
        }
        let matrix = shape.len() > 1 && name.ends_with(".weight");
        if !matrix || KEPT.iter().any(|kept| name.contains(kept)) {
            return (DType::F32, None);
        }
        let wanted = self.wanted(name, shape.len());
        let cols = shape.last().copied().unwrap_or_default();
        let chosen = fitting(wanted, cols);
        (chosen, (chosen != wanted).then_some(wanted))
    }

    fn wanted(&self, name: &str, dimensions: usize) -> DType {
        let (q8_0, q6_k) = (DType::Block(BlockFormat::Q8_0), DType::Block(BlockFormat::Q6K));
        let table = name == "token_embd.weight";
        let head = name == "output.weight" || (self.tied && table);
        match self.kind {
            Kind::MXFP4 if head => q8_0,
            // Of a model without experts all matrices of layers are meant.
            Kind::MXFP4 if self.experts && !(dimensions == 3 && name.contains("_exps.")) => q8_0,
            Kind::MXFP4 if table => q8_0,
            Kind::Q4_0 | Kind::Q4K if head => q6_k,
            Kind::Q4K if self.sensitive(name) => q6_k,
            kind => kind.dtype(),
        }
    }

    /// Whether this is a matrix that loses much, in a layer where that matters much.
    fn sensitive(&self, name: &str) -> bool {
        let parsed = name.strip_prefix("blk.").and_then(|name| name.split_once('.'));
        let Some((layer, tail)) = parsed else { return false };
        let Ok(layer) = layer.parse::<usize>() else { return false };
        let eighth = self.layers / 8;
        let layer_matters =
            layer < eighth || layer >= 7 * self.layers / 8 || (layer - eighth) % 3 == 2;
        let tails = ["attn_v.", "attn_kv_b.", "ffn_down."];
        layer_matters
            && (tails.iter().any(|t| tail.starts_with(t)) || tail.starts_with("ffn_down_"))
    }
}

/// `wanted`, or what takes its place where rows of `cols` do not consist of its blocks: a format with
/// smaller blocks and more bits, or F16.
fn fitting(wanted: DType, cols: usize) -> DType {
    use BlockFormat::{Q4K, Q5_0, Q6K, Q8_0};
    let smaller = match wanted {
        _ if wanted.byte_len(cols).is_some() => return wanted,
        DType::Block(Q4K) => DType::Block(Q5_0),
        DType::Block(Q6K) => DType::Block(Q8_0),
        _ => DType::F16,
    };
    if smaller.byte_len(cols).is_some() { smaller } else { DType::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(kind: Kind) -> Context {
        Context { kind, layers: 16, tied: false, experts: true }
    }

    /// The names of the formats chosen for tensors with rows of 512.
    fn chosen<const N: usize>(context: Context, names: [&str; N]) -> [&'static str; N] {
        names.map(|name| context.choose(name, &[8, 512], DType::BF16).0.name())
    }

    #[test]
    fn sensitive_matrices_get_more_bits() {
        let names = ["output.weight", "token_embd.weight", "blk.0.attn_v.weight"];
        assert_eq!(chosen(context(Kind::Q4K), names), ["Q6_K", "Q4_K", "Q6_K"]);
        assert_eq!(chosen(context(Kind::Q8_0), names), ["Q8_0"; 3]);
        assert_eq!(chosen(context(Kind::Q4_0), names), ["Q6_K", "Q4_0", "Q4_0"]);
        let tied = Context { tied: true, ..context(Kind::Q4K) };
        assert_eq!(chosen(tied, names)[1], "Q6_K");
        let down: Vec<bool> = (0..16)
            .map(|l| chosen(context(Kind::Q4K), [&format!("blk.{l}.ffn_down.weight")]) == ["Q6_K"])
            .collect();
        let more: Vec<usize> = (0..16).filter(|&l| down[l]).collect();
        assert_eq!(more, [0, 1, 4, 7, 10, 13, 14, 15]);
    }

    #[test]
    fn small_tensors_stay_as_they_are() {
        let kept = ["blk.0.ffn_gate_inp.weight", "blk.0.hc_attn_fn.weight", "blk.0.attn_q.bias"];
        assert_eq!(chosen(context(Kind::Q4K), kept), ["F32"; 3]);
        let c = context(Kind::Q4K);
        assert_eq!(c.choose("blk.0.attn_norm.weight", &[512], DType::F16), (DType::F32, None));
        let table = "blk.0.ffn_gate_tid2eid.weight";
        assert_eq!(c.choose(table, &[9, 512], DType::I64), (DType::I32, None));
    }

    #[test]
    fn rows_that_blocks_do_not_fit_get_smaller_blocks() {
        let c = context(Kind::Q4K);
        let of = |name, cols| c.choose(name, &[8, cols], DType::F32);
        let block = DType::Block;
        assert_eq!(
            of("blk.5.attn_q.weight", 576),
            (block(BlockFormat::Q5_0), Some(block(BlockFormat::Q4K)))
        );
        assert_eq!(
            of("output.weight", 576),
            (block(BlockFormat::Q8_0), Some(block(BlockFormat::Q6K)))
        );
        assert_eq!(of("blk.5.attn_q.weight", 50), (DType::F16, Some(block(BlockFormat::Q4K))));
    }

    #[test]
    fn mxfp4_is_for_experts() {
        let c = context(Kind::MXFP4);
        let of =
            |c: Context, name: &str, shape: &[usize]| c.choose(name, shape, DType::F32).0.name();
        assert_eq!(of(c, "blk.1.ffn_up_exps.weight", &[4, 8, 64]), "MXFP4");
        assert_eq!(of(c, "blk.1.attn_k_b.weight", &[4, 8, 64]), "Q8_0");
        assert_eq!(of(c, "blk.1.ffn_up_shexp.weight", &[8, 64]), "Q8_0");
        let dense = Context { experts: false, ..c };
        assert_eq!(of(dense, "blk.1.ffn_up.weight", &[8, 64]), "MXFP4");
        assert_eq!(of(dense, "token_embd.weight", &[8, 64]), "Q8_0");
    }
}
