//! The fused operations against the composed ones.

use burn::tensor::{Device, Distribution, activation};

use super::*;
use crate::model::host_values;

/// Devices whose tensors lie in host memory, in this build.
fn devices() -> Vec<Device> {
    crate::model::device::available()
        .into_iter()
        .filter_map(|name| crate::model::device::open(name).ok())
        .filter(|device| !is_gpu(device))
        .collect()
}

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::<D>::random(shape, Distribution::Normal(0.0, 1.0), &device.clone().inner())
}

fn mask(count: usize) -> Mask {
    Mask { bytes: Arc::new((0..count).map(|i| u8::from(i % 3 != 1)).collect()), scale: 1.5 }
}

fn factors<const D: usize>(mask: &Mask, shape: [usize; D], device: &Device) -> Tensor<D> {
    let values: Vec<f32> = mask.bytes.iter().map(|b| f32::from(*b) * mask.scale).collect();
    Tensor::from_data(burn::tensor::TensorData::new(values, shape), device)
}

fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= 2e-5 * (1.0 + expected.abs()), "{what} {i}: {found} for {expected}");
    }
}

type Run<'a, const D: usize> = &'a dyn Fn(&[Tensor<2>]) -> Tensor<D>;

/// Runs the fused and the composed form over the same leaves of a graph; results and all gradients must agree.
fn compare<const D: usize>(what: &str, device: &Device, leaves: &[Tensor<2>], run: [Run<D>; 2]) {
    let graph = device.clone().autodiff();
    let [found, expected] = run.map(|run| {
        let leaves: Vec<Tensor<2>> =
            leaves.iter().map(|leaf| Tensor::from_data(leaf.clone().into_data(), &graph).require_grad()).collect();
        let y = run(&leaves);
        // A gradient that differs from place to place.
        let weights: Vec<f32> = (0..y.shape().num_elements()).map(|i| (i % 11) as f32 / 5.0 - 1.0).collect();
        let weights = Tensor::from_data(burn::tensor::TensorData::new(weights, y.shape()), &graph);
        let gradients = (y.clone() * weights).sum().backward();
        let mut values = vec![host_values(y)];
        values.extend(leaves.iter().map(|leaf| host_values(leaf.grad(&gradients).expect("a gradient"))));
        values
    });
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_close(&format!("{what} on {device:?}, result {i}"), found, expected);
    }
}

fn flat(leaf: &Tensor<2>) -> Tensor<1> {
    let [rows, columns] = leaf.dims();
    leaf.clone().reshape([rows * columns])
}

#[test]
fn linear_maps_are_the_composed_ones() {
    for device in devices() {
        for [batch, rows, input, output] in [[1, 1, 1, 1], [2, 3, 5, 7], [3, 40, 33, 65]] {
            let leaves = [
                random([batch * rows, input], &device),
                random([output, input], &device),
                random([1, output], &device),
            ];
            let shape = [batch, rows, input];
            compare(
                "linear",
                &device,
                &leaves,
                [&|leaves| linear(leaves[0].clone().reshape(shape), leaves[1].clone(), flat(&leaves[2])), &|leaves| {
                    leaves[0].clone().reshape(shape).matmul(leaves[1].clone().transpose().unsqueeze())
                        + flat(&leaves[2]).reshape([1, 1, output])
                }],
            );
        }
    }
}

#[test]
fn values_that_do_not_lie_in_order_are_brought_into_it() {
    for device in devices() {
        let leaves = [random([6, 35], &device), random([7, 6], &device), random([1, 7], &device)];
        let turned = |leaf: &Tensor<2>| leaf.clone().reshape([6, 5, 7]).permute([2, 1, 0]);
        compare(
            "linear of permuted values",
            &device,
            &leaves,
            [&|leaves| linear(turned(&leaves[0]), leaves[1].clone(), flat(&leaves[2])), &|leaves| {
                turned(&leaves[0]).matmul(leaves[1].clone().transpose().unsqueeze())
                    + flat(&leaves[2]).reshape([1, 1, 7])
            }],
        );
        compare(
            "GELU",
            &device,
            &leaves,
            [
                &|leaves| {
                    gelu(turned(&leaves[0]))
                        + leaves[1].clone().sum().reshape([1, 1, 1])
                        + leaves[2].clone().sum().reshape([1, 1, 1])
                },
                &|leaves| {
                    activation::gelu(turned(&leaves[0]))
                        + leaves[1].clone().sum().reshape([1, 1, 1])
                        + leaves[2].clone().sum().reshape([1, 1, 1])
                },
            ],
        );
    }
}

