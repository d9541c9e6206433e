//! The whole network: region embeddings, BERT, heads; its construction and the names of its parameters.
//!
//! Field names follow the published checkpoints as far as Rust allows; [`reference_key`] gives the exact names.
//! Losses are elsewhere (`train::objective`), decoding too (`decode`).

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::embeddings::{Embeddings, RegionStates, VisEmbed, VisPeEmbed};
use super::encoder::{Attention, Encoder, Intermediate, Layer, ResidualOutput, SelfAttention};
use super::fused;
use super::heads::{AnswerClassifier, Heads, Pooler, Predictions, Transform};
use super::init::Initializer;
use super::inputs::SequenceInputs;
use super::layers::{LayerNorm, Linear, Pass};
use super::transfer::integers;
use crate::config::ModelSettings;

/// The part named `bert` in checkpoints.
#[derive(Module, Debug)]
pub struct Bert {
    /// Tables.
    pub embeddings: Embeddings,
    /// Blocks.
    pub encoder: Encoder,
    /// Read by the region loss only.
    pub pooler: Pooler,
}

/// Unified vision-language model.
#[derive(Module, Debug)]
pub struct Vlp {
    /// Shared Transformer.
    pub bert: Bert,
    /// Masked-word head.
    pub cls: Heads,
    /// Regions in place of words.
    pub vis_embed: VisEmbed,
    /// Box geometry and class scores in place of positions.
    pub vis_pe_embed: VisPeEmbed,
    /// Answers; absent where the model answers no questions.
    pub ans_classifier: Option<AnswerClassifier>,
}

/// Sizes that come from the data rather than from `[model]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataSizes {
    /// V.
    pub vocabulary: usize,
    /// Numbers per region feature.
    pub region_feature_size: usize,
    /// Detector classes; the region position vector has 6 more numbers.
    pub num_region_classes: usize,
    /// Answers of the VQA head; 0 for a model without one.
    pub answers: usize,
}

impl Vlp {
    /// A model with weights drawn as the reference draws them: N(0, σ) for BERT, zeros for its biases, 1/0 for LayerNorm,
    /// U(±1/√fan-in) for the visual layers. Each parameter's numbers depend on (seed, its name) alone.
    pub fn new(settings: &ModelSettings, sizes: DataSizes, seed: u64, device: &Device) -> Self {
        let init = Initializer::new(seed, settings.initializer_range, device);
        let (hidden, inner) = (settings.hidden_size, settings.intermediate_size);
        let norm = || LayerNorm {
            weight: init.constant(1.0, hidden),
            bias: init.constant(0.0, hidden),
            eps: settings.layer_norm_eps,
        };
        let linear = |name: &str, output: usize, input: usize| {
            Linear::new(init.normal(&format!("{name}.weight"), [output, input]), init.constant(0.0, output))
        };
        let visual = |name: &str, output: usize, input: usize| {
            Linear::new(
                init.uniform(&format!("{name}.weight"), [output, input], input),
                init.uniform(&format!("{name}.bias"), [output], input),
            )
        };
        let layer = |i: usize| {
            let at = |part: &str| format!("bert.encoder.layer.{i}.{part}");
            Layer {
                attention: Attention {
                    self_attention: SelfAttention {
                        query: linear(&at("attention.self.query"), hidden, hidden),
                        key: linear(&at("attention.self.key"), hidden, hidden),
                        value: linear(&at("attention.self.value"), hidden, hidden),
                    },
                    output: ResidualOutput {
                        dense: linear(&at("attention.output.dense"), hidden, hidden),
                        layer_norm: norm(),
                    },
                },
                intermediate: Intermediate { dense: linear(&at("intermediate.dense"), inner, hidden) },
                output: ResidualOutput { dense: linear(&at("output.dense"), hidden, inner), layer_norm: norm() },
                heads: settings.num_attention_heads,
                hidden_dropout_prob: settings.hidden_dropout_prob,
                attention_dropout_prob: settings.attention_probs_dropout_prob,
            }
        };
        let table = |name: &str, rows: usize| init.normal(&format!("bert.embeddings.{name}.weight"), [rows, hidden]);
        let features = sizes.region_feature_size;
        Self {
            bert: Bert {
                embeddings: Embeddings {
                    word_embeddings: table("word_embeddings", sizes.vocabulary),
                    position_embeddings: table("position_embeddings", settings.max_position_embeddings),
                    token_type_embeddings: table("token_type_embeddings", settings.type_vocab_size),
                    layer_norm: norm(),
                    dropout_prob: settings.hidden_dropout_prob,
                },
                encoder: Encoder { layer: (0..settings.num_hidden_layers).map(layer).collect(), gradients: None },
                pooler: Pooler { dense: linear("bert.pooler.dense", hidden, hidden) },
            },
            cls: Heads {
                predictions: Predictions {
                    bias: init.constant(0.0, sizes.vocabulary),
                    transform: Transform {
                        dense: linear("cls.predictions.transform.dense", hidden, hidden),
                        layer_norm: norm(),
                    },
                    packed: None,
                    converted: None,
                },
            },
            vis_embed: VisEmbed {
                linear_0: visual("vis_embed.0", features, features),
                linear_2: visual("vis_embed.2", hidden, features),
                dropout_prob: settings.hidden_dropout_prob,
            },
            vis_pe_embed: VisPeEmbed {
                linear_0: visual("vis_pe_embed.0", hidden, 6 + sizes.num_region_classes),
                dropout_prob: settings.hidden_dropout_prob,
            },
            ans_classifier: (sizes.answers > 0).then(|| AnswerClassifier {
                linear_0: visual("ans_classifier.0", 2 * hidden, hidden),
                linear_2: visual("ans_classifier.2", sizes.answers, 2 * hidden),
            }),
        }
    }

