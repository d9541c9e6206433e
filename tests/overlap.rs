//! Gradients of two ranks, exchanged while the backward pass goes on: the same bits as exchanged behind it, before its end, and an error where
//! ranks differ or one is lost.

#![cfg_attr(feature = "tch", allow(deprecated))] // burn marks its LibTorch backend as deprecated

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[cfg(feature = "tch")]
use burn::backend::LibTorch;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Autodiff, Backend, DispatchKindConversion, DispatchTensor, Flex};
use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use vlp::config::ModelSettings;
use vlp::decode::{Extent, Prompt, encode_image};
use vlp::distributed::{Collective, CollectiveError, Flat, Rendezvous, Single, Transport};
use vlp::model::encoder::attention_bias;
use vlp::model::layer_gradients::LayerGradients;
use vlp::model::layers::{Pass, mix};
use vlp::model::transfer::{floats, integers};
use vlp::model::{DataSizes, Vlp, device, host_values};
use vlp::train::bert_adam::{HostGradients, host_gradients};
use vlp::train::device_adam::{DeviceGradients, accumulate, device_gradients, to_host};
use vlp::train::exchange::Exchange;
use vlp::train::objective::{SampledInputs, reward_loss, text_log_probs, text_places};
use vlp::train::precision::{graph, in_graph};

const BLOCKS: usize = 3;

const BATCH: usize = 2;

fn engines() -> Vec<(&'static str, Device)> {
    device::available().into_iter().map(|name| (name, device::open(name).unwrap())).collect()
}

fn transports() -> Vec<Transport> {
    let mut all = vec![Transport::Loopback];
    if cfg!(feature = "tch") {
        all.push(Transport::Gloo);
    }
    all
}

/// What `work` returns on both ranks; none for one that panicked.
fn two<T: Send>(transport: Transport, work: impl Fn(Box<dyn Collective>) -> T + Sync) -> [Option<T>; 2] {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let join = |rank: usize| {
        let place = Rendezvous {
            rank,
            world_size: 2,
            local_rank: rank,
            master_addr: "127.0.0.1".into(),
            master_port: port,
            token: "run-1".into(),
            timeout: Duration::from_secs(30),
        };
        place.join(transport).unwrap()
    };
    std::thread::scope(|scope| {
        let work = &work;
        [0, 1].map(|rank| scope.spawn(move || work(join(rank)))).map(|rank| rank.join().ok())
    })
}

/// A model in training form, without dropout.
fn model(graph: &Device, blocks: usize) -> Vlp {
    let settings = ModelSettings {
        hidden_size: 16,
        num_hidden_layers: blocks,
        num_attention_heads: 2,
        intermediate_size: 32,
        max_position_embeddings: 32,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        initializer_range: 0.3,
        ..ModelSettings::default()
    };
    let sizes = DataSizes { vocabulary: 23, region_feature_size: 5, num_region_classes: 4, answers: 0 };
    in_graph(Vlp::new(&settings, sizes, 4, &graph.clone().inner()).train(), graph)
}

/// The same, with gradients that are handed out early.
fn watched(graph: &Device, blocks: usize) -> Vlp {
    let mut model = model(graph, blocks);
    model.bert.encoder.gradients = Some(LayerGradients::default());
    model
}

fn table<const N: usize>(shape: [usize; N], salt: u64, graph: &Device) -> Tensor<N> {
    let value = |i: usize| (mix(i as u64 ^ mix(salt)) >> 40) as f32 / 8_388_608.0 - 1.0;
    floats((0..shape.iter().product()).map(value).collect::<Vec<_>>(), shape, graph)
}

/// A pass in numbers of type `kind` over data that depend on `salt`.
type Loss = fn(&Vlp, &Device, DType, u64) -> Tensor<1>;

/// A weighted sum of words' logits behind regions; the last block is computed at some rows.
fn words(model: &Vlp, graph: &Device, kind: DType, salt: u64) -> Tensor<1> {
    let (regions, length) = (4, 9);
    let region = |width, salt| table([BATCH, regions, width], salt, graph).cast(kind);
    let ids: Vec<i64> = (0..BATCH * (length - regions)).map(|i| ((i as u64 * 5 + salt) % 23) as i64).collect();
    let ids = integers(ids, [BATCH, length - regions], graph);
    let segments = integers(vec![4i64; BATCH * length], [BATCH, length], graph);
    let sees = |i: usize| f32::from(i % length <= regions || i % length <= i / length % length);
    let mask: Vec<f32> = (0..BATCH * length * length).map(sees).collect();
    let bias = attention_bias(floats(mask, [BATCH, length, length], graph));
    let embedded = model.regions(region(5, salt), region(10, salt + 1), Pass::Evaluate);
    let x = model.bert.embeddings.forward(ids, segments, &embedded, Pass::Evaluate);
    let rows = integers(vec![5i64, 7, 6, 8], [BATCH, 2], graph);
    let logits = model.word_logits(model.bert.encoder.forward_rows(x, bias, rows, Pass::Evaluate));
    (logits.clone() * table(logits.dims(), salt + 2, graph)).sum()
}

