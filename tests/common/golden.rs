//! The golden models and their references.

use std::path::PathBuf;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

/// One model file with its references.
pub struct Case {
    pub name: String,
    pub model: PathBuf,
    pub prompts: Vec<Prompt>,
}

/// One prompt of a case.
pub struct Prompt {
    pub name: String,
    pub tokens: Vec<u32>,
    /// The exact model's logits of every row, or of the last rows of a long prompt.
    pub logits: Vec<f32>,
    /// The exact model's greedy continuation.
    pub greedy: Vec<u32>,
    /// How far each token of it was before the second best.
    pub margins: Vec<f32>,
}

/// Where the golden models are: in the tree, and where the environment says.
pub fn folders() -> Vec<PathBuf> {
    let mut folders = vec![super::root().join("tests/golden")];
    folders.extend(std::env::var_os("WORKER_ORCD_GOLDEN").map(PathBuf::from));
    folders
}

/// Every model there is, each once.
pub fn cases() -> Vec<Case> {
    let mut models = std::collections::BTreeMap::new();
    for folder in folders() {
        for case in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let Ok(files) = std::fs::read_dir(case) else { continue };
            for file in files.map(|entry| entry.unwrap().path()) {
                if file.extension().is_some_and(|extension| extension == "gguf") {
                    models.entry(file.file_name().unwrap().to_owned()).or_insert(file);
                }
            }
        }
    }
    let cases: Vec<Case> = models.into_values().map(read).collect();
    assert!(cases.len() >= 15, "only {} golden models", cases.len());
    cases
}

fn read(model: PathBuf) -> Case {
    let bytes = std::fs::read(model.with_extension("ref.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut prompts = Vec::new();
    for name in ["p1", "p7", "p40", "p300"] {
        let Ok(tokens) = tensors.tensor(&format!("{name}.tokens")) else { continue };
        let tensor = |what: &str| tensors.tensor(&format!("{name}.{what}")).unwrap();
        prompts.push(Prompt {
            name: name.to_owned(),
            tokens: integers(&tokens),
            logits: floats(&tensor("hf_logits")),
            greedy: integers(&tensor("hf_greedy")),
            margins: floats(&tensor("hf_greedy_margin")),
        });
    }
    let name = model.file_stem().unwrap().to_string_lossy().into_owned();
    Case { name, model, prompts }
}

fn floats(tensor: &TensorView<'_>) -> Vec<f32> {
    assert_eq!(tensor.dtype(), safetensors::Dtype::F32);
    tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn integers(tensor: &TensorView<'_>) -> Vec<u32> {
    match tensor.dtype() {
        safetensors::Dtype::I32 => {
            tensor.data().as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
        }
        safetensors::Dtype::I64 => {
            tensor.data().as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes) as u32).collect()
        }
        other => panic!("token ids of type {other:?}"),
    }
}

/// `|got - expected| / |expected|`.
pub fn relative_l2(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let difference = norm(&mut got.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut expected.iter().map(|value| f64::from(*value)))
}

/// The first of the largest.
pub fn argmax(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (index, value)| if *value > row[best] { index } else { best })
}