    /// Embeds regions: `features` `[B, R, F]`, `positions` `[B, R, 6 + C]`.
    pub fn regions(&self, features: Tensor<3>, positions: Tensor<3>, pass: Pass) -> RegionStates {
        RegionStates {
            words: self.vis_embed.forward(features, pass),
            places: self.vis_pe_embed.forward(positions, pass),
        }
    }

    /// The same model with the weights of blocks and word head packed, where the engine has such products: for passes without
    /// gradient over models in evaluation form. Takes the memory of these weights once more.
    pub fn packed(self) -> Self {
        let words = self.bert.embeddings.word_embeddings.val();
        let predictions = self.cls.predictions.clone().packed(words);
        Self { cls: Heads { predictions }, ..self.map_layers(Linear::packed) }
    }

    /// The same model ready for many passes without gradient in numbers of `kind`: [`Vlp::packed`] for f32; for a low type, the
    /// weights of blocks and word head converted once.
    pub fn prepared(self, kind: DType) -> Self {
        if kind == DType::F32 {
            return self.packed();
        }
        let words = self.bert.embeddings.word_embeddings.val();
        let predictions = self.cls.predictions.clone().converted(words, kind);
        Self { cls: Heads { predictions }, ..self.map_layers(|linear| linear.converted(kind)) }
    }

    fn map_layers(self, change: impl Fn(Linear) -> Linear) -> Self {
        let layer = self.bert.encoder.layer.into_iter().map(|layer| layer.map_linear(&change)).collect();
        Self { bert: Bert { encoder: Encoder { layer, gradients: None }, ..self.bert }, ..self }
    }

