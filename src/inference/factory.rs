//! The factory: a device, and a method for each kind of model.

use std::path::Path;

use super::{
    DeviceChoice, InferError, Llama, Llama31, LoadOptions, ModelKind, Phi3, Phi4, Qwen2, Qwen3, SmolLm2,
    Typed,
};

/// Stands for the tokenizer in the model's own file, where a tokenizer path is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenizerFromModel;

impl AsRef<Path> for TokenizerFromModel {
    fn as_ref(&self) -> &Path {
        Path::new("")
    }
}

/// Loads models onto one device.
///
/// ```no_run
/// # async fn example(model_path: &str, tokenizer_path: &str) -> Result<(), worker_orcd::InferError> {
/// let inference = worker_orcd::Inference::cuda(0)?;               // or ::cpu(), ::auto()
/// let phi3 = inference.use_phi3(model_path, tokenizer_path)?;
/// let text = phi3.forward("Hello", 32).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inference {
    options: LoadOptions,
}

macro_rules! use_methods {
    ($($method:ident -> $wrapper:ident, $name:literal;)*) => {
        impl Inference {
            $(
                #[doc = concat!("Loads a ", $name, " model and its tokenizer, from a `tokenizer.json`, a folder that holds")]
                /// one, a GGUF file, or [`TokenizerFromModel`].
                ///
                /// # Errors
                /// A file is missing or unsound, holds another kind of model, or does not fit.
                pub fn $method(
                    &self,
                    model_path: impl AsRef<Path>,
                    tokenizer_path: impl AsRef<Path>,
                ) -> Result<$wrapper, InferError> {
                    self.load(model_path, tokenizer_path)
                }
            )*
        }
    };
}

use_methods! {
    use_phi3 -> Phi3, "Phi-3";
    use_phi4 -> Phi4, "Phi-4 or Phi-4-mini";
    use_llama -> Llama, "Llama";
    use_llama31 -> Llama31, "Llama 3.1";
    use_smolm2 -> SmolLm2, "SmolLM2";
    use_qwen2 -> Qwen2, "Qwen2 or Qwen2.5";
    use_qwen3 -> Qwen3, "Qwen3";
}

impl Inference {
    /// Models on the host's processor.
    pub fn cpu() -> Self {
        Self::on(DeviceChoice::Cpu)
    }

    /// Models on the GPU of this number.
    ///
    /// # Errors
    /// This build has no kernels, or there is no such GPU.
    pub fn cuda(ordinal: usize) -> Result<Self, InferError> {
        let device = DeviceChoice::Cuda(ordinal);
        device.resolve()?;
        Ok(Self::on(device))
    }

    /// Models on the first GPU that can be used, else on the processor.
    pub fn auto() -> Self {
        Self::on(DeviceChoice::Auto)
    }

    fn on(device: DeviceChoice) -> Self {
        Self { options: LoadOptions { device, ..LoadOptions::default() } }
    }

    /// The same device with other options for loading; `options.device` is not looked at.
    #[must_use]
    pub fn with_options(self, options: LoadOptions) -> Self {
        Self { options: LoadOptions { device: self.options.device, ..options } }
    }

    /// The device.
    pub fn device(&self) -> DeviceChoice {
        self.options.device
    }

    /// Loads a model of any kind that has a wrapper.
    ///
    /// # Errors
    /// A file is missing or unsound, holds another kind of model, or does not fit.
    pub fn load<K: ModelKind>(
        &self,
        model_path: impl AsRef<Path>,
        tokenizer_path: impl AsRef<Path>,
    ) -> Result<Typed<K>, InferError> {
        Typed::load(model_path, tokenizer_path, &self.options)
    }
}
