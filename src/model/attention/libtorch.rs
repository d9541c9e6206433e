//! `scaled_dot_product_attention` of LibTorch as an operation of burn, with LibTorch's own gradient.
//!
//! Whatever kernel LibTorch chooses in the forward pass, its backward pass is reached through a small graph of LibTorch's, from
//! the result to queries, keys and values. This graph is kept as the state of the operation.

#![allow(deprecated)] // burn marks its LibTorch backend as deprecated; it is one of the engines here, by request.

use std::sync::{Mutex, PoisonError};

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::libtorch::TchTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, LibTorch, backend_extension};
use burn::tensor::Tensor;

use super::Dropout;

/// `dropout(softmax(q·kᵀ/√D + bias))·v` of queries `[B, A, Q, D]`, keys and values `[B, A, K, D]`, all of one type, on a device of
/// LibTorch; `bias` `[B or 1, 1, Q or 1, K or 1]` gets no gradient. → `[B, A, Q, D]`.
///
/// The formula is that of PyTorch's `torch.nn.functional.scaled_dot_product_attention`.
pub fn scaled_dot_product(inputs: [Tensor<4>; 3], bias: Option<Tensor<4>>, dropout: Option<Dropout>) -> Tensor<4> {
    let [queries, keys, values] = inputs.map(Tensor::into_dispatch);
    Tensor::from_dispatch(match bias {
        None => Dispatch::attention(queries, keys, values, dropout),
        Some(bias) => Dispatch::biased_attention(queries, keys, values, bias.into_dispatch(), dropout),
    })
}

/// The operation without bias and with it.
#[backend_extension(Autodiff, LibTorch)]
pub trait AttentionOps: Backend {
    /// See [`scaled_dot_product`].
    fn attention(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        dropout: Option<Dropout>,
    ) -> FloatTensor<Self>;
    /// See [`scaled_dot_product`].
    fn biased_attention(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        dropout: Option<Dropout>,
    ) -> FloatTensor<Self>;
}

impl AttentionOps for LibTorch {
    fn attention(q: TchTensor, k: TchTensor, v: TchTensor, dropout: Option<Dropout>) -> TchTensor {
        attend([q, k, v], [false; 3], None, dropout).out
    }

    fn biased_attention(
        q: TchTensor,
        k: TchTensor,
        v: TchTensor,
        bias: TchTensor,
        dropout: Option<Dropout>,
    ) -> TchTensor {
        attend([q, k, v], [false; 3], Some(bias), dropout).out
    }
}

impl<C: CheckpointStrategy> AttentionOps for Autodiff<LibTorch, C> {
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        dropout: Option<Dropout>,
    ) -> FloatTensor<Self> {
        with_gradient::<C>([q, k, v], None, dropout)
    }

    fn biased_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        dropout: Option<Dropout>,
    ) -> FloatTensor<Self> {
        with_gradient::<C>([q, k, v], Some(bias.into_primitive()), dropout)
    }
}

fn with_gradient<C: CheckpointStrategy>(
    inputs: [FloatTensor<Autodiff<LibTorch, C>>; 3],
    bias: Option<TchTensor>,
    dropout: Option<Dropout>,
) -> FloatTensor<Autodiff<LibTorch, C>> {
    let trains = inputs.each_ref().map(|input| input.is_tracked());
    let nodes = inputs.each_ref().map(|input| input.node());
    let inputs = inputs.map(|input| input.into_primitive());
    let kept = attend(inputs, trains, bias, dropout);
    match AttentionStep.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::UnTracked(step) => step.finish(kept.out),
        OpsKind::Tracked(step) => {
            let out = kept.detached_out();
            step.finish(kept, out)
        }
    }
}

/// A graph of LibTorch, and what it reads. All share their memory's owner with the tensors of burn that they came from or went
/// to, so that burn writes to none of it.
#[derive(Debug, Clone)]
struct Kept {
    /// Queries, keys, values; leaves of the graph where they have a gradient.
    inputs: [TchTensor; 3],
    #[allow(dead_code)] // owns memory that the graph reads
    bias: Option<TchTensor>,
    /// The end of the graph.
    out: TchTensor,
}

impl Kept {
    fn detached_out(&self) -> TchTensor {
        TchTensor { tensor: self.out.tensor.detach(), storage: self.out.storage.clone() }
    }
}

#[derive(Debug)]
struct AttentionStep;

impl Backward<LibTorch, 3> for AttentionStep {
    type State = Kept;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<LibTorch>(&ops.node);
        let Kept { inputs, out, .. } = &ops.state;
        let (nodes, leaves): (Vec<_>, Vec<_>) =
            ops.parents.into_iter().zip(inputs).filter_map(|(node, input)| Some((node?, &input.tensor))).unzip();
        // `run_backward` starts with ones at the end of a graph: with them at out·gradient, `gradient` arrives at out.
        let found = tch::with_grad(|| {
            let end = out.tensor.f_mul(&gradient.tensor)?;
            tch::Tensor::f_run_backward(&[end], &leaves, false, false)
        });
        for (node, found) in nodes.into_iter().zip(found.expect("the gradient of LibTorch's attention")) {
            gradients.register::<LibTorch>(node.id, TchTensor::new(found));
        }
    }
}

/// The attention, as a graph of LibTorch from those inputs that train.
fn attend(inputs: [TchTensor; 3], trains: [bool; 3], bias: Option<TchTensor>, dropout: Option<Dropout>) -> Kept {
    let leaf = |TchTensor { tensor, storage }, trains| TchTensor {
        tensor: if trains { tensor.detach().set_requires_grad(true) } else { tensor },
        storage,
    };
    let ([q, k, v], [q_trains, k_trains, v_trains]) = (inputs, trains);
    let inputs = [leaf(q, q_trains), leaf(k, k_trains), leaf(v, v_trains)];
    let [q, k, v] = inputs.each_ref().map(|input| &input.tensor);
    let bias = bias.map(|bias| fitting(bias, q.kind(), [q.size()[2], k.size()[2]]));
    let mask = bias.as_ref().map(|bias| &bias.tensor);
    // Nothing in it panics, so that LibTorch's gradients are as they were afterwards.
    let out = tch::with_grad(|| {
        seeded(dropout, |prob| {
            tch::Tensor::f_scaled_dot_product_attention(q, k, v, mask, prob, false, None::<f64>, false)
        })
    });
    let out = TchTensor::new(out.expect("LibTorch's attention"));
    Kept { inputs, bias, out }
}

/// `bias` as kernels read it: `[B or 1, 1, Q, K]` in one block of memory, in the type of the inputs.
fn fitting(bias: TchTensor, kind: tch::Kind, [queries, keys]: [i64; 2]) -> TchTensor {
    let size = bias.tensor.size();
    let whole = bias.tensor.expand([size[0], size[1], queries, keys], false);
    TchTensor::from_existing(whole.to_kind(kind).contiguous(), bias.storage)
}

/// LibTorch draws all masks of a process from one generator for each device.
static GENERATOR: Mutex<()> = Mutex::new(());

/// `call` with the probability of dropout, behind the seed of its mask.
fn seeded<T>(dropout: Option<Dropout>, call: impl FnOnce(f64) -> T) -> T {
    let Some(Dropout { prob, seed }) = dropout else { return call(0.0) };
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed as i64);
    call(prob)
}