/// The text behind the image part: two passes through the blocks.
fn caption(model: &Vlp, graph: &Device, kind: DType, salt: u64) -> Tensor<1> {
    let prompt = Prompt { cls: 1, sep: 2, mask: 3, pad: 0 };
    let extent = Extent { words: 4, end: 2, padding: 0 };
    let region = |width, salt| table([BATCH, 4, width], salt, graph).cast(kind);
    let draws: Vec<u32> = (0..BATCH * extent.words).map(|i| 4 + ((i as u64 * 7 + salt) % 19) as u32).collect();
    let (segments, visible) = text_places(BATCH, extent.words, None);
    let inputs = SampledInputs { draws: &draws, segments: &segments, visible: &visible };
    let image = encode_image(model, prompt, region(5, salt), region(10, salt + 1), Pass::Evaluate);
    let log_probs = text_log_probs(model, prompt, &image, &inputs, Pass::Evaluate);
    reward_loss(log_probs, &draws, &[0.7, -0.4], extent.padding)
}

/// What a rank has behind the exchange of batches of `salts`.
fn exchanged(
    group: &mut dyn Collective,
    model: &Vlp,
    graph: &Device,
    (kind, loss): (DType, Loss),
    salts: &[u64],
    (bf16, home): (bool, Option<&Device>),
) -> Result<HostGradients, CollectiveError> {
    let (last, first) = salts.split_last().unwrap();
    let mut before = DeviceGradients::new();
    for salt in first {
        let mut found = loss(model, graph, kind, *salt).backward();
        accumulate(&mut before, device_gradients(model, &mut found));
    }
    let exchange = Exchange::begin(model, before);
    let total = loss(model, graph, kind, *last);
    exchange.backward(model, total, group, bf16, home).map(to_host)
}

/// What one process finds over batches of `salts` that it has for itself.
fn alone(model: &Vlp, graph: &Device, pass: (DType, Loss), salts: &[u64]) -> HostGradients {
    exchanged(&mut Single, model, graph, pass, salts, (false, None)).unwrap()
}

/// ‖a − b‖ / ‖b‖ over all parameters.
fn distance(a: &HostGradients, b: &HostGradients) -> f64 {
    assert!(a.keys().eq(b.keys()));
    let pairs = || a.values().flatten().zip(b.values().flatten()).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let difference: f64 = pairs().map(|(a, b)| (a - b).powi(2)).sum();
    (difference / pairs().map(|(_, b)| b * b).sum::<f64>()).sqrt()
}

fn rounded(gradients: &HostGradients) -> HostGradients {
    let round = |values: &Vec<f32>| values.iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect();
    gradients.iter().map(|(name, values)| (name.clone(), round(values))).collect()
}

fn mean(all: &[HostGradients; 2]) -> HostGradients {
    let of = |(name, values): (&String, &Vec<f32>)| {
        (name.clone(), values.iter().zip(&all[1][name]).map(|(a, b)| (a + b) / 2.0).collect())
    };
    assert!(all[0].keys().eq(all[1].keys()));
    all[0].iter().map(of).collect()
}

