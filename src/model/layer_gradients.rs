//! The gradients of the encoder's blocks, handed out while the backward pass is still at work below them.
//!
//! [`LayerGradients::enter`] puts two kinds of identities into the graph: one behind the input of a block, and one behind each of its parameters
//! as this application of the block sees it. The latter are also children of the former. A backward pass takes the steps of a graph by their depth, the
//! deepest first; so all steps within the block come first, then those of its parameters, which keep the gradients, then that of its
//! input: nothing is missing then. (Without that second parent a parameter that is transposed or converted first, as the composed operations do, would
//! get its gradient at the very end, its steps being near the leaves.) A block that is applied several times is handed out behind the last of them.
//!
//! Nothing is put into the graph unless somebody watches. Whom the gradients are for is not known here.

// burn marks its LibTorch backend as deprecated; it is one of the engines here, by request.
#![cfg_attr(feature = "tch", allow(deprecated))]

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

#[cfg(feature = "cuda")]
use burn::backend::Cube;
#[cfg(feature = "tch")]
use burn::backend::LibTorch;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, Dispatch, DispatchKindConversion, DispatchTensor, Flex, TensorMetadata, backend_extension,
};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Shape, Tensor};

use super::encoder::Layer;
use super::vlp::reference_key;

/// Gradients without graph, flat, by checkpoint name.
pub type NamedGradients = BTreeMap<String, Tensor<1>>;

/// Hands out the gradients of blocks early, while somebody watches. Clones are one and the same.
#[derive(Debug, Clone, Default)]
pub struct LayerGradients(Arc<Mutex<Weak<Mutex<Watched>>>>);

struct Watched {
    blocks: BTreeMap<usize, Block>,
    deliver: Box<dyn FnMut(usize, NamedGradients) + Send>,
}

#[derive(Default)]
struct Block {
    /// Applications that the backward pass has not left.
    open: usize,
    found: NamedGradients,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

impl LayerGradients {
    /// From here on blocks that are entered are counted, and when a backward pass has left the last application of one, `deliver` gets its number and
    /// its gradients, which the pass itself then lacks. One forward and one backward pass belong to a watch.
    pub fn watch(&self, deliver: impl FnMut(usize, NamedGradients) + Send + 'static) -> Watch {
        let watched = Watched { blocks: BTreeMap::new(), deliver: Box::new(deliver) };
        let watched = Arc::new(Mutex::new(watched));
        *lock(&self.0) = Arc::downgrade(&watched);
        Watch(watched)
    }

    /// Block `index` and its input `x` as an application is to compute it; none where nobody watches, or `x` has no gradient.
    pub fn enter(&self, index: usize, layer: &Layer, x: &Tensor<3>) -> Option<(Layer, Tensor<3>)> {
        if !x.is_tracked() {
            return None;
        }
        let watched = lock(&self.0).upgrade()?;
        lock(&watched).blocks.entry(index).or_default().open += 1;
        let place = Place { watched: Arc::downgrade(&watched), index };
        let x = Tensor::from_dispatch(Dispatch::block_input(x.clone().into_dispatch(), place.clone()));
        let layer = layer.clone().map(&mut Behind { path: Vec::new(), place, x: &x });
        Some((layer, x))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gradients are handed out as long as it lives.
#[derive(Debug)]
pub struct Watch(Arc<Mutex<Watched>>);

impl Watch {
    /// The gradients of blocks that a backward pass entered and has not left.
    pub fn end(self) -> NamedGradients {
        let blocks = std::mem::take(&mut lock(&self.0).blocks);
        blocks.into_values().flat_map(|block| block.found).collect()
    }
}

/// Which block of which watch an operation belongs to.
#[derive(Debug, Clone)]
pub struct Place {
    watched: Weak<Mutex<Watched>>,
    index: usize,
}

impl Place {
    /// Keeps the gradient of a parameter, or gives it back where nobody watches any more.
    fn keep(&self, name: String, gradient: Tensor<1>) -> Option<Tensor<1>> {
        let Some(watched) = self.watched.upgrade() else { return Some(gradient) };
        let mut watched = lock(&watched);
        let found = &mut watched.blocks.entry(self.index).or_default().found;
        let sum = match found.remove(&name) {
            None => gradient,
            Some(others) => gradient + others,
        };
        found.insert(name, sum);
        None
    }

    /// The backward pass has left an application of the block.
    fn leave(&self) {
        let Some(watched) = self.watched.upgrade() else { return };
        let mut watched = lock(&watched);
        let Watched { blocks, deliver } = &mut *watched;
        let Some(block) = blocks.get_mut(&self.index) else { return };
        block.open -= 1;
        if block.open == 0 {
            deliver(self.index, std::mem::take(&mut block.found));
        }
    }
}

/// Puts identities behind the parameters of a block that train.
struct Behind<'a> {
    path: Vec<String>,
    place: Place,
    x: &'a Tensor<3>,
}

impl ModuleMapper for Behind<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| {
            if !value.is_require_grad() {
                return value;
            }
            let name = reference_key(&format!("bert.encoder.layer.{}.{}", self.place.index, self.path.join(".")));
            let (value, x) = (value.into_dispatch(), self.x.clone().into_dispatch());
            Tensor::from_dispatch(Dispatch::block_parameter(value, x, self.place.clone(), name))
        })
    }
}

