//! A `config.json` of any family.
#![no_main]

use std::path::Path;

use fathom_fuzz::formats::ModelConfig;
use fathom_fuzz::one_line;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match ModelConfig::parse(Path::new("config.json"), text) {
    Ok(config) => {
        let sizes = (config.hidden(), config.layers(), config.heads(), config.head_dim());
        assert!(sizes.0 > 0 && sizes.1 > 0 && sizes.2 > 0 && sizes.3 > 0, "{sizes:?}");
        assert!(config.eos().iter().all(|&id| (id as usize) < config.vocab()));
    }
    Err(error) => one_line(&error),
});
