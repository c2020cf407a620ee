//! Copies of tensors on devices whose memory is not the host's.

use crate::device::{Device, DeviceError, Memory};
use crate::error::Result;
use crate::execute::on_device;
use crate::tensor::Tensor;
use crate::tensor::storage::Storage;
use std::sync::Arc;

/// A copy of a tensor's bytes.
pub(crate) struct Resident {
    /// Name of the device.
    pub(crate) device: String,
    pub(crate) memory: Arc<dyn Memory>,
}

impl Storage {
    /// Copies the bytes to a device's memory: from a copy there, from one on a device that it reaches, or from the host.
    pub(crate) fn copy_to(&self, device: &dyn Device, to: &mut dyn Memory) -> Result<(), DeviceError> {
        match self.copy_for(device) {
            Some(copy) => device.copy(to, &*copy),
            None => device.write(to, 0, self.fetched()?),
        }
    }

    /// A copy of the bytes in new memory of a device, from where [`copy_to`](Storage::copy_to) takes them.
    pub(crate) fn copy_on_new(&self, device: &dyn Device) -> Result<Box<dyn Memory>, DeviceError> {
        match self.copy_for(device) {
            Some(copy) => device.duplicate(&*copy, self.len()),
            None => device.upload(self.fetched()?),
        }
    }
}

impl Tensor {
    /// The same tensor, with a copy of its elements on a device: functions that run there take them from the copy instead of
    /// copying them from the host in each call. From a copy on another NVIDIA GPU the elements are copied directly. The copy
    /// lives as long as the elements do, and a tensor may have one on each of several devices. To a device that works in the
    /// host's memory, as a CPU does, nothing is copied but what another device has computed: see
    /// [`to_host`](Tensor::to_host). Realizes the tensor.
    ///
    /// ```
    /// # use winograph::{Tensor, cpu::{CpuDevice, CpuOptions}};
    /// let x = Tensor::arange(0f32, 4.0, 1.0)?.to(&CpuDevice::new(CpuOptions::default())?)?;
    /// assert_eq!(x.to_vec::<f32>()?, [0.0, 1.0, 2.0, 3.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// No memory on the device, a device that fails, and those of [`realize`](Tensor::realize).
    pub fn to(&self, device: &dyn Device) -> Result<Tensor> {
        let op = "to";
        self.realize()?;
        let data = self.data(op)?;
        if device.is_host() {
            return self.to_host();
        }
        if data.copy_on(device.name()).is_none() {
            let copy = data.copy_on_new(device).map_err(on_device(op))?;
            data.keep_copy(Resident { device: device.name().to_string(), memory: Arc::from(copy) });
        }
        Ok(self.clone())
    }

    /// The same tensor, with its elements on the host: what a device has computed and nobody has read yet is waited for and
    /// copied. Copies on devices stay where they are. Realizes the tensor.
    ///
    /// # Errors
    /// No memory, a device that has failed, and those of [`realize`](Tensor::realize).
    pub fn to_host(&self) -> Result<Tensor> {
        let op = "to_host";
        self.realize()?;
        self.data(op)?.bytes(op)?;
        Ok(self.clone())
    }
}
