//! The operations with gradients.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, OpsPrep};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, TensorMetadata};

use super::attention::{self, Outputs};
use super::host::{self, Host, Normalised, as_rows, with_last};
use super::{FusedOps, Mask, kernels};

#[derive(Debug)]
struct LinearStep;

impl<B: Host> Backward<B, 3> for LinearStep {
    /// x where the weights have a gradient, the weights where x has one.
    type State = (Option<FloatTensor<B>>, Option<FloatTensor<B>>);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (x, weight) = ops.state;
        let gradient = gradients.consume::<B>(&ops.node);
        let shape = gradient.shape();
        let width = shape[shape.num_dims() - 1];
        let gradient = as_rows::<B>(gradient);
        let [at_x, at_weight, at_bias] = ops.parents;
        if let Some(node) = at_bias {
            gradients.register::<B>(node.id, B::of(&kernels::sum_rows(B::values(&gradient), width)));
        }
        if let (Some(node), Some(x)) = (at_weight, x) {
            let found = B::product(B::float_swap_dims(gradient.clone(), 0, 1), as_rows::<B>(x));
            gradients.register::<B>(node.id, found);
        }
        if let (Some(node), Some(weight)) = (at_x, weight) {
            let shape = with_last(&shape, weight.shape()[1]);
            gradients.register::<B>(node.id, B::float_reshape(B::product(gradient, weight), shape));
        }
    }
}

#[derive(Debug)]
struct AttentionStep;

impl<B: Host> Backward<B, 1> for AttentionStep {
    /// Queries, keys and values side by side; the softmax before dropout; the mask; the number of heads.
    type State = (FloatTensor<B>, FloatTensor<B>, Option<Mask>, usize);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = B::in_order(gradients.consume::<B>(&ops.node));
        let (together, weights, mask, heads) = ops.state;
        if let [Some(node)] = ops.parents {
            let mut found = B::blank(together.shape());
            let sizes = host::sizes_together::<B>(&together, heads);
            let inputs = host::inputs_together::<B>(sizes, &together);
            let [weights, gradient] = [&weights, &gradient].map(B::values);
            let (kept, outputs) = (mask.as_ref().map(Mask::kept), Outputs::Together(B::values_mut(&mut found)));
            attention::backward(sizes, inputs, kept, weights, gradient, outputs);
            gradients.register::<B>(node.id, found);
        }
    }
}

/// Parents: queries, keys, values.
#[derive(Debug)]
struct AttentionOverStep;

impl<B: Host> Backward<B, 3> for AttentionOverStep {
    /// Queries, keys and values; the softmax before dropout; the mask.
    type State = ([FloatTensor<B>; 3], FloatTensor<B>, Option<Mask>);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = B::in_order(gradients.consume::<B>(&ops.node));
        let (parts, weights, mask) = ops.state;
        let mut found = parts.each_ref().map(|part| B::blank(part.shape()));
        let sizes = host::sizes_apart::<B>(&parts[0], &parts[1]);
        let inputs = host::inputs_apart::<B>(sizes, &parts);
        let [weights, gradient] = [&weights, &gradient].map(B::values);
        let (kept, outputs) = (mask.as_ref().map(Mask::kept), Outputs::Apart(found.each_mut().map(B::values_mut)));
        attention::backward(sizes, inputs, kept, weights, gradient, outputs);
        for (node, found) in ops.parents.into_iter().zip(found) {
            if let Some(node) = node {
                gradients.register::<B>(node.id, found);
            }
        }
    }
}

#[derive(Debug)]
struct GeluStep;

impl<B: Host> Backward<B, 1> for GeluStep {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            let mut gradient = B::own(gradient);
            kernels::gelu_backward(B::values(&ops.state), B::values_mut(&mut gradient));
            gradients.register::<B>(node.id, gradient);
        }
    }
}

#[derive(Debug)]
struct DropoutStep;

impl<B: Host> Backward<B, 1> for DropoutStep {
    type State = Mask;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            gradients.register::<B>(node.id, host::drop_out::<B>(gradient, &ops.state));
        }
    }
}

/// Parents: x, then the residual where there is one, weight, bias.
#[derive(Debug)]
struct NormStep;

/// What the backward pass of a normalisation reads.
#[derive(Debug, Clone)]
struct NormState<B: Backend> {
    weight: FloatTensor<B>,
    normal: FloatTensor<B>,
    inverse: Arc<Vec<f32>>,
    mask: Option<Mask>,
}

impl<B: Host> NormState<B> {
    /// Gradient at the sum, at the weight, at the bias.
    fn gradients(&self, gradient: FloatTensor<B>) -> [FloatTensor<B>; 3] {
        let mut gradient = B::own(gradient);
        let (weight, normal) = (B::values(&self.weight), B::values(&self.normal));
        let found = kernels::add_norm_backward(weight, normal, &self.inverse, B::values_mut(&mut gradient));
        [gradient, B::of(&found.weight), B::of(&found.bias)]
    }
}

