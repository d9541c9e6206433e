//! The optimiser of a training where its memory is: on the host or on the device of the model.
//!
//! Both do the same steps up to rounding, and checkpoints carry the same state, so that a training may go on with the other.

use std::borrow::Cow;

use burn::tensor::{Device, Gradients, Tensor};

use super::bert_adam::BertAdam;
use super::device_adam::{self, DeviceAdam, DeviceGradients, device_gradients};
use super::exchange::Exchange;
use super::precision::LossScale;
use crate::distributed::{Collective, CollectiveError};
use crate::model::{Vlp, host_values};

/// The optimiser, and the gradients of the batches since its last step.
#[derive(Debug)]
pub struct Optimizer {
    adam: Adam,
    /// Where the engine or the exchange has them, flat.
    sum: DeviceGradients,
    /// Without autodiff.
    device: Device,
}

#[derive(Debug)]
enum Adam {
    /// One pass per parameter over host memory.
    Host(BertAdam),
    /// Flat tensors on the device.
    Device(Box<DeviceAdam>),
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
        let adam = match on_device {
            false => Adam::Host(adam),
            true => Adam::Device(Box::new(DeviceAdam::new(adam, device))),
        };
        Self { adam, sum: DeviceGradients::new(), device: device.clone().inner() }
    }

    /// Learning rate of a parameter that has had `steps` updates.
    pub fn learning_rate(&self, steps: u64) -> f64 {
        match &self.adam {
            Adam::Host(adam) => adam.learning_rate(steps),
            Adam::Device(adam) => adam.learning_rate(steps),
        }
    }

    /// The state, as checkpoints have it.
    pub fn state(&self) -> Cow<'_, BertAdam> {
        match &self.adam {
            Adam::Host(adam) => Cow::Borrowed(adam),
            Adam::Device(adam) => Cow::Owned(adam.to_host()),
        }
    }

    /// Takes the gradients of a batch, and adds them to those that wait for the next step.
    pub fn add(&mut self, model: &Vlp, gradients: &mut Gradients) {
        self.add_values(device_gradients(model, gradients));
    }

    /// Adds gradients to those that wait for the next step.
    pub fn add_values(&mut self, gradients: DeviceGradients) {
        device_adam::accumulate(&mut self.sum, gradients);
    }

    /// With several ranks, before the forward pass of the last batch of a step: the exchange of what was added and of what this batch finds.
    pub fn begin_exchange(&mut self, model: &Vlp) -> Exchange {
        Exchange::begin(model, std::mem::take(&mut self.sum))
    }

    /// The backward pass of that batch: behind it the means over all ranks wait for the step; `bf16`: they were exchanged in bfloat16.
    ///
    /// # Errors
    /// A lost peer; a rank with gradients of other parameters.
    pub fn add_exchanged(
        &mut self,
        exchange: Exchange,
        model: &Vlp,
        loss: Tensor<1>,
        group: &mut dyn Collective,
        bf16: bool,
    ) -> Result<(), CollectiveError> {
        let home = matches!(self.adam, Adam::Device(_)).then_some(&self.device);
        self.sum = exchange.backward(model, loss, group, bf16, home)?;
        Ok(())
    }

    /// One step with the gradients that wait for it; `scale`: the factor on the loss, which is taken out. Ranks with the same means decide
    /// the same: none when gradients overflow, and the model is the old one.
    pub fn step(&mut self, model: Vlp, scale: Option<&mut LossScale>) -> (Vlp, Option<Norm>) {
        let mut gradients = std::mem::take(&mut self.sum);
        match &mut self.adam {
            // They stay where the backward pass or the exchange put them.
            Adam::Host(adam) if scale.is_none() => {
                let (model, norm) = adam.step_with(model, &gradients);
                (model, Some(Norm::Known(norm)))
            }
            Adam::Host(adam) => {
                let mut gradients = device_adam::to_host(gradients);
                if let Some(scale) = &scale {
                    scale.remove_from(&mut gradients);
                }
                if scale.is_some_and(|scale| !scale.update(&gradients)) {
                    return (model, None);
                }
                let (model, norm) = adam.step(model, gradients);
                (model, Some(Norm::Known(norm)))
            }
            Adam::Device(adam) => {
                if let Some(scale) = &scale {
                    device_adam::scale(&mut gradients, 1.0 / scale.factor);
                }
                if scale.is_some_and(|scale| !scale.note(device_adam::all_finite(&gradients))) {
                    return (model, None);
                }
                let (model, norm) = adam.step(model, gradients);
                (model, Some(Norm::OnDevice(Box::new(norm))))
            }
        }
    }
}
