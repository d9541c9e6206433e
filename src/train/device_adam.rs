//! BertAdam on the device of the model: the formulas of [`super::bert_adam`] over flat tensors, nothing over the host.
//!
//! Parameters with a gradient form groups of equal decay and equally many updates. Values, moments and gradients of a group are one
//! tensor each, so that a step is some ten operations per group, and per parameter its norm and its share of the clipping. A group is formed
//! anew when other parameters have gradients than in the step before. Norms are those of the engine's sums, which for large tensors are
//! nearer to the exact ones than the host's [`super::bert_adam::reference_norm`].

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};

use super::bert_adam::{BertAdam, HostGradients, Moments, decays, take_gradients};
use crate::model::vlp::reference_key;
use crate::model::{Vlp, host_values};

/// Gradients on the device, flat, by checkpoint name; parameters that the loss does not reach are absent.
pub type DeviceGradients = BTreeMap<String, Tensor<1>>;

/// Takes the parameters' gradients out of `gradients`.
pub fn device_gradients(model: &Vlp, gradients: &mut Gradients) -> DeviceGradients {
    take_gradients(model, gradients, |gradient| gradient)
}

/// Adds `more` to `sum`, parameter by parameter.
pub fn accumulate(sum: &mut DeviceGradients, more: DeviceGradients) {
    for (name, values) in more {
        let total = match sum.remove(&name) {
            None => values,
            Some(total) => total + values,
        };
        sum.insert(name, total);
    }
}

/// Multiplies all gradients by `factor`.
pub fn scale(gradients: &mut DeviceGradients, factor: f64) {
    for values in gradients.values_mut() {
        *values = values.clone().mul_scalar(factor);
    }
}

/// Whether all gradients are finite; waits for the device.
pub fn all_finite(gradients: &DeviceGradients) -> bool {
    // 0 · x is 0, or NaN where x is not finite.
    let zeros: Vec<Tensor<1>> = gradients.values().map(|values| values.clone().mul_scalar(0.0).sum()).collect();
    zeros.is_empty() || host_values(Tensor::cat(zeros, 0)).iter().all(|zero| *zero == 0.0)
}

/// The gradients on the host.
pub fn to_host(gradients: DeviceGradients) -> HostGradients {
    gradients.into_iter().map(|(name, values)| (name, host_values(values))).collect()
}

/// The gradients on `device`.
pub fn from_host(gradients: HostGradients, device: &Device) -> DeviceGradients {
    gradients.into_iter().map(|(name, values)| (name, flat(values, device))).collect()
}

fn flat(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}

/// Parameters that are updated together.
#[derive(Debug, Clone)]
struct Group {
    /// Names and lengths, in the order of the flat tensors.
    members: Vec<(String, usize)>,
    /// Updates so far.
    steps: u64,
    /// m of all.
    first: Tensor<1>,
    /// v of all.
    second: Tensor<1>,
}

impl Group {
    /// Each member alone.
    fn split(self) -> Vec<Self> {
        let mut start = 0;
        let mut parts = Vec::with_capacity(self.members.len());
        for (name, length) in self.members {
            let part = |all: &Tensor<1>| all.clone().slice(start..start + length);
            let (first, second) = (part(&self.first), part(&self.second));
            parts.push(Self { members: vec![(name, length)], steps: self.steps, first, second });
            start += length;
        }
        parts
    }

    /// One group of several.
    fn join(parts: Vec<Self>) -> Self {
        let steps = parts.first().map_or(0, |part| part.steps);
        let (mut members, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            members.extend(part.members);
            first.push(part.first);
            second.push(part.second);
        }
        Self { members, steps, first: Tensor::cat(first, 0), second: Tensor::cat(second, 0) }
    }
}

/// The optimiser, with its state on the device.
#[derive(Debug, Clone)]
pub struct DeviceAdam {
    /// Settings and schedule; its moments are empty.
    rules: BertAdam,
    groups: Vec<Group>,
    /// Without autodiff.
    device: Device,
}

impl DeviceAdam {
    /// Goes on with the state of `adam`, on `device`.
    pub fn new(mut adam: BertAdam, device: &Device) -> Self {
        let device = device.clone().inner();
        let groups = std::mem::take(&mut adam.moments)
            .into_iter()
            .map(|(name, Moments { steps, first, second })| Group {
                members: vec![(name, first.len())],
                steps,
                first: flat(first, &device),
                second: flat(second, &device),
            })
            .collect();
        Self { rules: adam, groups, device }
    }

    /// The same state on the host, as checkpoints have it.
    pub fn to_host(&self) -> BertAdam {
        let mut adam = self.rules.clone();
        for group in &self.groups {
            let [first, second] = [&group.first, &group.second].map(|all| host_values(all.clone()));
            let mut start = 0;
            for (name, length) in &group.members {
                let part = |all: &[f32]| all[start..start + length].to_vec();
                let moments = Moments { steps: group.steps, first: part(&first), second: part(&second) };
                adam.moments.insert(name.clone(), moments);
                start += length;
            }
        }
        adam
    }

    /// Learning rate of a parameter that has had `steps` updates.
    pub fn learning_rate(&self, steps: u64) -> f64 {
        self.rules.learning_rate(steps)
    }

