//! Every file of the demo world but the marker, under the names that the original data have.
//!
//! Region tables are rendered one image at a time, so memory does not grow with the number of images.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use half::f16;
use serde_json::{Map, Value, json};

use super::npy::{self, Value as Py};
use super::write::{io, vocabulary};
use super::{DemoError, Picture, Prototypes, Question, Regions, World, answer_vocabulary, tokens};

const COCO: &str = "COCO/region_feat_gvd_wo_bgd";
const CC: &str = "CC/region_feat_gvd_wo_bgd";
const FLICKR: &str = "flickr30k/region_feat_gvd_wo_bgd";

/// Writes the world below `root`; returns each file's name relative to `root` and its size in bytes.
pub(super) fn write_all(root: &Path, world: &World) -> Result<Vec<(String, u64)>, DemoError> {
    let mut out = Out { root: root.into(), written: Vec::new() };
    out.text("vocab.txt", &lines(&vocabulary()))?;

    let coco_images: Vec<Value> = sentences(&world.coco, |p| {
        let folder = if p.split == "train" { "train2014" } else { "val2014" };
        json!({ "filepath": folder, "cocoid": p.image_id })
    });
    let coco: Vec<&Picture> = world.coco.iter().chain(&world.test2015).collect();
    out.json("COCO/annotations/dataset_coco.json", &json!({ "images": coco_images, "dataset": "coco" }))?;
    out.json("COCO/annotations/coco_valid_jpgs.json", &valid(&coco))?;
    let detections = format!("{COCO}/feat_cls_1000_float16/coco_detection_vg_100dets_gvd_checkpoint_trainval");
    let boxes = format!("{COCO}/coco_detection_vg_thresh0.2_feat_gvd_checkpoint_trainvaltest.h5");
    out.regions_hdf5(world, &coco, &detections, &boxes)?;

    let cc: Vec<&Picture> = world.cc.iter().collect();
    let cc_images = sentences(&world.cc, |p| json!({ "imgid": p.image_id }));
    out.json("CC/annotations/dataset_cc.json", &json!({ "images": cc_images, "dataset": "cc" }))?;
    out.json("CC/annotations/cc_valid_jpgs.json", &valid(&cc))?;
    let detections = format!("{CC}/feat_cls_1000_float16/cc_detection_vg_100dets_gvd_checkpoint_trainval");
    let boxes = format!("{CC}/bbox/cc_detection_vg_thresh0.2_feat_gvd_checkpoint_trainval.h5");
    out.regions_hdf5(world, &cc, &detections, &boxes)?;

    let flickr: Vec<&Picture> = world.flickr.iter().collect();
    let flickr_images = sentences(&world.flickr, |_| json!({}));
    let dataset = json!({ "images": flickr_images, "dataset": "flickr30k" });
    out.json("flickr30k/annotations/dataset_flickr30k.json", &dataset)?;
    out.json("flickr30k/annotations/flickr30k_valid_jpgs.json", &valid(&flickr))?;
    let boxes = format!("{FLICKR}/flickr30k_detection_vg_thresh0.2_feat_gvd_checkpoint_trainvaltest.h5");
    out.regions_npy(world, &flickr, &format!("{FLICKR}/trainval"), &boxes)?;

    out.text("VQA/answers_vqa.txt", &lines(&answer_vocabulary()))?;
    let (train, val): (Vec<&Picture>, Vec<&Picture>) = world.coco.iter().partition(|p| p.split == "train");
    out.vqa(world, "train2014", &train, true)?;
    out.vqa(world, "val2014", &val, true)?;
    out.vqa(world, "test2015", &world.test2015.iter().collect::<Vec<_>>(), false)?;
    Ok(out.written)
}

/// Records in the Karpathy layout; `extra` gives the keys that only this collection has, or has with another value.
fn sentences(pictures: &[Picture], extra: impl Fn(&Picture) -> Value) -> Vec<Value> {
    let mut sentid = 0;
    let mut image = |(imgid, picture): (usize, &Picture)| {
        let extra = extra(picture);
        let imgid = extra.get("imgid").cloned().unwrap_or(json!(imgid));
        let mut record = Map::new();
        record.insert("filename".into(), format!("{}.jpg", picture.stem).into());
        record.insert("imgid".into(), imgid.clone());
        record.insert("split".into(), picture.split.into());
        record.extend(extra.as_object().cloned().unwrap_or_default());
        let first = sentid;
        let sentences: Vec<Value> = picture
            .captions
            .iter()
            .map(|raw| {
                sentid += 1;
                json!({ "tokens": tokens(raw), "raw": raw, "imgid": imgid, "sentid": sentid - 1 })
            })
            .collect();
        record.insert("sentids".into(), (first..sentid).collect());
        record.insert("sentences".into(), sentences.into());
        Value::Object(record)
    };
    pictures.iter().enumerate().map(&mut image).collect()
}

