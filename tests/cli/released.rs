//! `fathom inspect` on models as DeepSeek released them: all of a folder but the weights' bytes,
//! which are holes in sparse files. `scripts/fixtures/v4_flash_headers.py` makes the same folders.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::fathom;

const VOCABULARY: usize = 129_280;
const HEAD: usize = 512;

/// What V4-Flash and V4-Pro do not share.
struct Sizes {
    hidden: usize,
    layers: usize,
    heads: usize,
    rank: usize,
    groups: usize,
    topk: usize,
    experts: usize,
    inter: usize,
    scale: f32,
    /// Ratio of the first two layers.
    first: usize,
}

const FLASH: Sizes = Sizes {
    hidden: 4096,
    layers: 43,
    heads: 64,
    rank: 1024,
    groups: 8,
    topk: 512,
    experts: 256,
    inter: 2048,
    scale: 1.5,
    first: 0,
};

const PRO: Sizes = Sizes {
    hidden: 7168,
    layers: 61,
    heads: 128,
    rank: 1536,
    groups: 16,
    topk: 1024,
    experts: 384,
    inter: 3072,
    scale: 2.5,
    first: 128,
};

impl Sizes {
    /// Tokens a compressed entry of a layer stands for.
    fn ratio(&self, layer: usize) -> usize {
        match layer {
            0 | 1 => self.first,
            layer if layer.is_multiple_of(2) => 4,
            _ => 128,
        }
    }

    fn config(&self) -> Value {
        let ratios = (0..self.layers).map(|layer| self.ratio(layer)).chain([0]);
        let mut config = json!({
            "architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4",
            "hidden_size": self.hidden, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": 1, "head_dim": HEAD,
            "qk_rope_head_dim": 64, "q_lora_rank": self.rank, "o_groups": self.groups,
            "o_lora_rank": 1024, "sliding_window": 128,
            "compress_ratios": ratios.collect::<Vec<_>>(),
            "index_n_heads": 64, "index_head_dim": 128, "index_topk": self.topk,
            "hc_mult": 4, "hc_sinkhorn_iters": 20, "hc_eps": 1e-6,
            "n_routed_experts": self.experts, "num_experts_per_tok": 6, "n_shared_experts": 1,
            "moe_intermediate_size": self.inter, "num_hash_layers": 3,
            "routed_scaling_factor": self.scale, "scoring_func": "sqrtsoftplus",
            "topk_method": "noaux_tc", "norm_topk_prob": true, "swiglu_limit": 10.0,
        });
        let rest = json!({
            "vocab_size": VOCABULARY, "tie_word_embeddings": false,
            "bos_token_id": 0, "eos_token_id": 1,
            "rope_theta": 10000, "compress_rope_theta": 160_000,
            "rope_scaling": {
                "type": "yarn", "factor": 16, "original_max_position_embeddings": 65536,
                "beta_fast": 32, "beta_slow": 1,
            },
            "max_position_embeddings": 1_048_576, "rms_norm_eps": 1e-6, "expert_dtype": "fp4",
            "quantization_config": {
                "quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128],
                "scale_fmt": "ue8m0",
            },
            "num_nextn_predict_layers": 1,
        });
        for (name, value) in rest.as_object().unwrap() {
            config[name] = value.clone();
        }
        config
    }