#[test]
fn gelu_and_dropout_are_the_composed_ones() {
    for device in devices() {
        let leaves = [random([70, 301], &device).mul_scalar(3.0)];
        compare(
            "GELU",
            &device,
            &leaves,
            [&|leaves| gelu(leaves[0].clone()), &|leaves| activation::gelu(leaves[0].clone())],
        );
        let mask = mask(70 * 301);
        compare(
            "dropout",
            &device,
            &leaves,
            [&|leaves| drop_out(leaves[0].clone(), mask.clone()), &|leaves| {
                leaves[0].clone() * factors(&mask, [70, 301], &leaves[0].device())
            }],
        );
    }
}

#[test]
fn three_maps_side_by_side_are_three_maps() {
    for device in devices() {
        for [batch, rows, input, output] in [[1, 1, 1, 1], [2, 3, 5, 7], [3, 40, 33, 64]] {
            let mut leaves = vec![random([batch * rows, input], &device)];
            leaves.extend((0..3).map(|_| random([output, input], &device)));
            leaves.extend((0..3).map(|_| random([1, output], &device)));
            let parts = |leaves: &[Tensor<2>]| {
                let x = leaves[0].clone().reshape([batch, rows, input]);
                (x, [1, 2, 3].map(|i| leaves[i].clone()), [4, 5, 6].map(|i| flat(&leaves[i])))
            };
            compare(
                "three maps",
                &device,
                &leaves,
                [
                    &|leaves| {
                        let (x, weights, biases) = parts(leaves);
                        linear_3(x, weights, biases)
                    },
                    &|leaves| {
                        let (x, weights, biases) = parts(leaves);
                        let each = weights.into_iter().zip(biases).map(|(weight, bias)| {
                            x.clone().matmul(weight.transpose().unsqueeze()) + bias.reshape([1, 1, output])
                        });
                        Tensor::cat(each.collect(), 2)
                    },
                ],
            );
        }
    }
}

#[test]
fn attention_is_the_composed_one() {
    for device in devices() {
        for [batch, length, heads, size] in [[1, 1, 1, 1], [2, 19, 3, 5], [3, 37, 4, 16], [1, 116, 12, 64]] {
            let hidden = heads * size;
            let shape = [batch, heads, length, length];
            let leaves = [random([batch * length, 3 * hidden], &device)];
            let hides: Vec<f32> = (0..batch * length * length)
                .map(|i| if i % 5 == 2 && i % length != 0 { -10_000.0 } else { 0.0 })
                .collect();
            let hides = TensorData::new(hides, [batch, 1, length, length]);
            let bias = |leaf: &Tensor<2>| Tensor::<4>::from_data(hides.clone(), &leaf.device());
            for mask in [None, Some(mask(shape.iter().product()))] {
                compare(
                    &format!("attention {shape:?}"),
                    &device,
                    &leaves,
                    [
                        &|leaves| {
                            let together = leaves[0].clone().reshape([batch, length, 3 * hidden]);
                            attention(together, bias(&leaves[0]), heads, mask.clone())
                        },
                        &|leaves| {
                            let part = |i: usize| {
                                let all = leaves[0].clone().reshape([batch, length, 3, heads, size]);
                                let part: Tensor<5> = all.slice([0..batch, 0..length, i..i + 1]);
                                part.reshape([batch, length, heads, size]).swap_dims(1, 2)
                            };
                            let scores = part(0).matmul(part(1).transpose()).div_scalar((size as f64).sqrt());
                            let weights = activation::softmax(scores + bias(&leaves[0]), 3);
                            let weights = match &mask {
                                None => weights,
                                Some(mask) => weights * factors(mask, shape, &leaves[0].device()),
                            };
                            weights.matmul(part(2)).swap_dims(1, 2).reshape([batch, length, hidden])
                        },
                    ],
                );
            }
        }
    }
}

