//! Verification of a device by its name.

use crate::device::Launch;
use crate::ops::kernel::KernelOps;
use crate::ops::reference::{InstructionSet, ReferenceOps};
use crate::ops::{Ops, OpsError};
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
    let device = device.resolve()?;
    let n_threads = n_threads(threads)?;
    let best = ReferenceOps::new(n_threads).map_err(failed)?;
    let mut verification = Verification { options, report };
    match device {
        Usable::Cpu => {
            let portable =
                ReferenceOps::with_instruction_set(n_threads, InstructionSet::Portable).map_err(failed)?;
            verification.run(&best, &portable, Arithmetic::Single)
        }
        Usable::Cuda(ordinal) => verification.run_kernels(gpu(ordinal)?, &best),
        #[cfg(feature = "emulator")]
        Usable::Emulator => verification.run_kernels(emulator(threads)?, &best),
    }
}

fn failed(error: OpsError) -> InferError {
    crate::forward::EngineError::from(error).into()
}

/// What is verified, and who is told.
struct Verification<'a> {
    options: &'a VerifyOptions,
    report: &'a mut dyn FnMut(&Check),
}

impl Verification<'_> {
    fn run<O: Ops>(
        &mut self,
        subject: &O,
        reference: &ReferenceOps,
        arithmetic: Arithmetic,
    ) -> Result<(), InferError> {
        verify::verify(subject, reference, arithmetic, self.options, self.report).map_err(failed)
    }
    fn run_kernels<D: Launch>(&mut self, device: D, reference: &ReferenceOps) -> Result<(), InferError> {
        self.run(&KernelOps::without_recording(device), reference, Arithmetic::FixedPoint)
    }
}
