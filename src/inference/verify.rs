//! Verification of a device by its name.

use crate::ops::kernel::KernelOps;
use crate::ops::reference::{InstructionSet, ReferenceOps};
use crate::verify::{self, Arithmetic, Check, VerifyOptions};

#[cfg(feature = "emulator")]
use super::runner::emulator;
use super::runner::{Usable, gpu, n_threads};
use super::{DeviceChoice, InferError};

/// Holds every operation of a device to the reference and reports each check; see [`crate::verify`]. On the processor, the
/// best instruction set is held to the portable one.
///
/// # Errors
/// The device cannot be used here, or failed. A wrong result is reported, not an error.
pub fn verify_device(
    device: DeviceChoice,
    threads: Option<usize>,
    options: &VerifyOptions,
    report: &mut dyn FnMut(&Check),
) -> Result<(), InferError> {
    let failed = |error: crate::ops::OpsError| InferError::from(crate::forward::EngineError::from(error));
    let n_threads = n_threads(threads)?;
    let best = ReferenceOps::new(n_threads).map_err(failed)?;
    match device.resolve()? {
        Usable::Cpu => {
            let portable =
                ReferenceOps::with_instruction_set(n_threads, InstructionSet::Portable).map_err(failed)?;
            verify::verify(&best, &portable, Arithmetic::Single, options, report)
        }
        Usable::Cuda(ordinal) => {
            let ops = KernelOps::new(gpu(ordinal)?);
            verify::verify(&ops, &best, Arithmetic::FixedPoint, options, report)
        }
        #[cfg(feature = "emulator")]
        Usable::Emulator => {
            let ops = KernelOps::new(emulator(threads)?);
            verify::verify(&ops, &best, Arithmetic::FixedPoint, options, report)
        }
    }
    .map_err(failed)
}