#[test]
fn attention_over_keys_of_others_is_the_composed_one() {
    for device in devices() {
        for [batch, count, length, heads, size] in [[1, 1, 1, 1, 1], [2, 19, 37, 3, 5], [3, 40, 7, 4, 16]] {
            let hidden = heads * size;
            let shape = [batch, heads, count, length];
            // Keys in order, values as rows in which the heads lie side by side.
            let leaves = [
                random([batch * count, hidden], &device),
                random([batch * heads * length, size], &device),
                random([batch * length, hidden], &device),
            ];
            let parts = |leaves: &[Tensor<2>]| {
                let rows = leaves[2].clone().reshape([batch, length, heads, size]);
                (
                    leaves[0].clone().reshape([batch, count, hidden]),
                    leaves[1].clone().reshape([batch, heads, length, size]),
                    rows.swap_dims(1, 2),
                )
            };
            let hides: Vec<f32> = (0..batch * count * length)
                .map(|i| if i % 5 == 2 && i % length != 0 { -10_000.0 } else { 0.0 })
                .collect();
            let hides = TensorData::new(hides, [batch, 1, count, length]);
            let bias = |leaf: &Tensor<2>| Tensor::<4>::from_data(hides.clone(), &leaf.device());
            for mask in [None, Some(mask(shape.iter().product()))] {
                compare(
                    &format!("attention over {shape:?}"),
                    &device,
                    &leaves,
                    [
                        &|leaves| {
                            let (queries, keys, values) = parts(leaves);
                            attention_over(queries, keys, values, bias(&leaves[0]), mask.clone())
                        },
                        &|leaves| {
                            let (queries, keys, values) = parts(leaves);
                            let queries = queries.reshape([batch, count, heads, size]).swap_dims(1, 2);
                            let scores = queries.matmul(keys.transpose()).div_scalar((size as f64).sqrt());
                            let weights = activation::softmax(scores + bias(&leaves[0]), 3);
                            let weights = match &mask {
                                None => weights,
                                Some(mask) => weights * factors(mask, shape, &leaves[0].device()),
                            };
                            weights.matmul(values).swap_dims(1, 2).reshape([batch, count, hidden])
                        },
                    ],
                );
            }
        }
    }
}

#[test]
fn attention_over_kept_keys_is_the_composed_one() {
    for device in devices() {
        // Images, beams, queries, heads, size, places, words.
        for [images, beams, count, heads, size, places, words] in
            [[1, 1, 1, 1, 1, 1, 1], [2, 1, 2, 3, 5, 9, 2], [2, 5, 2, 2, 32, 70, 7], [3, 3, 1, 2, 64, 102, 20]]
        {
            let (rows, hidden) = (images * beams, heads * size);
            let random = |shape: [usize; 4]| {
                let [a, b, c, d] = shape;
                random([a * b * c, d], &device).reshape(shape)
            };
            let queries = random([1, rows, count, hidden]).reshape([rows, count, hidden]);
            let image = [0, 1].map(|_| random([images, heads, places, size]));
            let text = [0, 1].map(|_| random([rows, heads, words, size]));
            let mut bytes: Vec<u8> = mask(rows * heads * count * (places + words)).bytes.to_vec();
            // The first row has no dropout.
            bytes[..heads * count * (places + words)].fill(AS_IT_IS);
            let some = Mask { bytes: Arc::new(bytes.clone()), scale: 1.5 };
            let factors: Vec<f32> = bytes.iter().map(|byte| [0.0, 1.5, 1.0][usize::from(*byte)]).collect();
            let factors = TensorData::new(factors, [rows, heads, count, places + words]);
            for (mask, bias_rows) in [(None, 1), (Some(some), rows)] {
                let hides = (0..bias_rows * count * words).map(|i| if i % 5 == 3 { -10_000.0f32 } else { 0.0 });
                let hides = TensorData::new(hides.collect::<Vec<f32>>(), [bias_rows, 1, count, words]);
                let bias = Tensor::<4>::from_data(hides, &device);
                let turned = crate::model::layers::turned(image[0].clone());
                let found = attention_cached(
                    queries.clone(),
                    [turned, image[1].clone()],
                    text.clone(),
                    bias.clone(),
                    mask.clone(),
                );
                let of_rows = |image: &Tensor<4>| {
                    let all = image.clone().unsqueeze_dim::<5>(1).repeat_dim(1, beams);
                    all.reshape([rows, heads, places, size])
                };
                let split = queries.clone().reshape([rows, count, heads, size]).swap_dims(1, 2);
                let split = split.div_scalar((size as f64).sqrt());
                let on_image = split.clone().matmul(of_rows(&image[0]).transpose());
                let on_text = split.matmul(text[0].clone().transpose()) + bias;
                let mut weights = activation::softmax(Tensor::cat(vec![on_image, on_text], 3), 3);
                if mask.is_some() {
                    weights = weights * Tensor::from_data(factors.clone(), &device);
                }
                let all = Tensor::cat(vec![of_rows(&image[1]), text[1].clone()], 2);
                let expected = weights.matmul(all).swap_dims(1, 2).reshape([rows, count, hidden]);
                let what = format!("{images} × {beams} × {count} on {device:?}");
                assert_close(&what, &host_values(found), &host_values(expected));
            }
        }
    }
}