    /// The folder, of one shard for the embedding, each layer, the head and the drafter.
    fn folder(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut shards = vec![Shard::default()];
        shards[0].add("embed.weight", "BF16", &[VOCABULARY, self.hidden]);
        for layer in 0..self.layers {
            let mut shard = Shard::default();
            shard.layer(&format!("layers.{layer}"), self, self.ratio(layer), layer < 3);
            shards.push(shard);
        }
        let mut last = Shard::default();
        last.end("", self);
        last.add("head.weight", "BF16", &[VOCABULARY, self.hidden]);
        let mut drafter = Shard::default();
        drafter.layer("mtp.0", self, 0, false);
        drafter.fp8("mtp.0.e_proj", self.hidden, self.hidden);
        drafter.fp8("mtp.0.h_proj", self.hidden, self.hidden);
        drafter.add("mtp.0.enorm.weight", "BF16", &[self.hidden]);
        drafter.add("mtp.0.hnorm.weight", "BF16", &[self.hidden]);
        drafter.end("mtp.0.", self);
        shards.extend([last, drafter]);

        let mut map = Map::new();
        for (i, shard) in shards.iter().enumerate() {
            let name = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
            shard.write(&folder.path().join(&name));
            map.extend(shard.header.keys().map(|tensor| (tensor.clone(), json!(name))));
        }
        let write = |name: &str, json: Value| {
            std::fs::write(folder.path().join(name), json.to_string()).unwrap();
        };
        write("model.safetensors.index.json", json!({ "weight_map": map }));
        write("config.json", self.config());
        folder
    }
}

/// A safetensors file in the making.
#[derive(Default)]
struct Shard {
    header: Map<String, Value>,
    bytes: usize,
    /// Where tables of expert ids begin.
    tables: Vec<usize>,
}

impl Shard {
    fn add(&mut self, name: &str, dtype: &str, shape: &[usize]) {
        let size = match dtype {
            "BF16" => 2,
            "F32" => 4,
            "I64" => 8,
            _ => 1,
        };
        if dtype == "I64" {
            self.tables.push(self.bytes);
        }
        let end = self.bytes + size * shape.iter().product::<usize>();
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [self.bytes, end] });
        self.header.insert(name.into(), entry);
        self.bytes = end;
    }

    fn fp8(&mut self, name: &str, rows: usize, columns: usize) {
        self.add(&format!("{name}.weight"), "F8_E4M3", &[rows, columns]);
        let blocks = [rows.div_ceil(128), columns.div_ceil(128)];
        self.add(&format!("{name}.scale"), "F8_E8M0", &blocks);
    }

    fn fp4(&mut self, name: &str, rows: usize, columns: usize) {
        self.add(&format!("{name}.weight"), "I8", &[rows, columns / 2]);
        self.add(&format!("{name}.scale"), "F8_E8M0", &[rows, columns / 32]);
    }

    fn compressor(&mut self, name: &str, width: usize, ratio: usize, hidden: usize) {
        let wide = if ratio == 4 { 2 * width } else { width };
        self.add(&format!("{name}.wkv.weight"), "BF16", &[wide, hidden]);
        self.add(&format!("{name}.wgate.weight"), "BF16", &[wide, hidden]);
        self.add(&format!("{name}.ape"), "F32", &[ratio, wide]);
        self.add(&format!("{name}.norm.weight"), "BF16", &[width]);
    }

    fn layer(&mut self, p: &str, s: &Sizes, ratio: usize, hashed: bool) {
        let (hidden, out) = (s.hidden, s.groups * 1024);
        for block in ["attn", "ffn"] {
            self.add(&format!("{p}.{block}_norm.weight"), "BF16", &[hidden]);
            self.add(&format!("{p}.hc_{block}_fn"), "F32", &[24, 4 * hidden]);
            self.add(&format!("{p}.hc_{block}_base"), "F32", &[24]);
            self.add(&format!("{p}.hc_{block}_scale"), "F32", &[3]);
        }
        self.fp8(&format!("{p}.attn.wq_a"), s.rank, hidden);
        self.add(&format!("{p}.attn.q_norm.weight"), "BF16", &[s.rank]);
        self.fp8(&format!("{p}.attn.wq_b"), s.heads * HEAD, s.rank);
        self.fp8(&format!("{p}.attn.wkv"), HEAD, hidden);
        self.add(&format!("{p}.attn.kv_norm.weight"), "BF16", &[HEAD]);
        self.add(&format!("{p}.attn.attn_sink"), "F32", &[s.heads]);
        self.fp8(&format!("{p}.attn.wo_a"), out, s.heads * HEAD / s.groups);
        self.fp8(&format!("{p}.attn.wo_b"), hidden, out);
        if ratio > 0 {
            self.compressor(&format!("{p}.attn.compressor"), HEAD, ratio, hidden);
        }
        if ratio == 4 {
            let indexer = format!("{p}.attn.indexer");
            self.fp8(&format!("{indexer}.wq_b"), 64 * 128, s.rank);
            self.add(&format!("{indexer}.weights_proj.weight"), "BF16", &[64, hidden]);
            self.compressor(&format!("{indexer}.compressor"), 128, ratio, hidden);
        }
        self.add(&format!("{p}.ffn.gate.weight"), "BF16", &[s.experts, hidden]);
        if hashed {
            self.add(&format!("{p}.ffn.gate.tid2eid"), "I64", &[VOCABULARY, 6]);
        } else {
            self.add(&format!("{p}.ffn.gate.bias"), "F32", &[s.experts]);
        }
        for expert in 0..s.experts {
            self.fp4(&format!("{p}.ffn.experts.{expert}.w1"), s.inter, hidden);
            self.fp4(&format!("{p}.ffn.experts.{expert}.w2"), hidden, s.inter);
            self.fp4(&format!("{p}.ffn.experts.{expert}.w3"), s.inter, hidden);
        }
        self.fp8(&format!("{p}.ffn.shared_experts.w1"), s.inter, hidden);
        self.fp8(&format!("{p}.ffn.shared_experts.w2"), hidden, s.inter);
        self.fp8(&format!("{p}.ffn.shared_experts.w3"), s.inter, hidden);
    }

    fn end(&mut self, p: &str, s: &Sizes) {
        self.add(&format!("{p}norm.weight"), "BF16", &[s.hidden]);
        self.add(&format!("{p}hc_head_fn"), "F32", &[4, 4 * s.hidden]);
        self.add(&format!("{p}hc_head_base"), "F32", &[4]);
        self.add(&format!("{p}hc_head_scale"), "F32", &[1]);
    }

    /// Writes the header, a hole for the data, and into tables of ids one that no expert has:
    /// whoever looks at the data stumbles over it.
    fn write(&self, path: &Path) {
        let mut header = Value::Object(self.header.clone()).to_string();
        header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
        let mut file = File::create(path).unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        let data = file.stream_position().unwrap();
        file.set_len(data + self.bytes as u64).unwrap();
        for &table in &self.tables {
            file.seek(SeekFrom::Start(data + table as u64)).unwrap();
            file.write_all(&[0xff; 8]).unwrap();
        }
    }
}