#[test]
fn the_means_of_ranks_have_the_bits_of_what_each_finds_alone() {
    for (name, device) in engines() {
        // As far as sums in another order may be apart, in bfloat16 some units of 2⁻⁹.
        for (checkpointing, kind, allowed) in
            [(false, DType::F32, 1e-5), (true, DType::F32, 1e-5), (false, DType::BF16, 0.05)]
        {
            let graph = graph(&device, checkpointing);
            for (what, pass) in [("words", (kind, words as Loss)), ("caption", (kind, caption))] {
                for batches in [1, 2] {
                    let case = format!("{name} {checkpointing} {kind:?} {what} {batches}");
                    let salts = [0, 1].map(|rank| (0..batches).map(|i| 10 * rank + i).collect::<Vec<u64>>());
                    let of = |model: fn(&Device, usize) -> Vlp| {
                        mean(&salts.each_ref().map(|salts| alone(&model(&graph, BLOCKS), &graph, pass, salts)))
                    };
                    let (early, late) = (of(watched), of(model));
                    assert!(late.len() > 16 * BLOCKS);
                    let apart = distance(&early, &late);
                    assert!(apart <= allowed, "{case}: {apart}");
                    for transport in transports() {
                        for (model, home, expected) in
                            [(watched as fn(&Device, usize) -> Vlp, Some(&device), &early), (model, None, &late)]
                        {
                            let found = two(transport, |mut group| {
                                let (model, salts) = (model(&graph, BLOCKS), &salts[group.rank()]);
                                exchanged(&mut *group, &model, &graph, pass, salts, (false, home)).unwrap()
                            });
                            for found in found {
                                assert!(found.unwrap() == *expected, "{case} {transport:?} {home:?}");
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn gradients_are_rounded_to_bfloat16_where_asked_to() {
    let pass = (DType::F32, words as Loss);
    for (name, device) in engines() {
        let graph = graph(&device, false);
        let alone = |salt: u64| rounded(&alone(&watched(&graph, BLOCKS), &graph, pass, &[salt]));
        let expected = mean(&[0, 1].map(alone));
        for transport in transports() {
            let found = two(transport, |mut group| {
                let salts = [group.rank() as u64];
                exchanged(&mut *group, &watched(&graph, BLOCKS), &graph, pass, &salts, (true, None)).unwrap()
            });
            // PyTorch's process group rounds the sum too.
            let expected = if transport == Transport::Loopback { expected.clone() } else { rounded(&expected) };
            for found in found {
                assert!(found.unwrap() == expected, "{name} {transport:?}");
            }
        }
    }
}

/// What happens on a rank, in order.
type Events = Arc<Mutex<Vec<&'static str>>>;

/// A group that tells of each bucket.
struct Told {
    inner: Box<dyn Collective>,
    events: Events,
    exchanged: Sender<()>,
}

impl Collective for Told {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn world_size(&self) -> usize {
        self.inner.world_size()
    }

    fn all_reduce_mean(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.inner.all_reduce_mean(values)
    }

    fn all_reduce_mean_flat(&mut self, values: Flat, bf16: bool) -> Result<Tensor<1>, CollectiveError> {
        let mean = self.inner.all_reduce_mean_flat(values, bf16)?;
        self.events.lock().unwrap().push("bucket");
        let _ = self.exchanged.send(());
        Ok(mean)
    }

    fn broadcast(&mut self, values: &mut [f32], root: usize) -> Result<(), CollectiveError> {
        self.inner.broadcast(values, root)
    }

    fn gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.inner.gather_bytes(bytes)
    }

    fn wait_for_rank_0(&mut self) -> Result<(), CollectiveError> {
        self.inner.wait_for_rank_0()
    }
}

/// An identity at which the backward pass stops until so many buckets were exchanged.
#[derive(Debug, Clone)]
struct Gate {
    buckets: usize,
    exchanged: Arc<Mutex<Receiver<()>>>,
    events: Events,
    /// Instead of going on.
    panics: bool,
}

#[derive(Debug)]
struct GateStep;

impl<B: Backend> Backward<B, 1> for GateStep {
    type State = Gate;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let Gate { buckets, exchanged, events, panics } = ops.state;
        for _ in 0..buckets {
            exchanged.lock().unwrap().recv_timeout(Duration::from_secs(60)).expect("a bucket within the backward pass");
        }
        events.lock().unwrap().push("backward");
        assert!(!panics, "asked to");
        let gradient = gradients.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            gradients.register::<B>(node.id, gradient);
        }
    }
}

fn gated<B: Backend, const N: usize>(tensor: Tensor<N>, gate: Gate) -> Tensor<N>
where
    DispatchTensor: DispatchKindConversion<Autodiff<B>>,
{
    let tensor = tensor.try_into_primitive::<Autodiff<B>>().unwrap();
    let step = Backward::<B, 1>::prepare::<NoCheckpointing>(GateStep, [tensor.node()]).compute_bound().stateful();
    Tensor::from_primitive::<Autodiff<B>>(match step {
        OpsKind::Tracked(step) => step.finish(gate, tensor.into_primitive()),
        OpsKind::UnTracked(step) => step.finish(tensor.into_primitive()),
    })
}

/// Behind the word embedding, which the backward pass reaches after all blocks.
fn behind_gate<B: Backend>(mut model: Vlp, gate: Gate) -> Vlp
where
    DispatchTensor: DispatchKindConversion<Autodiff<B>>,
{
    let table = model.bert.embeddings.word_embeddings;
    model.bert.embeddings.word_embeddings = table.map(|table| gated::<B, 2>(table, gate));
    model
}

/// Gradients, and what happened until they were there.
type Outcome = (Result<HostGradients, CollectiveError>, Vec<&'static str>);

/// What both ranks get behind gates, and what happened on them. `panics`: rank 1 does, at its gate.
fn through_gates<B: Backend>(device: &Device, transport: Transport, panics: bool) -> [Option<Outcome>; 2]
where
    DispatchTensor: DispatchKindConversion<Autodiff<B>>,
{
    let graph = graph(device, false);
    two(transport, |group| {
        let (sender, receiver) = channel();
        let events = Events::default();
        let salts = [group.rank() as u64];
        let gate = Gate {
            buckets: BLOCKS,
            exchanged: Arc::new(Mutex::new(receiver)),
            events: Arc::clone(&events),
            panics: panics && group.rank() == 1,
        };
        let mut told = Told { inner: group, events: Arc::clone(&events), exchanged: sender };
        let model = behind_gate::<B>(watched(&graph, BLOCKS), gate);
        let found = exchanged(&mut told, &model, &graph, (DType::F32, words), &salts, (false, None));
        (found, events.lock().unwrap().clone())
    })
}

fn blocks_are_exchanged_within_the_backward_pass<B: Backend>(device: &Device)
where
    DispatchTensor: DispatchKindConversion<Autodiff<B>>,
{
    for transport in transports() {
        for found in through_gates::<B>(device, transport, false) {
            let (gradients, events) = found.unwrap();
            // Buckets that are exchanged behind the backward pass would never have come past the gate.
            assert_eq!(events, ["bucket", "bucket", "bucket", "backward", "bucket"], "{transport:?}");
            assert!(gradients.unwrap().len() > 16 * BLOCKS);
        }
    }
}

#[test]
fn blocks_are_exchanged_while_the_backward_pass_goes_on() {
    blocks_are_exchanged_within_the_backward_pass::<Flex>(&Device::flex());
}

#[cfg(feature = "tch")]
#[test]
fn blocks_are_exchanged_while_the_backward_pass_of_libtorch_goes_on() {
    blocks_are_exchanged_within_the_backward_pass::<LibTorch>(&Device::libtorch());
}

#[test]
fn a_rank_that_is_lost_in_its_backward_pass_is_an_error_on_the_other() {
    for transport in transports() {
        let [zero, one] = through_gates::<Flex>(&Device::flex(), transport, true);
        assert!(one.is_none(), "rank 1 did not panic");
        let (gradients, events) = zero.unwrap();
        let error = gradients.unwrap_err();
        assert!(matches!(error, CollectiveError::Lost { rank: 0, .. }), "{error}");
        assert_eq!(events, ["bucket", "bucket", "bucket", "backward"], "{transport:?}");
    }
}

#[test]
fn ranks_with_other_parameters_are_refused() {
    /// A loss without the word head.
    fn states(model: &Vlp, graph: &Device, kind: DType, salt: u64) -> Tensor<1> {
        let x = table([BATCH, 4, 16], salt, graph).cast(kind) + model.bert.embeddings.layer_norm.bias.val().unsqueeze();
        let bias = Tensor::zeros([BATCH, 1, 4, 4], graph);
        model.bert.encoder.forward(x, bias, Pass::Evaluate).sum()
    }
    let graph = graph(&Device::flex(), false);
    for transport in transports() {
        for (blocks, loss) in [([3, 2], [words as Loss; 2]), ([3, 3], [words, states])] {
            let found = two(transport, |mut group| {
                let rank = group.rank();
                let model = watched(&graph, blocks[rank]);
                let found = exchanged(&mut *group, &model, &graph, (DType::F32, loss[rank]), &[0], (false, None));
                found.unwrap_err().to_string()
            });
            for message in found {
                let message = message.unwrap();
                let expected = "the ranks disagree on the names and sizes of the gradients: rank 0 has ";
                assert!(message.starts_with(expected), "{transport:?} {blocks:?}: {message}");
            }
        }
    }
}

#[test]
fn nothing_is_lost_when_a_watch_ends_before_the_backward_pass() {
    let graph = graph(&Device::flex(), false);
    let (plain, model) = (model(&graph, BLOCKS), watched(&graph, BLOCKS));
    let expected = alone(&model, &graph, (DType::F32, words), &[1]);
    let watch = model.bert.encoder.gradients.as_ref().unwrap().watch(|_, _| panic!("nobody waits for it"));
    let loss = words(&model, &graph, DType::F32, 1);
    drop(watch);
    assert!(host_gradients(&model, &mut loss.backward()) == expected);
    // A watch for which no backward pass comes hands out nothing.
    let watch = model.bert.encoder.gradients.as_ref().unwrap().watch(|_, _| panic!("there is no backward pass"));
    let value = host_values(words(&model, &graph, DType::F32, 1));
    assert_eq!(value, host_values(words(&plain, &graph, DType::F32, 1)));
    assert!(watch.end().is_empty());
}
