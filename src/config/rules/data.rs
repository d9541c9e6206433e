//! Rules for what is read: the paths that a data set needs, and question files for every split in use.
//!
//! Whether the files exist is for the data modules to say.

use std::collections::BTreeMap;

use super::super::diagnose::Problem;
use super::super::options::Dataset;
use super::Rules;

const HELP: &str = "`vlp explain data` describes the paths";

impl Rules<'_> {
    pub(super) fn data(&mut self) {
        let data = &self.settings.data;
        let mut paths = vec![
            ("data.valid_images", &data.valid_images),
            ("data.region_prefix", &data.region_prefix),
            ("data.boxes", &data.boxes),
            ("data.vocabulary", &data.vocabulary),
        ];
        match data.dataset {
            Dataset::Vqa2 => paths.push(("data.answers", &data.answers)),
            Dataset::Coco | Dataset::Cc | Dataset::Flickr30k => {
                paths.insert(0, ("data.annotations", &data.annotations))
            }
        }
        let empty = paths.iter().filter(|(key, path)| path.is_empty() && !self.spoilt(key)).map(|(key, _)| *key);
        let (stated, mut missing): (Vec<_>, Vec<_>) = empty.partition(|key| self.merge.winner(key).is_some());
        let questions = data.dataset == Dataset::Vqa2;
        if questions && data.imdb.is_empty() && !self.spoilt("data.imdb") {
            missing.push("data.imdb");
        }
        for key in stated {
            self.error(&[(key, "empty")], format!("`{key}` is empty"), HELP);
        }
        self.not_given(&missing);
        let maps = [
            ("data.imdb", &data.imdb),
            ("data.vqa_annotations", &data.vqa_annotations),
            ("data.vqa_questions", &data.vqa_questions),
        ];
        for (key, map) in maps {
            self.named_files(key, map);
        }
        if questions && !data.imdb.is_empty() {
            self.question_files();
        }
    }

    /// One error for all paths that no layer gives.
    fn not_given(&mut self, missing: &[&str]) {
        let Some(first) = missing.first() else { return };
        let names = missing.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        let verb = if missing.len() == 1 { "is" } else { "are" };
        let label = format!(
            "`{}` {}",
            first.trim_start_matches("data."),
            if missing.len() == 1 { "is missing" } else { "and others are missing" }
        );
        let place = self.merge.place_missing("data", &label);
        self.problems.push(Problem::error(place, format!("{names} {verb} not given"), HELP));
    }

    /// The files of a map are named.
    fn named_files(&mut self, key: &str, map: &BTreeMap<String, String>) {
        for (name, _) in map.iter().filter(|(_, path)| path.is_empty()) {
            let key = format!("{key}.{name}");
            self.error(&[(&key, "empty")], format!("`{key}` is empty"), "name the file, or leave the entry out");
        }
    }

    /// Every split that is used has its questions.
    fn question_files(&mut self) {
        let settings = self.settings;
        let training = settings.data.train_splits.iter().map(|split| ("data.train_splits", split));
        let selection = Some(("select.split", &settings.select.split)).filter(|(_, split)| !split.is_empty());
        let evaluation = settings.evaluate.splits.iter().map(|split| ("evaluate.splits", split));
        let known = settings.data.imdb.keys().cloned().collect::<Vec<_>>().join(", ");
        for (key, split) in training.chain(selection).chain(evaluation) {
            if !settings.data.imdb.contains_key(split) {
                let keys = [(key, "no questions"), ("data.imdb", "files by split")];
                let message = format!("`{key}` reads the split {split:?}, for which `data.imdb` names no file");
                self.error(&keys, message, &format!("add the file to `data.imdb`, or name one of its splits: {known}"));
            }
        }
    }
}