/// DeepSeek gives the model as 284 B parameters, 13 B of them active. By config.json, in millions,
/// 4096 wide:
///
/// | | |
/// |---|---|
/// | routed experts | 43 layers x 256 x 3 x 4096 x 2048 = 277,025 |
/// | shared experts | 43 x 3 x 4096 x 2048 = 1,082 |
/// | attention | 43 x (1024 x 4096 + 64 x 512 x 1024 + 512 x 4096 + 8192 x 4096 + 4096 x 8192) = 4,599 |
/// | embedding, head | 2 x 129280 x 4096 = 1,059 |
/// | CSA compressors, indexers | 21 x (2 x 1024 x 4096 + 8192 x 1024 + 64 x 4096 + 2 x 256 x 4096) = 402 |
/// | HCA compressors | 20 x 2 x 512 x 4096 = 84 |
/// | routers, stream mixing | 43 x (256 x 4096 + 2 x 24 x 4 x 4096) = 79 |
///
/// together 284,330, and 2 more of norms, position biases and the like. A token meets 6 of 256
/// experts and one row of the embedding: 277,025 x 250/256 and 529 less, 13,270.
#[test]
#[cfg_attr(windows, ignore = "files with holes take their full size")]
fn v4_flash() {
    let folder = FLASH.folder();
    let report = fathom(["inspect", "--json"]).arg(folder.path()).json();
    let millions = |name: &str| (report[name].as_f64().unwrap() / 1e6).round();
    assert_eq!(millions("parameters"), 284_332.0);
    assert_eq!(millions("active_parameters"), 13_270.0);
    assert_eq!(report["layers"], 43);
    assert_eq!(report["tensors"], 69187);

    // A block of 32 FP4 codes and its scale take 17 bytes; FP8 takes a byte, and one for 128x128.
    let experts = 43u64 * 256 * 3 * 4096 * 2048;
    assert_eq!(report["bytes_by_format"]["FP4"], experts / 32 * 17);
    let attention = 1024u64 * 4096 + 32768 * 1024 + 512 * 4096 + 2 * 8192 * 4096;
    let fp8 = 43u64 * (attention + 3 * 4096 * 2048) + 21 * 8192 * 1024;
    assert_eq!(report["bytes_by_format"]["FP8"], fp8 + fp8 / (128 * 128));
    assert_eq!(report["bytes_by_format"]["I64"], 3 * 8 * 6 * VOCABULARY);

    let groups = report["layer_groups"].as_array().unwrap();
    let layers = |kind: &str| -> Vec<u64> {
        let of_kind = groups.iter().filter(|group| group["kind"] == kind);
        let layers = of_kind.flat_map(|group| group["layers"].as_array().unwrap());
        layers.map(|layer| layer.as_u64().unwrap()).collect()
    };
    assert_eq!(layers("window"), [0, 1]);
    assert_eq!(layers("CSA"), (1..22).map(|i| 2 * i).collect::<Vec<_>>());
    assert_eq!(layers("HCA"), (1..21).map(|i| 2 * i + 1).collect::<Vec<_>>());
    for group in groups {
        assert_eq!(group["expert_formats"], json!(["FP4"]));
        let hashed = group["layers"][0].as_u64().unwrap() < 3;
        let others = ["BF16", "F32", "FP8", "I64"];
        assert_eq!(group["other_formats"], json!(others[..3 + usize::from(hashed)]));
    }

    // The graph for it can be built without reading any weight, and keeps what the files have.
    assert_eq!(report["not_runnable_because"], Value::Null);
    let stored: u64 =
        report["bytes_by_format"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    let kept = report["memory"]["weight_bytes"].as_f64().unwrap();
    assert!((kept / stored as f64 - 1.0).abs() < 0.01, "{kept} of {stored} bytes");

    // A drafter of one layer: as many experts as any, and 39 tensors else.
    assert_eq!(report["unused_tensors"], 256 * 6 + 39);
    let unused = report["unused_bytes"].as_u64().unwrap();
    assert!((3_500_000_000..3_700_000_000).contains(&unused), "{unused}");
    let text = fathom(["inspect", "--context", "1000000"]).arg(folder.path()).succeeds();
    assert!(text.contains("not used: the drafter (MTP, DSpark), 1575 tensors, 3."), "{text}");
    assert!(text.contains("memory at 1000000 tokens of context"), "{text}");
    assert!(text.contains("20 CSA (4-42 by 2): BF16 F32 FP8; experts FP4"), "{text}");
}

/// Given as 1.6 T parameters, 49 B of them active.
#[test]
#[cfg_attr(windows, ignore = "files with holes take their full size")]
fn v4_pro() {
    let folder = PRO.folder();
    let report = fathom(["inspect", "--json"]).arg(folder.path()).json();
    let billions = |name: &str| report[name].as_f64().unwrap() / 1e9;
    assert_eq!((billions("parameters") / 100.0).round(), 16.0);
    assert_eq!(billions("active_parameters").round(), 49.0);
    assert_eq!([&report["csa_layers"], &report["hca_layers"]], [30, 31]);
}