    /// Logits over the vocabulary of `hidden` `[…, H]`.
    pub fn word_logits<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        self.cls.predictions.forward(hidden, self.bert.embeddings.word_embeddings.val())
    }

    /// Hidden states of whole sequences, `[B, T, H]`; arguments as in [`Embeddings::forward`] and [`Encoder::forward`].
    pub fn encode(
        &self,
        ids: Tensor<2, Int>,
        segments: Tensor<2, Int>,
        regions: &RegionStates,
        bias: Tensor<4>,
        pass: Pass,
    ) -> Tensor<3> {
        self.bert.encoder.forward(self.bert.embeddings.forward(ids, segments, regions, pass), bias, pass)
    }

    /// Logits `[B, answers]` of questions, without dropout; none for a model without an answer head.
    pub fn answer_logits(&self, inputs: &SequenceInputs) -> Option<Tensor<2>> {
        let classifier = self.ans_classifier.as_ref()?;
        let states = self.regions(inputs.features.clone(), inputs.positions.clone(), Pass::Evaluate);
        let (ids, segments) = (inputs.ids.clone(), inputs.segments.clone());
        let [first, separator] = self.image_ends(ids, segments, &states, inputs.bias.clone(), Pass::Evaluate);
        Some(classifier.forward(first, separator))
    }

    /// Hidden states `[B, H]` at `[CLS]` and at the `[SEP]` behind the regions, from which answers are read; the last block is
    /// computed there only. Arguments as of [`Vlp::encode`].
    pub fn image_ends(
        &self,
        ids: Tensor<2, Int>,
        segments: Tensor<2, Int>,
        regions: &RegionStates,
        bias: Tensor<4>,
        pass: Pass,
    ) -> [Tensor<2>; 2] {
        let [batch, count, _] = regions.words.dims();
        let x = self.bert.embeddings.forward(ids, segments, regions, pass);
        let rows = integers([0, count as i64 + 1].repeat(batch), [batch, 2], &x.device());
        let hidden = self.bert.encoder.forward_rows(x, bias, rows, pass); // [B, 2, H]
        let size = hidden.dims()[2];
        [0, 1].map(|i| hidden.clone().slice([0..batch, i..i + 1, 0..size]).reshape([batch, size]))
    }

    /// Every parameter under its checkpoint name, in model order.
    pub fn parameters(&self) -> Vec<NamedParameter> {
        struct Collect {
            path: Vec<String>,
            found: Vec<NamedParameter>,
        }
        impl ModuleVisitor for Collect {
            fn enter_module(&mut self, name: &str, _: &str) {
                self.path.push(name.to_owned());
            }
            fn exit_module(&mut self, _: &str, _: &str) {
                self.path.pop();
            }
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let value = param.val();
                self.found.push(NamedParameter {
                    name: reference_key(&self.path.join(".")),
                    shape: value.dims().to_vec(),
                    data: value.inner().into_data(),
                });
            }
        }
        let mut collect = Collect { path: Vec::new(), found: Vec::new() };
        self.visit(&mut collect);
        collect.found
    }

    /// Replaces parameters: `change(name, shape, current)` returns the new values, or `None` to keep the parameter.
    pub fn replace(self, change: &mut Change) -> Self {
        struct Replace<'a, 'b> {
            path: Vec<String>,
            change: &'a mut Change<'b>,
        }
        impl ModuleMapper for Replace<'_, '_> {
            fn enter_module(&mut self, name: &str, _: &str) {
                self.path.push(name.to_owned());
            }
            fn exit_module(&mut self, _: &str, _: &str) {
                self.path.pop();
            }
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let name = reference_key(&self.path.join("."));
                let value = param.val();
                let shape = value.dims();
                let current = || value.clone().inner().into_data();
                match (self.change)(&name, &shape, &current) {
                    None => param,
                    Some(data) => {
                        let device = value.device();
                        drop(value);
                        param.map(|old| {
                            let new = Tensor::from_data(data, &device);
                            if old.is_require_grad() { new.require_grad() } else { new }
                        })
                    }
                }
            }
        }
        let mut replace = Replace { path: Vec::new(), change };
        self.map(&mut replace)
    }

    /// Changes the values of the parameters that are `wanted`, by name, where they lie: `change(name, values)`. Nothing
    /// else may hold the model if its values are not to be copied.
    pub fn edit(self, wanted: &dyn Fn(&str) -> bool, change: &mut dyn FnMut(&str, &mut [f32])) -> Self {
        struct Edit<'a> {
            path: Vec<String>,
            wanted: &'a dyn Fn(&str) -> bool,
            change: &'a mut dyn FnMut(&str, &mut [f32]),
        }
        impl ModuleMapper for Edit<'_> {
            fn enter_module(&mut self, name: &str, _: &str) {
                self.path.push(name.to_owned());
            }
            fn exit_module(&mut self, _: &str, _: &str) {
                self.path.pop();
            }
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let name = reference_key(&self.path.join("."));
                if !(self.wanted)(&name) {
                    return param;
                }
                param.map(|old| {
                    let (trains, strategy) = (old.is_require_grad(), old.gradient_checkpointing_strategy());
                    let new = fused::edit(old.inner(), &mut |values| (self.change)(&name, values));
                    let new = match strategy {
                        Some(strategy) => new.autodiff().with_gradient_checkpointing_strategy(strategy),
                        None => new,
                    };
                    if trains { new.require_grad() } else { new }
                })
            }
        }
        self.map(&mut Edit { path: Vec::new(), wanted, change })
    }
}