fn valid(pictures: &[&Picture]) -> Value {
    pictures.iter().map(|p| format!("{}.jpg", p.stem)).map(|name| (name.clone(), Value::from(name))).collect()
}

fn lines(items: &[String]) -> String {
    items.iter().map(|item| format!("{item}\n")).collect()
}

struct Out {
    root: PathBuf,
    written: Vec<(String, u64)>,
}

impl Out {
    /// Absolute path of a new file, its folder made.
    fn path(&self, name: &str) -> Result<PathBuf, DemoError> {
        let path = self.root.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|source| io(folder, source))?;
        }
        Ok(path)
    }

    fn done(&mut self, name: String) -> Result<(), DemoError> {
        let path = self.root.join(&name);
        let size = fs::metadata(&path).map_err(|source| io(&path, source))?.len();
        self.written.push((name, size));
        Ok(())
    }

    fn file(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
    ) -> Result<(), DemoError> {
        let path = self.path(name)?;
        File::create(&path)
            .and_then(|file| {
                let mut out = BufWriter::new(file);
                fill(&mut out)?;
                out.flush()
            })
            .map_err(|source| io(&path, source))?;
        self.done(name.into())
    }

    fn text(&mut self, name: &str, text: &str) -> Result<(), DemoError> {
        self.file(name, |out| out.write_all(text.as_bytes()))
    }

    fn json(&mut self, name: &str, value: &Value) -> Result<(), DemoError> {
        self.file(name, |out| serde_json::to_writer(out, value).map_err(Into::into))
    }

    /// `<detections>_featNNN.h5`, `<detections>_clsNNN.h5` in float16, and the box file.
    fn regions_hdf5(
        &mut self,
        world: &World,
        pictures: &[&Picture],
        detections: &str,
        boxes: &str,
    ) -> Result<(), DemoError> {
        let g = world.sizes.geometry;
        let mut by_ending: BTreeMap<u64, Vec<&Picture>> = BTreeMap::new();
        pictures.iter().for_each(|p| by_ending.entry(p.image_id % 1000).or_default().push(p));
        let prototypes = world.prototypes();
        let box_file = Hdf5::create(self.path(boxes)?)?;
        for (ending, pictures) in by_ending {
            let names = ["feat", "cls"].map(|kind| format!("{detections}_{kind}{ending:03}.h5"));
            let [features, scores] = [Hdf5::create(self.path(&names[0])?)?, Hdf5::create(self.path(&names[1])?)?];
            for picture in pictures {
                let regions = world.regions(picture, &prototypes);
                let half = |values: &[f32]| values.iter().map(|v| f16::from_f32(*v)).collect::<Vec<f16>>();
                features.table(&picture.stem, g.feature_size, &half(&regions.features))?;
                scores.table(&picture.stem, g.classes, &half(&regions.class_scores))?;
                box_file.table(&picture.stem, 6, &regions.boxes)?;
            }
            features.close()?;
            scores.close()?;
            names.into_iter().try_for_each(|name| self.done(name))?;
        }
        box_file.close()?;
        self.done(boxes.into())
    }

    /// `<folder>/<stem>.npy` and `<folder>/<stem>_cls_prob.npy` in float32, and the box file.
    fn regions_npy(
        &mut self,
        world: &World,
        pictures: &[&Picture],
        folder: &str,
        boxes: &str,
    ) -> Result<(), DemoError> {
        let g = world.sizes.geometry;
        let prototypes: Prototypes = world.prototypes();
        let box_file = Hdf5::create(self.path(boxes)?)?;
        for picture in pictures {
            let regions: Regions = world.regions(picture, &prototypes);
            let stem = &picture.stem;
            self.file(&format!("{folder}/{stem}.npy"), |out| {
                npy::write_f32(out, &[g.regions, g.feature_size], &regions.features)
            })?;
            self.file(&format!("{folder}/{stem}_cls_prob.npy"), |out| {
                npy::write_f32(out, &[g.regions, g.classes], &regions.class_scores)
            })?;
            box_file.table(stem, 6, &regions.boxes)?;
        }
        box_file.close()?;
        self.done(boxes.into())
    }

    /// The pickled questions (imdb) and the official questions and, where there are answers, annotations.
    fn vqa(&mut self, world: &World, split: &str, pictures: &[&Picture], answered: bool) -> Result<(), DemoError> {
        let asked: Vec<(u64, &Picture, Question)> = pictures
            .iter()
            .flat_map(|p| {
                world.questions(p).into_iter().enumerate().map(|(k, q)| (1000 * p.image_id + k as u64, *p, q))
            })
            .collect();
        let header = Py::Dict(vec![
            ("has_answer", Py::Bool(answered)),
            ("has_gt_layout", Py::Bool(false)),
            ("dataset_name", Py::Text("vqa2".into())),
        ]);
        let entries = asked.iter().map(|(id, picture, question)| imdb_entry(*id, picture, question, answered));
        let items: Vec<Py> = std::iter::once(header).chain(entries).collect();
        self.file(&format!("VQA/imdb/imdb_{split}.npy"), |out| npy::write_objects(out, &items))?;

        let frame = |task: bool, key: &str, rows: Vec<Value>| {
            let mut out = Map::new();
            let info = json!({
                "description": "Questions about the demo world, in the layout of VQA v2.0.",
                "url": "", "version": "2.0", "year": 2020, "contributor": "", "date_created": "2020-01-01 00:00:00",
            });
            out.insert("info".into(), info);
            out.insert("license".into(), json!({ "url": "", "name": "" }));
            out.insert("data_subtype".into(), split.into());
            out.insert("data_type".into(), "mscoco".into());
            if task {
                out.insert("task_type".into(), "Open-Ended".into());
            }
            out.insert(key.into(), rows.into());
            Value::Object(out)
        };
        let questions = asked
            .iter()
            .map(|(id, p, q)| json!({ "image_id": p.image_id, "question": q.text, "question_id": id }))
            .collect();
        let name = format!("VQA/v2_OpenEnded_mscoco_{split}_questions.json");
        self.json(&name, &frame(true, "questions", questions))?;
        if answered {
            let annotations = asked.iter().map(|(id, p, q)| annotation(*id, p, q)).collect();
            let name = format!("VQA/v2_mscoco_{split}_annotations.json");
            self.json(&name, &frame(false, "annotations", annotations))?;
        }
        Ok(())
    }
}

