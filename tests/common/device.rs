//! The devices that tests run on.

use worker_orcd::inference::DeviceChoice;

/// The devices at hand: the processor, the emulator where it is built in, and what `WORKER_ORCD_TEST_DEVICE` names.
pub fn devices() -> Vec<DeviceChoice> {
    let mut devices = vec![DeviceChoice::Cpu];
    devices.extend(kernel_devices());
    devices
}

/// Those that run kernels.
pub fn kernel_devices() -> Vec<DeviceChoice> {
    let mut names: Vec<String> = std::env::var("WORKER_ORCD_TEST_DEVICE").into_iter().collect();
    if cfg!(feature = "emulator") {
        names.push("emulator".to_owned());
    }
    names.dedup();
    names.iter().map(|name| name.parse().unwrap()).filter(|device| *device != DeviceChoice::Cpu).collect()
}

/// [`kernel_devices`], or a line that says that there is none. `WORKER_ORCD_REQUIRE_GPU` makes that a failure.
pub fn kernel_devices_or_skip(test: &str) -> Vec<DeviceChoice> {
    let devices = kernel_devices();
    if devices.is_empty() {
        assert!(std::env::var_os("WORKER_ORCD_REQUIRE_GPU").is_none(), "{test}: no device with kernels");
        println!(
            "{test}: skipped, no device with kernels: build with --features emulator or set WORKER_ORCD_TEST_DEVICE"
        );
    }
    devices
}
