//! `config.json` of Llama and Qwen2.

use super::config::{flag, token_ids};
use super::config_rope::{Rope, rope};
use super::fields::Fields;
use crate::Result;

/// Dimensions and constants of a model without experts.
#[derive(Clone, Debug, PartialEq)]
pub struct DenseConfig {
    /// Whether it is a Qwen2 rather than a Llama.
    pub qwen2: bool,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads. A multiple of `kv_heads`.
    pub heads: usize,
    /// Heads of keys and values; neighbouring query heads share one.
    pub kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Width inside the feed-forward.
    pub inter: usize,
    /// Whether the projections to queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether attention's output projection has a bias.
    pub o_bias: bool,
    /// Whether the feed-forward's matrices have biases.
    pub mlp_bias: bool,
    /// Rotary embedding.
    pub rope: Rope,
    /// Whether pairs that rotate together are neighbours rather than halves of a head: the order of
    /// GGUF files, whose converter permutes Llama's matrices (`fathom_rope_interleaved`).
    pub rope_interleaved: bool,
    /// Token ids the embedding table knows.
    pub vocab: usize,
    /// Whether the head is the embedding table.
    pub tied: bool,
    /// Most tokens a sequence may have.
    pub max_context: usize,
    /// Added to the mean square in norms.
    pub eps: f32,
    /// Id of the token that begins a text.
    pub bos: Option<u32>,
    /// Ids of the tokens that end an answer.
    pub eos: Vec<u32>,
}

impl DenseConfig {
    /// Reads a config that is known to be Llama's.
    pub(super) fn read_llama(f: &Fields<'_>) -> Result<Self> {
        let mut config = Self::read(f, 2048)?;
        config.qkv_bias = flag(f, "attention_bias", false)?;
        config.o_bias = config.qkv_bias;
        config.mlp_bias = flag(f, "mlp_bias", false)?;
        if !f.has(&["bos_token_id"]) {
            config.bos = Some(1);
        }
        if config.eos.is_empty() {
            config.eos.push(2);
        }
        Ok(config)
    }

    /// Reads a config that is known to be Qwen2's.
    pub(super) fn read_qwen2(f: &Fields<'_>) -> Result<Self> {
        let config = Self { qwen2: true, qkv_bias: true, ..Self::read(f, 32768)? };
        let first = f.count(&["max_window_layers"])?.unwrap_or(28);
        let kinds: Vec<String> = f.get(&["layer_types"], "a list of texts")?.unwrap_or_default();
        if kinds.iter().any(|kind| kind != "full_attention") {
            return Err(f.error("layer_types", "only \"full_attention\" is supported"));
        }
        if flag(f, "use_sliding_window", false)? && first < config.layers && kinds.is_empty() {
            return Err(f.error("use_sliding_window", "windows of attention are not supported"));
        }
        Ok(config)
    }

    /// What both have.
    fn read(f: &Fields<'_>, max_context: usize) -> Result<Self> {
        f.fixed("hidden_act", "silu")?;
        let (hidden, heads) = (f.size(&["hidden_size"])?, f.size(&["num_attention_heads"])?);
        let (vocab, max_context) =
            (f.size(&["vocab_size"])?, f.size_or(&["max_position_embeddings"], max_context)?);
        let head_dim = f.size_or(&["head_dim"], hidden / heads)?;
        let config = Self {
            qwen2: false,
            hidden,
            layers: f.size(&["num_hidden_layers"])?,
            heads,
            kv_heads: f.size_or(&["num_key_value_heads"], heads)?,
            head_dim,
            inter: f.size(&["intermediate_size"])?,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            rope: rope(f, head_dim, max_context)?,
            rope_interleaved: flag(f, "fathom_rope_interleaved", false)?,
            vocab,
            tied: flag(f, "tie_word_embeddings", false)?,
            max_context,
            eps: f.positive(&["rms_norm_eps"])?.unwrap_or(1e-6),
            bos: token_ids(f, "bos_token_id", vocab)?.first().copied(),
            eos: token_ids(f, "eos_token_id", vocab)?,
        };
        if !heads.is_multiple_of(config.kv_heads) {
            let what = format!("does not divide the {heads} query heads");
            return Err(f.error("num_key_value_heads", what));
        }
        if config.head_dim == 0 || !config.head_dim.is_multiple_of(2) {
            let name = if f.has(&["head_dim"]) { "head_dim" } else { "num_attention_heads" };
            let what = format!("heads of {}: expected an even number above 0", config.head_dim);
            return Err(f.error(name, what));
        }
        Ok(config)
    }
}