/// The identities. Without a graph there is nothing to them.
#[backend_extension(Autodiff, Flex, LibTorch: cfg(feature = "tch"), Cube: cfg(feature = "cuda"))]
pub trait BlockOps: Backend {
    /// The input of a block.
    fn block_input(x: FloatTensor<Self>, place: Place) -> FloatTensor<Self> {
        let _ = place;
        x
    }
    /// A parameter of a block, called `name`, behind the block's input `x`.
    fn block_parameter(
        value: FloatTensor<Self>,
        x: FloatTensor<Self>,
        place: Place,
        name: String,
    ) -> FloatTensor<Self> {
        let _ = (x, place, name);
        value
    }
}

impl BlockOps for Flex {}
#[cfg(feature = "tch")]
impl BlockOps for LibTorch {}
#[cfg(feature = "cuda")]
impl BlockOps for Cube {}

impl<B: Backend, C: CheckpointStrategy> BlockOps for Autodiff<B, C>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    fn block_input(x: FloatTensor<Self>, place: Place) -> FloatTensor<Self> {
        let same = Same::<B>(x.id(), PhantomData);
        // With gradient checkpointing whatever `x` is computed from is kept or computed again as it was without the identity.
        let step = InputStep.prepare::<C>([x.node()]).memory_bound().retro_forward(same).parents([&x]);
        match step.stateful() {
            OpsKind::UnTracked(step) => step.finish(x.into_primitive()),
            OpsKind::Tracked(step) => step.finish(place, x.into_primitive()),
        }
    }

    fn block_parameter(
        value: FloatTensor<Self>,
        x: FloatTensor<Self>,
        place: Place,
        name: String,
    ) -> FloatTensor<Self> {
        match ParameterStep.prepare::<C>([value.node(), x.node()]).compute_bound().stateful() {
            OpsKind::UnTracked(step) => step.finish(value.into_primitive()),
            OpsKind::Tracked(step) => step.finish((place, name), value.into_primitive()),
        }
    }
}

/// An identity, computed again.
#[derive(Debug)]
struct Same<B>(NodeId, PhantomData<B>);

impl<B: Backend> RetroForward for Same<B> {
    fn forward(&self, states: &mut BackwardStates, out: NodeId) {
        let x = states.get_state::<FloatTensor<B>>(&self.0);
        states.save(out, x);
    }
}

#[derive(Debug)]
struct InputStep;

impl<B: Backend> Backward<B, 1> for InputStep {
    type State = Place;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            gradients.register::<B>(node.id, gradient);
        }
        ops.state.leave();
    }
}

/// Parents: the parameter; the block's input, for the depth alone.
#[derive(Debug)]
struct ParameterStep;

impl<B: Backend> Backward<B, 2> for ParameterStep
where
    DispatchTensor: DispatchKindConversion<B>,
{
    type State = (Place, String);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let ([Some(parameter), _], (place, name)) = (ops.parents, ops.state) else { return };
        let shape = gradient.shape();
        let flat = Shape::new([shape.num_elements()]);
        let flat = Tensor::from_primitive::<B>(B::float_reshape(gradient, flat));
        let Some(unwatched) = place.keep(name, flat) else { return };
        let unwatched = unwatched.try_into_primitive::<B>().expect("the engine that it came from");
        gradients.register::<B>(parameter.id, B::float_reshape(unwatched, shape));
    }
}
