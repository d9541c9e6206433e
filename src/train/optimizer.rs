//! The optimiser of a training where its memory is: on the host or on the device of the model.
//!
//! Both do the same steps up to rounding, and checkpoints carry the same state, so that a training may go on with the other.

use std::borrow::Cow;

use burn::tensor::{Device, Gradients, Tensor};

use super::bert_adam::{self, BertAdam, HostGradients, host_gradients};
use super::device_adam::{self, DeviceAdam, DeviceGradients, device_gradients};
use super::precision::LossScale;
use crate::distributed::{Collective, CollectiveError, all_reduce_mean_of};
use crate::model::{Vlp, host_values};

/// The optimiser, and the gradients of the batches since its last step.
#[derive(Debug)]
pub enum Optimizer {
    /// One pass per parameter over host memory.
    Host(BertAdam, HostGradients),
    /// Flat tensors on the device.
    Device(DeviceAdam, DeviceGradients, Device),
}

/// The norm of all gradients of a step before clipping.
#[derive(Debug, Clone)]
pub enum Norm {
    /// A number; infinite for a step that was left out.
    Known(f64),
    /// `[1]`, still to be read.
    OnDevice(Box<Tensor<1>>),
}

impl Norm {
    /// The number; waits for the device.
    pub fn value(self) -> f64 {
        match self {
            Self::Known(value) => value,
            Self::OnDevice(tensor) => f64::from(host_values(*tensor)[0]),
        }
    }
}

impl Optimizer {
    /// Goes on with the state of `adam`; `on_device` says where.
    pub fn new(adam: BertAdam, on_device: bool, device: &Device) -> Self {
        match on_device {
            false => Self::Host(adam, HostGradients::new()),
            true => Self::Device(DeviceAdam::new(adam, device), DeviceGradients::new(), device.clone().inner()),
        }
    }

    /// Learning rate of a parameter that has had `steps` updates.
    pub fn learning_rate(&self, steps: u64) -> f64 {
        match self {
            Self::Host(adam, _) => adam.learning_rate(steps),
            Self::Device(adam, ..) => adam.learning_rate(steps),
        }
    }

    /// The state, as checkpoints have it.
    pub fn state(&self) -> Cow<'_, BertAdam> {
        match self {
            Self::Host(adam, _) => Cow::Borrowed(adam),
            Self::Device(adam, ..) => Cow::Owned(adam.to_host()),
        }
    }

    /// Takes the gradients of a batch, and adds them to those that wait for the next step.
    pub fn add(&mut self, model: &Vlp, gradients: &mut Gradients) {
        match self {
            Self::Host(_, sum) => bert_adam::accumulate(sum, host_gradients(model, gradients)),
            Self::Device(_, sum, _) => device_adam::accumulate(sum, device_gradients(model, gradients)),
        }
    }

    /// One step with the mean over all ranks of the gradients that were added; `scale`: the factor on the loss, which is taken out. All ranks
    /// have the same mean and decide the same: none when gradients overflow, and the model is the old one.
    ///
    /// # Errors
    /// A lost peer; a rank with gradients of other parameters.
    pub fn step(
        &mut self,
        model: Vlp,
        group: &mut dyn Collective,
        bf16: bool,
        scale: Option<&mut LossScale>,
    ) -> Result<(Vlp, Option<Norm>), CollectiveError> {
        match self {
            Self::Host(adam, sum) => {
                let mut gradients = std::mem::take(sum);
                if let Some(scale) = &scale {
                    scale.remove_from(&mut gradients);
                }
                all_reduce_mean_of(group, &mut gradients, bf16)?;
                if scale.is_some_and(|scale| !scale.update(&gradients)) {
                    return Ok((model, None));
                }
                let (model, norm) = adam.step(model, gradients);
                Ok((model, Some(Norm::Known(norm))))
            }
            Self::Device(adam, sum, device) => {
                let mut gradients = std::mem::take(sum);
                if let Some(scale) = &scale {
                    device_adam::scale(&mut gradients, 1.0 / scale.factor);
                }
                if group.world_size() > 1 {
                    let mut host = device_adam::to_host(gradients);
                    all_reduce_mean_of(group, &mut host, bf16)?;
                    gradients = device_adam::from_host(host, device);
                }
                if scale.is_some_and(|scale| !scale.note(device_adam::all_finite(&gradients))) {
                    return Ok((model, None));
                }
                let (model, norm) = adam.step(model, gradients);
                Ok((model, Some(Norm::OnDevice(Box::new(norm)))))
            }
        }
    }
}