impl<B: Host> Backward<B, 3> for NormStep {
    type State = NormState<B>;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        for (node, found) in ops.parents.into_iter().zip(ops.state.gradients(gradient)) {
            if let Some(node) = node {
                gradients.register::<B>(node.id, found);
            }
        }
    }
}

impl<B: Host> Backward<B, 4> for NormStep {
    type State = NormState<B>;

    fn backward(self, ops: Ops<Self::State, 4>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [at_x, at_residual, at_weight, at_bias] = ops.parents;
        let [at_sum, of_weight, of_bias] = ops.state.gradients(gradient);
        if let Some(node) = at_x {
            let found = match &ops.state.mask {
                Some(mask) => host::drop_out::<B>(at_sum.clone(), mask),
                None => at_sum.clone(),
            };
            gradients.register::<B>(node.id, found);
        }
        for (node, found) in [(at_residual, at_sum), (at_weight, of_weight), (at_bias, of_bias)] {
            if let Some(node) = node {
                gradients.register::<B>(node.id, found);
            }
        }
    }
}

impl<B: Host + FusedOps, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x_trains, weight_trains) = (x.is_tracked(), weight.is_tracked());
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight, bias] = [x, weight, bias].map(|tensor| tensor.into_primitive());
        match LinearStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::UnTracked(step) => step.finish(host::linear::<B>(x, weight, bias)),
            OpsKind::Tracked(step) => {
                let state = (weight_trains.then(|| x.clone()), x_trains.then(|| weight.clone()));
                step.finish(state, host::linear::<B>(x, weight, bias))
            }
        }
    }

    fn fused_attention(
        together: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        heads: usize,
        mask: Option<Mask>,
    ) -> FloatTensor<Self> {
        let nodes = [together.node()];
        let together = B::in_order(together.into_primitive());
        let sizes = host::sizes_together::<B>(&together, heads);
        let inputs = host::inputs_together::<B>(sizes, &together);
        let (weights, context) = host::attention::<B>(sizes, inputs, bias.into_primitive(), mask.as_ref());
        match AttentionStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::UnTracked(step) => step.finish(context),
            OpsKind::Tracked(step) => step.finish((together, weights, mask, heads), context),
        }
    }

    fn fused_attention_over(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        mask: Option<Mask>,
    ) -> FloatTensor<Self> {
        let nodes = [queries.node(), keys.node(), values.node()];
        let parts = [queries, keys, values].map(|part| B::in_order(part.into_primitive()));
        let sizes = host::sizes_apart::<B>(&parts[0], &parts[1]);
        let inputs = host::inputs_apart::<B>(sizes, &parts);
        let (weights, context) = host::attention::<B>(sizes, inputs, bias.into_primitive(), mask.as_ref());
        match AttentionOverStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::UnTracked(step) => step.finish(context),
            OpsKind::Tracked(step) => step.finish((parts, weights, mask), context),
        }
    }

    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node()];
        let x = B::in_order(x.into_primitive());
        let y = host::gelu::<B>(&x);
        match GeluStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::UnTracked(step) => step.finish(y),
            OpsKind::Tracked(step) => step.finish(x, y),
        }
    }

    fn fused_dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self> {
        let nodes = [x.node()];
        let y = host::drop_out::<B>(x.into_primitive(), &mask);
        match DropoutStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::UnTracked(step) => step.finish(y),
            OpsKind::Tracked(step) => step.finish(mask, y),
        }
    }

    fn fused_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight, bias] = [x, weight, bias].map(|tensor| tensor.into_primitive());
        let weight = B::in_order(weight);
        let Normalised { normal, inverse, out } = host::norm::<B>(x, None, weight.clone(), bias, eps, None);
        let prepared: OpsPrep<_, B, NormState<B>, C, 3> = NormStep.prepare::<C>(nodes);
        match prepared.compute_bound().stateful() {
            OpsKind::UnTracked(step) => step.finish(out),
            OpsKind::Tracked(step) => {
                step.finish(NormState { weight, normal, inverse: Arc::new(inverse), mask: None }, out)
            }
        }
    }

    fn fused_add_norm(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
        mask: Option<Mask>,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), residual.node(), weight.node(), bias.node()];
        let [x, residual, weight, bias] = [x, residual, weight, bias].map(|tensor| tensor.into_primitive());
        let weight = B::in_order(weight);
        let Normalised { normal, inverse, out } =
            host::norm::<B>(x, Some(residual), weight.clone(), bias, eps, mask.as_ref());
        let prepared: OpsPrep<_, B, NormState<B>, C, 4> = NormStep.prepare::<C>(nodes);
        match prepared.compute_bound().stateful() {
            OpsKind::UnTracked(step) => step.finish(out),
            OpsKind::Tracked(step) => step.finish(NormState { weight, normal, inverse: Arc::new(inverse), mask }, out),
        }
    }
}