fn imdb_entry(id: u64, picture: &Picture, question: &Question, answered: bool) -> Py {
    let list = |words: &[String]| Py::List(words.iter().cloned().map(Py::Text).collect());
    let mut entry = vec![
        ("image_name", Py::Text(picture.stem.clone())),
        ("image_id", Py::Int(picture.image_id as i64)),
        ("question_id", Py::Int(id as i64)),
        ("feature_path", Py::Text(format!("{}.npy", picture.stem))),
        ("question_str", Py::Text(question.text.clone())),
        ("question_tokens", list(&tokens(&question.text))),
    ];
    if answered {
        entry.push(("answers", list(&question.answers)));
    }
    Py::Dict(entry)
}

fn annotation(id: u64, picture: &Picture, question: &Question) -> Value {
    let answers: Vec<Value> = question
        .answers
        .iter()
        .zip(&question.confidences)
        .enumerate()
        .map(|(i, (answer, sure))| json!({ "answer": answer, "answer_confidence": sure, "answer_id": i + 1 }))
        .collect();
    json!({
        "question_type": question.question_type,
        "multiple_choice_answer": question.answer,
        "answers": answers,
        "image_id": picture.image_id,
        "answer_type": question.answer_type.name(),
        "question_id": id,
    })
}

/// A new HDF5 file of contiguous tables, without time stamps.
struct Hdf5 {
    path: PathBuf,
    file: hdf5::File,
}

impl Hdf5 {
    fn create(path: PathBuf) -> Result<Self, DemoError> {
        match hdf5::File::create(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(DemoError::Hdf5 { path, source }),
        }
    }

    /// A `[values / columns, columns]` table.
    fn table<T: hdf5::H5Type>(&self, name: &str, columns: usize, values: &[T]) -> Result<(), DemoError> {
        self.file
            .new_dataset::<T>()
            .obj_track_times(false)
            .shape((values.len() / columns, columns))
            .create(name)
            .and_then(|table| table.write_raw(values))
            .map_err(|source| self.error(source))
    }

    fn close(&self) -> Result<(), DemoError> {
        self.file.flush().map_err(|source| self.error(source))
    }

    fn error(&self, source: hdf5::Error) -> DemoError {
        DemoError::Hdf5 { path: self.path.clone(), source }
    }
}