#[test]
fn normalisations_are_the_composed_ones() {
    for device in devices() {
        for [rows, width] in [[1, 5], [40, 33], [70, 64]] {
            let leaves = [
                random([rows, width], &device),
                random([rows, width], &device),
                random([1, width], &device),
                random([1, width], &device),
            ];
            let plain = |x: Tensor<2>, leaves: &[Tensor<2>]| {
                burn::tensor::module::layer_norm(x, flat(&leaves[2]), Some(flat(&leaves[3])), 1e-5)
            };
            for mask in [None, Some(mask(rows * width))] {
                compare(
                    "sum and normalisation",
                    &device,
                    &leaves,
                    [
                        &|leaves| {
                            let [x, residual] = [0, 1].map(|i| leaves[i].clone());
                            add_norm(x, residual, mask.clone(), flat(&leaves[2]), flat(&leaves[3]), 1e-5)
                        },
                        &|leaves| {
                            let x = match &mask {
                                None => leaves[0].clone(),
                                Some(mask) => leaves[0].clone() * factors(mask, [rows, width], &leaves[0].device()),
                            };
                            plain(x + leaves[1].clone(), leaves)
                        },
                    ],
                );
            }
            compare(
                "normalisation",
                &device,
                &leaves,
                [
                    &|leaves| norm(leaves[0].clone() * leaves[1].clone(), flat(&leaves[2]), flat(&leaves[3]), 1e-5),
                    &|leaves| plain(leaves[0].clone() * leaves[1].clone(), leaves),
                ],
            );
        }
    }
}

#[test]
fn shared_tensors_are_left_as_they_are() {
    for device in devices() {
        let x = random([6, 30], &device);
        let before = host_values(x.clone());
        let bias = Tensor::<4>::zeros([2, 1, 3, 3], &device);
        let together = x.clone().reshape([2, 3, 30]);
        let _ = attention(together.clone(), bias.clone(), 2, Some(mask(36)));
        let keys = together.clone().reshape([2, 2, 3, 15]);
        let _ = attention_over(together.clone(), keys.clone(), keys, bias, Some(mask(36)));
        let ones = Tensor::<1>::ones([30], &device);
        let _ = norm(x.clone(), ones.clone(), ones.clone(), 1e-5);
        let _ = add_norm(x.clone(), x.clone(), None, ones.clone(), ones, 1e-5);
        assert_eq!(host_values(edit(x.clone(), &mut |values| values.fill(1.0))), vec![1.0; 180]);
        read(&x, &mut |values| assert_eq!(values, before));
        assert_eq!(host_values(x), before);
    }
}

#[test]
fn other_types_and_graphs_that_compute_twice_take_the_composed_operations() {
    let device = Device::flex();
    let x = Tensor::<2>::ones([2, 2], &device);
    assert!(applies(&x));
    assert!(applies(&Tensor::<2>::ones([2, 2], &device.clone().autodiff())));
    assert!(!applies(&x.cast(DType::BF16)));
    assert!(!applies(&Tensor::<2>::ones([2, 2], &device.autodiff().gradient_checkpointing())));
}
