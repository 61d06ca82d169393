//! The wrappers that users know by name: one generic type, one table row each.

use std::marker::PhantomData;
use std::ops::Deref;
use std::path::Path;

use crate::gguf::Gguf;
use crate::model::{Architecture, ModelConfig};
use crate::tokenizer::Tokenizer;

use super::{DeviceChoice, InferError, LoadOptions, Model, TextModel};

/// What a wrapper accepts.
#[derive(Debug, PartialEq, Eq)]
pub struct ModelRow {
    /// The model's name, for messages.
    pub name: &'static str,
    /// The family that its files must hold.
    pub architecture: Architecture,
}

/// A kind of model that has a wrapper.
pub trait ModelKind: Send + Sync + 'static {
    /// Its row of [`MODELS`].
    const ROW: &'static ModelRow;
}

macro_rules! models {
    ($($(#[$doc:meta])* $wrapper:ident, $kind:ident, $name:literal, $architecture:ident;)*) => {
        /// One row per wrapper.
        pub static MODELS: &[&ModelRow] = &[$($kind::ROW),*];
        $(
            #[doc = concat!("Marks ", $name, ".")]
            #[derive(Debug)]
            pub enum $kind {}
            impl ModelKind for $kind {
                const ROW: &'static ModelRow =
                    &ModelRow { name: $name, architecture: Architecture::$architecture };
            }
            $(#[$doc])*
            pub type $wrapper = Typed<$kind>;
        )*
    };
}

models! {
    /// Phi-3-mini and its kin.
    Phi3, Phi3Kind, "Phi-3", Phi3;
    /// Phi-4 and Phi-4-mini: their files say `phi3`.
    Phi4, Phi4Kind, "Phi-4", Phi3;
    /// Llama and TinyLlama.
    Llama, LlamaKind, "Llama", Llama;
    /// Llama 3.1.
    Llama31, Llama31Kind, "Llama 3.1", Llama;
    /// SmolLM2: its files say `llama`.
    SmolLm2, SmolLm2Kind, "SmolLM2", Llama;
    /// Qwen2 and Qwen2.5.
    Qwen2, Qwen2Kind, "Qwen2", Qwen2;
    /// Qwen3.
    Qwen3, Qwen3Kind, "Qwen3", Qwen3;
}

/// Loads models of phi3 architecture into memory.
pub type Phi3WeightLoader = WeightLoader<Phi3Kind>;
/// Loads models of llama architecture into memory.
pub type LlamaWeightLoader = WeightLoader<LlamaKind>;
/// Loads models of qwen2 architecture into memory.
pub type Qwen2WeightLoader = WeightLoader<Qwen2Kind>;
/// Loads models of qwen3 architecture into memory.
pub type Qwen3WeightLoader = WeightLoader<Qwen3Kind>;

/// Refuses a file of another family.
fn expect_kind<K: ModelKind>(path: &Path, gguf: &Gguf) -> Result<ModelConfig, InferError> {
    let config = ModelConfig::from_gguf(gguf).map_err(|error| InferError::of_model(path, error))?;
    if config.architecture == K::ROW.architecture {
        return Ok(config);
    }
    let found = config.architecture;
    let fitting = MODELS.iter().find(|row| row.architecture == found).map_or("another", |row| row.name);
    Err(InferError::WrongArchitecture {
        path: path.to_path_buf(),
        found: found.name().to_owned(),
        expected: format!("{} (`{}`)", K::ROW.name, K::ROW.architecture.name()),
        hint: format!("load it as {fitting}"),
    })
}

fn open(path: &Path) -> Result<Gguf, InferError> {
    Gguf::open(path).map_err(|error| InferError::of_model(path, error))
}

/// The tokenizer of a GGUF file, of a `tokenizer.json`, or of a folder that holds one.
///
/// # Errors
/// The file is missing or unsound.
pub fn open_tokenizer(path: &Path) -> Result<Tokenizer, InferError> {
    Ok(if path.extension().is_some_and(|extension| extension == "gguf") {
        Tokenizer::from_metadata(open(path)?.metadata())?
    } else {
        Tokenizer::from_json(path)?
    })
}

/// Loads the weights of one kind of model.
#[derive(Debug)]
pub struct WeightLoader<K>(PhantomData<K>);

impl<K: ModelKind> WeightLoader<K> {
    /// Loads a model onto the first device that can run it, after checking that the file holds the model that `config`
    /// describes. The context is the model's own, at most [`LoadOptions::DEFAULT_CONTEXT`] tokens.
    ///
    /// # Errors
    /// The file is missing, unsound, or holds another model; or it does not fit: then nothing was allocated.
    pub fn load_to_vram(path: impl AsRef<Path>, config: &ModelConfig) -> Result<Model, InferError> {
        Self::load_to(path, config, &LoadOptions::default())
    }

    /// The same, onto a device and with a context of the caller's choice.
    ///
    /// # Errors
    /// As for [`WeightLoader::load_to_vram`]; and the device cannot be used.
    pub fn load_to(
        path: impl AsRef<Path>,
        config: &ModelConfig,
        options: &LoadOptions,
    ) -> Result<Model, InferError> {
        let path = path.as_ref();
        let gguf = open(path)?;
        let found = expect_kind::<K>(path, &gguf)?;
        config.expect_same_model(&found).map_err(|error| InferError::of_model(path, error))?;
        let mut model = Model::load_from(&gguf, path, options, &mut |_, _| {})?;
        model.add_ends_of(&gguf)?;
        Ok(model)
    }

    /// Bytes of all weights of a model at 16 bits each, without a cache. A quantised file takes less: see
    /// [`Model::plan`] for what a file really takes.
    pub fn calculate_vram_usage(config: &ModelConfig) -> u64 {
        2 * config.n_parameters()
    }
}

/// A model of one kind with its tokenizer. Clones share the model.
pub struct Typed<K> {
    model: TextModel,
    kind: PhantomData<K>,
}

impl<K: ModelKind> Typed<K> {
    /// Loads a model of this kind and its tokenizer onto a device.
    ///
    /// # Errors
    /// As for [`Typed::load`].
    pub fn new(
        model_path: impl AsRef<Path>,
        tokenizer_path: impl AsRef<Path>,
        device: DeviceChoice,
    ) -> Result<Self, InferError> {
        Self::load(model_path, tokenizer_path, &LoadOptions { device, ..LoadOptions::default() })
    }

    /// Loads a model of this kind, and a tokenizer: a `tokenizer.json` or a folder that holds one, a GGUF file, or an
    /// empty path for the one in the model's own file.
    ///
    /// # Errors
    /// A file is missing or unsound, holds another kind of model, or does not fit.
    pub fn load(
        model_path: impl AsRef<Path>,
        tokenizer_path: impl AsRef<Path>,
        options: &LoadOptions,
    ) -> Result<Self, InferError> {
        let (path, tokenizer_path) = (model_path.as_ref(), tokenizer_path.as_ref());
        let gguf = open(path)?;
        expect_kind::<K>(path, &gguf)?;
        let tokenizer = if tokenizer_path.as_os_str().is_empty() {
            Tokenizer::from_metadata(gguf.metadata())?
        } else {
            open_tokenizer(tokenizer_path)?
        };
        let model = Model::load_from(&gguf, path, options, &mut |_, _| {})?;
        Ok(Self { model: TextModel::new(model, tokenizer)?, kind: PhantomData })
    }
}

impl<K> Deref for Typed<K> {
    type Target = TextModel;
    fn deref(&self) -> &TextModel {
        &self.model
    }
}

impl<K> Clone for Typed<K> {
    fn clone(&self) -> Self {
        Self { model: self.model.clone(), kind: PhantomData }
    }
}

impl<K: ModelKind> std::fmt::Debug for Typed<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({:?})", K::ROW.name, self.model)
    }
}
