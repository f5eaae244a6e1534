//! Writes a model as a GGUF file in another precision, a piece at a time: memory holds a few rows of
//! one tensor, whatever the model's size.

mod file;
mod from_folder;
mod from_gguf;
mod kind;
mod metadata;
mod rows;
mod source;
mod tokenizer;

use std::collections::BTreeMap;
use std::io::BufWriter;
use std::ops::Range;
use std::path::Path;

use half::{bf16, f16};
use rayon::prelude::*;
use serde::Serialize;

use crate::formats::{Checkpoint, DType, GgufWriter, TensorInfo, Value};
use crate::{Error, Result};
use file::NewFile;
pub use kind::Kind;
use kind::{Choice, Context};
use source::{Planned, Source};

/// About how many numbers a thread quantizes at a time.
const TASK: usize = 1 << 18;
/// Tasks between two writes.
const TASKS: usize = 32;
/// Bytes copied at a time.
const COPY: usize = 1 << 24;

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Bytes of tensor data.
    pub bytes: u64,
    /// Numbers in all tensors.
    pub parameters: u64,
    /// Tensors.
    pub tensors: usize,
    /// Bytes of tensor data by format.
    pub bytes_by_format: BTreeMap<&'static str, u64>,
    /// Tensors whose rows do not consist of whole blocks of the format they should have had.
    pub fallbacks: Vec<Fallback>,
    /// Whether weights that were quantized already were quantized again.
    pub requantized: bool,
    /// Tensors that the file lacks: the drafter's, and what is for pictures.
    pub left_out: usize,
}

/// A tensor that got another format than it should have.
#[derive(Clone, Debug, Serialize)]
pub struct Fallback {
    /// Its name in the file.
    pub tensor: String,
    /// Numbers of a row.
    pub row: usize,
    /// The format it should have had.
    pub wanted: &'static str,
    /// The format it got.
    pub got: &'static str,
}

/// What the new file will have.
struct Plan {
    metadata: Vec<(String, Value)>,
    tensors: Vec<Planned>,
    /// Tensors of the model that the file will lack.
    left_out: usize,
    /// What the choice of formats depends on.
    context: Context,
}

/// Writes the model `input`, a folder or a GGUF file, as the GGUF file `output`, which appears only
/// when it is complete. `progress` gets bytes written and bytes to write.
///
/// # Errors
/// If the model cannot be read or has no place in a GGUF file, a number does not fit its format, or
/// `output` cannot be written, or is there and `replace` is not set.
pub fn quantize(
    input: &Path,
    output: &Path,
    kind: Kind,
    replace: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report> {
    if output.extension().is_none_or(|e| !e.eq_ignore_ascii_case("gguf")) {
        return Err(Error::file(output, "the name of a GGUF file ends in .gguf"));
    }
    let checkpoint = Checkpoint::open(input)?;
    let file = NewFile::create(output, replace)?;
    let plan = match checkpoint.gguf() {
        Some(gguf) => from_gguf::plan(&checkpoint, gguf, kind)?,
        None => from_folder::plan(&checkpoint, input, kind)?,
    };
    write(&checkpoint, &plan, file, output, progress)
}

fn write(
    checkpoint: &Checkpoint,
    plan: &Plan,
    file: NewFile,
    output: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report> {
    let sources = plan.tensors.iter().map(|planned| Source::open(checkpoint, planned));
    let sources = sources.collect::<Result<Vec<_>>>()?;
    let pairs = || plan.tensors.iter().zip(&sources);
    let choose =
        |(p, s): (&Planned, &Source<'_>)| plan.context.choose(&p.name, &p.shape, s.stored());
    let choices: Vec<Choice> = pairs().map(choose).collect();
    let infos: Vec<TensorInfo> = plan
        .tensors
        .iter()
        .zip(&choices)
        .map(|(p, c)| TensorInfo { name: p.name.clone(), dtype: c.0, shape: p.shape.clone() })
        .collect();
    let report = report(pairs(), &choices, &infos).map_err(|what| Error::file(output, what))?;
    let report = Report { left_out: plan.left_out, ..report };

    let failed = |e| Error::io(output, e);
    let metadata = plan.metadata.iter().map(|(key, value)| (key.as_str(), value));
    let mut writer = GgufWriter::begin(BufWriter::new(file), metadata, &infos).map_err(failed)?;
    let mut done = 0;
    for (source, info) in sources.iter().zip(&infos) {
        each_piece(source, info.dtype, &mut |piece| {
            writer.data(piece).map_err(failed)?;
            done += piece.len() as u64;
            progress(done, report.bytes);
            checkpoint.release();
            Ok(())
        })?;
    }
    let file = writer.finish().map_err(failed)?;
    file.into_inner().map_err(|e| failed(e.into_error()))?.keep()?;
    Ok(report)
}

/// What will have been written.
fn report<'a>(
    pairs: impl Iterator<Item = (&'a Planned, &'a Source<'a>)>,
    choices: &[Choice],
    infos: &[TensorInfo],
) -> Result<Report, String> {
    let mut report = Report {
        bytes: 0,
        parameters: 0,
        tensors: infos.len(),
        bytes_by_format: BTreeMap::new(),
        fallbacks: vec![],
        requantized: false,
        left_out: 0,
    };
    for (((planned, source), choice), info) in pairs.zip(choices).zip(infos) {
        let bytes = info.bytes()?;
        report.bytes += bytes;
        report.parameters += (source.rows * source.cols) as u64;
        *report.bytes_by_format.entry(info.dtype.name()).or_default() += bytes;
        let quantized = matches!(source.stored(), DType::Block(_));
        report.requantized |= quantized && source.as_stored(info.dtype).is_none();
        if let (got, Some(wanted)) = *choice {
            report.fallbacks.push(Fallback {
                tensor: planned.name.clone(),
                row: source.cols,
                wanted: wanted.name(),
                got: got.name(),
            });
        }
    }
    Ok(report)
}

/// Hands out the data of a tensor in `dtype`, in order.
fn each_piece(
    source: &Source<'_>,
    dtype: DType,
    put: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    if let Some(mut parts) = source.as_stored(dtype) {
        return parts.try_for_each(|bytes| bytes.chunks(COPY).try_for_each(&mut *put));
    }
    let rows_a_task = (TASK / source.cols.max(1)).max(1);
    let starts: Vec<usize> = (0..source.rows).step_by(rows_a_task).collect();
    for starts in starts.chunks(TASKS) {
        let pieces = starts
            .par_iter()
            .map(|&first| encode(source, first..(first + rows_a_task).min(source.rows), dtype));
        for piece in pieces.collect::<Result<Vec<_>>>()? {
            put(&piece)?;
        }
    }
    Ok(())
}

/// Rows of a tensor in `dtype`.
fn encode(source: &Source<'_>, rows: Range<usize>, dtype: DType) -> Result<Vec<u8>> {
    if dtype == DType::I32 {
        return source.integers(rows);
    }
    let mut values = Vec::with_capacity(rows.len() * source.cols);
    source.read(rows, &mut values)?;
    let mut out = vec![];
    match dtype {
        DType::F32 => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        DType::BF16 => out.extend(values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes())),
        DType::F16 => {
            if let Some(v) = values.iter().find(|v| v.abs() > f16::MAX.to_f32()) {
                return Err(source.error(format!("holds {v}, which is too large for F16")));
            }
            out.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()));
        }
        DType::Block(format) => {
            for row in values.chunks_exact(source.cols) {
                format.quantize(row, &mut out).map_err(|what| source.error(what))?;
            }
        }
        other => return Err(source.error(format!("cannot be written as {other}"))),
    }
    Ok(out)
}