/// Takes a parameter's name, its shape and a way to its values; gives new values, or `None` to keep it.
pub type Change<'a> = dyn FnMut(&str, &[usize], &dyn Fn() -> TensorData) -> Option<TensorData> + 'a;

/// One parameter's name, shape and values (f32).
#[derive(Debug)]
pub struct NamedParameter {
    /// Name in the published checkpoints.
    pub name: String,
    /// Shape as PyTorch stores it.
    pub shape: Vec<usize>,
    /// Values.
    pub data: TensorData,
}

/// The checkpoint name of a parameter from its path in the module tree. Tables are modules of their own in the reference.
pub fn reference_key(path: &str) -> String {
    let key = path.replace("layer_norm", "LayerNorm").replace("self_attention", "self").replace("linear_", "");
    if key.ends_with("_embeddings") { key + ".weight" } else { key }
}

/// Number of parameters of a model of these sizes, the tied matrix counted once.
pub fn parameter_count(settings: &ModelSettings, sizes: DataSizes) -> u64 {
    let [h, i, v] = [settings.hidden_size, settings.intermediate_size, sizes.vocabulary].map(|n| n as u64);
    let [f, c] = [sizes.region_feature_size as u64, sizes.num_region_classes as u64];
    let linear = |output: u64, input: u64| output * input + output;
    let tables = (v + settings.max_position_embeddings as u64 + settings.type_vocab_size as u64) * h + 2 * h;
    let layer = 4 * linear(h, h) + 2 * h + linear(i, h) + linear(h, i) + 2 * h;
    let heads = linear(h, h) + (linear(h, h) + 2 * h + v);
    let visual = linear(f, f) + linear(h, f) + linear(h, 6 + c);
    let answers = match sizes.answers as u64 {
        0 => 0,
        answers => linear(2 * h, h) + linear(answers, 2 * h),
    };
    tables + settings.num_hidden_layers as u64 * layer + heads + visual + answers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> (ModelSettings, DataSizes) {
        let settings = ModelSettings {
            hidden_size: 8,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 16,
            max_position_embeddings: 20,
            ..ModelSettings::default()
        };
        (settings, DataSizes { vocabulary: 11, region_feature_size: 5, num_region_classes: 3, answers: 4 })
    }

    #[test]
    fn names_are_those_of_the_published_checkpoints() {
        let (settings, sizes) = tiny();
        let parameters = Vlp::new(&settings, sizes, 1, &Device::flex()).parameters();
        let names: Vec<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names.len(), 5 + 2 * 16 + 2 + 5 + 6 + 4);
        for expected in [
            "bert.embeddings.word_embeddings.weight",
            "bert.embeddings.token_type_embeddings.weight",
            "bert.embeddings.LayerNorm.bias",
            "bert.encoder.layer.1.attention.self.query.weight",
            "bert.encoder.layer.1.attention.output.LayerNorm.weight",
            "bert.encoder.layer.0.intermediate.dense.bias",
            "bert.encoder.layer.0.output.dense.weight",
            "bert.pooler.dense.weight",
            "cls.predictions.bias",
            "cls.predictions.transform.LayerNorm.weight",
            "vis_embed.0.weight",
            "vis_embed.2.bias",
            "vis_pe_embed.0.weight",
            "ans_classifier.2.weight",
        ] {
            assert!(names.contains(&expected), "{expected} not in {names:?}");
        }
    }

    #[test]
    fn the_count_is_that_of_the_parameters() {
        let (settings, sizes) = tiny();
        let parameters = Vlp::new(&settings, sizes, 1, &Device::flex()).parameters();
        let counted: usize = parameters.iter().map(|p| p.shape.iter().product::<usize>()).sum();
        assert_eq!(parameter_count(&settings, sizes), counted as u64);
    }
}