    /// One update of every parameter that has a gradient. Returns the model and the norm `[1]` of all gradients before clipping.
    pub fn step(&mut self, model: Vlp, mut gradients: DeviceGradients) -> (Vlp, Tensor<1>) {
        self.form_groups(&gradients);
        let mut values = flat_values(&model, &gradients);
        let mut squares = Tensor::zeros([1], &self.device);
        let mut changed = DeviceGradients::new();
        let mut groups = Vec::with_capacity(self.groups.len());
        for group in std::mem::take(&mut self.groups) {
            let take = |from: &mut DeviceGradients| -> Vec<Tensor<1>> {
                group.members.iter().filter_map(|(name, _)| from.remove(name)).collect()
            };
            let (own, current) = (take(&mut gradients), take(&mut values));
            if own.is_empty() {
                groups.push(group);
                continue;
            }
            let (group, updated, norms) = self.update(group, own, Tensor::cat(current, 0));
            squares = squares + norms.square().sum();
            let mut start = 0;
            for (name, length) in &group.members {
                changed.insert(name.clone(), updated.clone().slice(start..start + length));
                start += length;
            }
            groups.push(group);
        }
        self.groups = groups;
        (with_values(model, changed), squares.sqrt())
    }

    /// The update of one group: itself, its values afterwards, the norms `[members]` of its gradients.
    fn update(&self, group: Group, gradients: Vec<Tensor<1>>, values: Tensor<1>) -> (Group, Tensor<1>, Tensor<1>) {
        let settings = &self.rules.settings;
        let rate = self.learning_rate(group.steps);
        let decay = if group.members.iter().any(|(name, _)| decays(name)) { settings.weight_decay } else { 0.0 };
        let squares = gradients.iter().map(|gradient| gradient.clone().square().sum()).collect();
        let norms = Tensor::<1>::cat(squares, 0).sqrt();
        let gradient = if settings.max_grad_norm > 0.0 {
            let factors = norms.clone().add_scalar(1e-6).recip().mul_scalar(settings.max_grad_norm).clamp_max(1.0);
            let factor = |member: usize| factors.clone().slice(member..member + 1);
            let clipped = gradients.into_iter().enumerate().map(|(member, gradient)| gradient * factor(member));
            Tensor::cat(clipped.collect(), 0)
        } else {
            Tensor::cat(gradients, 0)
        };
        let Group { members, steps, first, second } = group;
        let first = first.mul_scalar(settings.beta1) + gradient.clone().mul_scalar(1.0 - settings.beta1);
        let second = second.mul_scalar(settings.beta2) + gradient.square().mul_scalar(1.0 - settings.beta2);
        let mut change = first.clone() / second.clone().sqrt().add_scalar(settings.epsilon);
        if decay > 0.0 {
            change = change + values.clone().mul_scalar(decay);
        }
        let values = values - change.mul_scalar(rate);
        (Group { members, steps: steps + 1, first, second }, values, norms)
    }

    /// Groups such that each has gradients for all of its members or for none. A parameter enters with its first gradient.
    fn form_groups(&mut self, gradients: &DeviceGradients) {
        let known =
            self.groups.iter().flat_map(|group| group.members.iter().map(|(name, _)| (name.as_str(), group.steps)));
        let steps: BTreeMap<&str, u64> = known.collect();
        let mut wanted: BTreeMap<(bool, u64), Vec<(String, usize)>> = BTreeMap::new();
        for (name, gradient) in gradients {
            let key = (decays(name), steps.get(name.as_str()).copied().unwrap_or(0));
            wanted.entry(key).or_default().push((name.clone(), gradient.dims()[0]));
        }
        if wanted.values().all(|members| self.groups.iter().any(|group| group.members == *members)) {
            return;
        }
        let alone = std::mem::take(&mut self.groups).into_iter().flat_map(Group::split);
        let mut alone: BTreeMap<String, Group> = alone.map(|part| (part.members[0].0.clone(), part)).collect();
        for ((_, steps), members) in wanted {
            let parts = members.into_iter().map(|(name, length)| {
                let zeros = || Tensor::zeros([length], &self.device);
                alone.remove(&name).unwrap_or_else(|| Group {
                    members: vec![(name, length)],
                    steps,
                    first: zeros(),
                    second: zeros(),
                })
            });
            let group = Group::join(parts.collect());
            self.groups.push(group);
        }
        self.groups.extend(alone.into_values());
    }
}

/// The flat values of the parameters that have gradients.
fn flat_values(model: &Vlp, gradients: &DeviceGradients) -> DeviceGradients {
    struct Collect<'a> {
        path: Vec<String>,
        gradients: &'a DeviceGradients,
        found: DeviceGradients,
    }
    impl ModuleVisitor for Collect<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let name = reference_key(&self.path.join("."));
            if self.gradients.contains_key(&name) {
                let value = param.val().inner();
                let length = value.shape().num_elements();
                self.found.insert(name, value.reshape([length]));
            }
        }
    }
    let mut collect = Collect { path: Vec::new(), gradients, found: DeviceGradients::new() };
    model.visit(&mut collect);
    collect.found
}

/// The model with other values, given flat; they become leaves of the graph that the old ones were leaves of.
fn with_values(model: Vlp, values: DeviceGradients) -> Vlp {
    struct Replace {
        path: Vec<String>,
        values: DeviceGradients,
    }
    impl ModuleMapper for Replace {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(values) = self.values.remove(&reference_key(&self.path.join("."))) else { return param };
            param.map(|old| {
                let mut new = values.reshape(old.dims());
                if let Some(strategy) = old.gradient_checkpointing_strategy() {
                    new = new.autodiff().with_gradient_checkpointing_strategy(strategy);
                }
                if old.is_require_grad() { new.require_grad() } else { new }
            })
        }
    }
    model.map(&mut Replace { path: Vec::new(), values })
}
