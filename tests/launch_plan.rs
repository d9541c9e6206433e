//! From experiment files to processes: lineage, decisions about earlier runs, the printed plan, and the launcher.

#[path = "launch_plan/launcher.rs"]
mod launcher;
#[path = "launch_plan/slurm.rs"]
mod slurm;

use std::fs;
use std::path::PathBuf;

use vlp::config::{self, Experiment, Overrides};
use vlp::launch::plan::{Facts, Machine};
use vlp::pipeline::lineage::{self, Source};
use vlp::pipeline::stage::{self, Candidate, Decision, Request};
use vlp::track::{Entry, Journal, Lock, RunDir, State, write_atomic};

// ---------------------------------------------------------------------------------------------- files and candidates

struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        world.file("toy/cc.toml", "cc_pretrain", "", "epochs = 4");
        world.file("toy/coco.toml", "coco_ce", "cc_pretrain", "epochs = 3");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An experiment file below `experiments/`.
    fn file(&self, name: &str, experiment: &str, from: &str, train: &str) -> PathBuf {
        let path = self.path("experiments").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let runs = self.path("runs");
        let text = format!(
            "[experiment]\nname = {experiment:?}\n[init]\nfrom = {from:?}\n[train]\n{train}\nbatch_size = 16\n\
             [data]\nannotations = \"a.json\"\nvalid_images = \"v.json\"\nregion_prefix = \"r\"\nboxes = \"b.h5\"\n\
             vocabulary = \"vocab.txt\"\nnum_regions = 10\n\
             [output]\nruns = {runs:?}\n"
        );
        fs::write(&path, text).unwrap();
        path
    }

    fn load(&self, name: &str) -> Experiment {
        config::load(&self.path("experiments").join(name), &Overrides::default()).unwrap()
    }

    fn chain(&self) -> Vec<Candidate> {
        let chain = lineage::resolve(self.load("toy/coco.toml"), &Overrides::default()).unwrap();
        chain.into_iter().map(|experiment| Candidate { experiment, facts: facts() }).collect()
    }

    /// A text without the name of the temporary folder.
    fn clean(&self, text: impl ToString) -> String {
        text.to_string().replace(&self.folder.path().display().to_string(), "[dir]")
    }

    /// A run that does the work of `lock`, with so many checkpoints.
    fn run(&self, lock: &Lock, epochs: usize, state: State) -> RunDir {
        let run = RunDir::create(&self.path("runs"), lock).unwrap();
        let journal = Journal::open(&run.journal_file()).unwrap();
        for epoch in 1..=epochs {
            write_atomic(&run.model_file(epoch), format!("weights {epoch}").as_bytes()).unwrap();
        }
        journal.append(&Entry::state(state, "")).unwrap();
        run
    }
}

fn facts() -> Facts {
    Facts {
        train_images: 400,
        train_samples: 2001,
        split_images: [("train", 400), ("val", 50), ("test", 1060)].map(|(name, n)| (name.to_string(), n)).into(),
        vocabulary: 120,
        parameters: 1_234_567,
        data_fingerprint: "data-1".into(),
        device: "flex".into(),
    }
}

/// A request for a new run of an experiment.
fn fresh(experiment: &str) -> Request {
    Request { fresh: [experiment.to_string()].into(), allow_drift: false }
}

fn machine() -> Machine {
    Machine { program: "/opt/bin/vlp".into(), extra_args: Vec::new(), processors: 8, master_port: None }
}

// ------------------------------------------------------------------------------------------------------------ lineage

#[test]
fn what_an_experiment_starts_from() {
    let mut init = config::Settings::default().init;
    let mut source = |from: &str| {
        init.from = from.into();
        lineage::source(&init)
    };
    assert_eq!(source(""), Source::Random);
    assert_eq!(source("cc_pretrain"), Source::Experiment("cc_pretrain".into()));
    for path in ["weights/x", "model.safetensors", "pytorch_model.bin", "x.pt"] {
        assert_eq!(source(path), Source::Checkpoint(path.into()));
    }
}

#[test]
fn upstream_experiments_are_found_beside_the_file_then_anywhere() {
    let world = World::new();
    let names = |chain: &[Experiment]| chain.iter().map(|e| world.clean(e.file.display())).collect::<Vec<_>>();
    world.file("other/cc.toml", "cc_pretrain", "", "epochs = 9");
    let chain = lineage::resolve(world.load("toy/coco.toml"), &Overrides::default()).unwrap();
    assert_eq!(names(&chain), ["[dir]/experiments/toy/cc.toml", "[dir]/experiments/toy/coco.toml"]);
    world.file("far/scst.toml", "coco_scst", "coco_ce", "epochs = 1");
    let chain = lineage::resolve(world.load("far/scst.toml"), &Overrides::default()).unwrap();
    assert_eq!(names(&chain)[2], "[dir]/experiments/far/scst.toml");
    assert_eq!(chain.len(), 3);
}

#[test]
fn upstream_experiments_take_the_profile_only_if_they_have_it() {
    let world = World::new();
    let add = |name: &str, text: &str| {
        let path = world.path("experiments").join(name);
        fs::write(&path, fs::read_to_string(&path).unwrap() + text).unwrap();
    };
    add("toy/coco.toml", "[profile.fast.train]\nepochs = 1\n");
    let overrides = Overrides { profile: Some("fast".into()), ..Default::default() };
    let epochs = || {
        let target = config::load(&world.path("experiments/toy/coco.toml"), &overrides).unwrap();
        let chain = lineage::resolve(target, &overrides).unwrap();
        chain.iter().map(|e| e.settings.train.epochs).collect::<Vec<_>>()
    };
    assert_eq!(epochs(), [4, 1]);
    add("toy/cc.toml", "[profile.fast.train]\nepochs = 2\n");
    assert_eq!(epochs(), [2, 1]);
}

#[test]
fn wrong_lineages_are_told() {
    let world = World::new();
    let message = |name: &str| world.clean(lineage::resolve(world.load(name), &Overrides::default()).unwrap_err());
    world.file("toy/typo.toml", "typo", "cc_pretran", "epochs = 1");
    insta::assert_snapshot!(message("toy/typo.toml"), @r##"
    [dir]/experiments/toy/typo.toml: `init.from` is `cc_pretran`, but no experiment has that name; known: cc_pretrain, coco_ce, typo
      help: did you mean `cc_pretrain`?
    "##);
    world.file("toy/far.toml", "far", "bert", "epochs = 1");
    insta::assert_snapshot!(message("toy/far.toml"), @r##"
    [dir]/experiments/toy/far.toml: `init.from` is `bert`, but no experiment has that name; known: cc_pretrain, coco_ce, far, typo
      help: give the name of an experiment, or a checkpoint path with a `/` in it
    "##);
    world.file("toy/a.toml", "a", "b", "epochs = 1");
    world.file("toy/b.toml", "b", "a", "epochs = 1");
    insta::assert_snapshot!(message("toy/a.toml"), @r##"
    [dir]/experiments/toy/a.toml: `init.from` leads back to the experiment itself: a → b → a
      help: give one of them a checkpoint path, or no `init.from`
    "##);
    world.file("one/x.toml", "x", "", "epochs = 1");
    world.file("two/x.toml", "x", "", "epochs = 1");
    world.file("toy/y.toml", "y", "x", "epochs = 1");
    insta::assert_snapshot!(message("toy/y.toml"), @r##"
    [dir]/experiments/toy/y.toml: `init.from` is `x`, a name that several files have: [dir]/experiments/one/x.toml, [dir]/experiments/two/x.toml
      help: rename all but one, or put the right one into the same folder
    "##);
}

// ---------------------------------------------------------------------------------------------------------- decisions

#[test]
fn a_chain_that_never_ran_starts_from_its_beginning() {
    let world = World::new();
    let chain = world.chain();
    let decided = stage::decide_all(&chain, &Request::default()).unwrap();
    let mut two = chain[1].clone();
    two.experiment.settings.launch.world_size = 2;
    let text = stage::describe(&[chain[0].clone(), two], &decided, &machine());
    insta::assert_snapshot!(world.clean(text), @r##"
    stage 1 of 2: cc_pretrain: start [dir]/runs/cc_pretrain/<new run> (no earlier run)
      file        [dir]/experiments/toy/cc.toml
      weights     random
      images      test 1,060, train 400, val 50
      samples     2,001 captions of 400 training images
      batch       16 samples × 1 process × 1 accumulated = 16
      steps       504 (126 batches per epoch and process, 4 epochs)
      parameters  1,234,567, vocabulary 120
      memory      about 523.1 MB per process (14.8 MB weights, gradients, moments; 400.5 MB activations; 107.8 MB program and batches)
      disk        about 14.8 MB per checkpoint, at most 4 kept: 59.3 MB
      process     rank 0 on auto
                  vlp worker --run [dir]/runs/cc_pretrain/<new run>
                  LOCAL_RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 OMP_NUM_THREADS=8 RANK=0 RAYON_NUM_THREADS=8 WORLD_SIZE=1
    stage 2 of 2: coco_ce: start [dir]/runs/coco_ce/<new run> (no earlier run)
      file        [dir]/experiments/toy/coco.toml
      weights     last checkpoint of `cc_pretrain`, which runs first
      images      test 1,060, train 400, val 50
      samples     2,001 captions of 400 training images
      batch       16 samples × 2 processes × 1 accumulated = 32
      steps       189 (63 batches per epoch and process, 3 epochs)
      parameters  1,234,567, vocabulary 120
      memory      about 523.1 MB per process (14.8 MB weights, gradients, moments; 400.5 MB activations; 107.8 MB program and batches)
      disk        about 14.8 MB per checkpoint, at most 3 kept: 44.4 MB
      process     rank 0 on auto
                  vlp worker --run [dir]/runs/coco_ce/<new run>
                  LOCAL_RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 OMP_NUM_THREADS=4 RANK=0 RAYON_NUM_THREADS=4 WORLD_SIZE=2
      process     rank 1 on auto
                  vlp worker --run [dir]/runs/coco_ce/<new run>
                  LOCAL_RANK=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 OMP_NUM_THREADS=4 RANK=1 RAYON_NUM_THREADS=4 WORLD_SIZE=2
    "##);
    assert!(!world.path("runs").exists(), "a plan leaves nothing behind");
}

#[test]
fn a_finished_stage_is_reused_and_an_unfinished_one_resumed() {
    let world = World::new();
    let chain = world.chain();
    let first = stage::decide_all(&chain, &Request::default()).unwrap();
    let up = world.run(&first[0].lock, 4, State::Finished);
    let second = stage::decide_all(&chain, &Request::default()).unwrap();
    assert_eq!(second[0].decision, Decision::Reuse(up.clone()));
    assert_eq!(second[1].decision, Decision::Start);
    let parent = second[1].lock.parent.clone().unwrap();
    assert_eq!((parent.experiment.as_str(), parent.run), ("cc_pretrain", up.id()));
    assert_eq!(parent.checkpoint, up.model_file(4));

    let down = world.run(&second[1].lock, 2, State::Running);
    let third = stage::decide_all(&chain, &Request::default()).unwrap();
    assert_eq!(third[1].decision, Decision::Resume(down.clone()));
    let text = stage::describe(&chain, &third, &machine());
    let text = world.clean(text).replace(&up.id(), "[run]").replace(&down.id(), "[run]");
    insta::assert_snapshot!(text.lines().take(6).collect::<Vec<_>>().join("\n"), @r##"
    stage 1 of 2: cc_pretrain: reuse [dir]/runs/cc_pretrain/[run] (finished with the same settings and data)
      file        [dir]/experiments/toy/cc.toml
      weights     random
    stage 2 of 2: coco_ce: resume [dir]/runs/coco_ce/[run] (died (resumable) after epoch 2 of 3)
      file        [dir]/experiments/toy/coco.toml
      weights     [dir]/runs/cc_pretrain/[run]/checkpoints/epoch-0004/model.safetensors
    "##);

    let fresh = stage::decide_all(&chain, &fresh("coco_ce")).unwrap();
    assert_eq!(fresh[0].decision, Decision::Reuse(up), "--fresh speaks of the named experiment");
    assert_eq!(fresh[1].decision, Decision::Start);
}

#[test]
fn the_newest_run_that_does_the_same_work_decides() {
    let world = World::new();
    let candidate = &world.chain()[0];
    let decide = |candidate: &Candidate| stage::decide(candidate, None, &Request::default());
    let lock = decide(candidate).unwrap().lock;
    world.run(&lock, 4, State::Finished);
    let fresh = world.run(&lock, 1, State::Interrupted);
    assert_eq!(decide(candidate).unwrap().decision, Decision::Resume(fresh));
    let newest = world.run(&lock, 4, State::Finished);
    assert_eq!(decide(candidate).unwrap().decision, Decision::Reuse(newest.clone()));

    let mut longer = candidate.clone();
    longer.experiment.settings.train.epochs = 5;
    let other = decide(&longer).unwrap();
    assert_eq!(other.decision, Decision::Start);
    assert_eq!(other.reason, format!("differs from {}: train.epochs: 5 (the run has 4)", newest.id()));
    let mut moved = candidate.clone();
    moved.facts.data_fingerprint = "data-2".into();
    assert_eq!(
        decide(&moved).unwrap().reason,
        format!("differs from {}: data: data-2 (the run has data-1)", newest.id())
    );
}

#[test]
fn an_unfinished_run_that_differs_is_refused_unless_it_holds_nothing() {
    let world = World::new();
    let candidate = &world.chain()[0];
    let lock = stage::decide(candidate, None, &Request::default()).unwrap().lock;
    let mut longer = candidate.clone();
    longer.experiment.settings.train.epochs = 5;
    longer.experiment.settings.train.learning_rate = 1e-6;
    let empty = world.run(&lock, 0, State::Failed);
    let started = stage::decide(&longer, None, &Request::default()).unwrap();
    assert_eq!(
        (started.decision, started.reason),
        (
            Decision::Start,
            format!(
                "differs from {}, which holds no checkpoint: train.epochs: 5 (the run has 4) and 1 more",
                empty.id()
            )
        )
    );
    let run = world.run(&lock, 1, State::Interrupted);
    let message = stage::decide(&longer, None, &Request::default()).unwrap_err().to_string();
    insta::assert_snapshot!(world.clean(message).replace(&run.id(), "[run]"), @r##"
    an unfinished run of `cc_pretrain` differs from what is asked for: [dir]/runs/cc_pretrain/[run]
        train.epochs: 5 (the run has 4)
        train.learning_rate: 1e-6 (the run has 0.00003)
      help: with the same settings it resumes; `vlp run [dir]/experiments/toy/cc.toml --fresh` starts another run beside it
    "##);
    assert_eq!(stage::decide(&longer, None, &fresh("cc_pretrain")).unwrap().decision, Decision::Start);
}

#[test]
fn an_unfinished_run_from_other_weights_is_refused_before_its_upstream_trains_again() {
    let world = World::new();
    let chain = world.chain();
    let first = stage::decide_all(&chain, &Request::default()).unwrap();
    world.run(&first[0].lock, 4, State::Finished);
    let second = stage::decide_all(&chain, &Request::default()).unwrap();
    let down = world.run(&second[1].lock, 1, State::Interrupted);
    let mut changed = chain.clone();
    changed[0].experiment.settings.train.epochs = 6;
    let message = world.clean(stage::decide_all(&changed, &Request::default()).unwrap_err());
    let sha = &second[1].lock.parent.as_ref().unwrap().sha256[..12];
    let upstream = second[1].lock.parent.as_ref().unwrap().run.clone();
    let message = message.replace(&format!("coco_ce/{}", down.id()), "coco_ce/[run]").replace(&upstream, "[upstream]");
    insta::assert_snapshot!(message.replace(sha, "[sha]"), @r##"
    an unfinished run of `coco_ce` differs from what is asked for: [dir]/runs/coco_ce/[run]
        initial weights: those of a run of `cc_pretrain` that is not finished (the run has [dir]/runs/cc_pretrain/[upstream]/checkpoints/epoch-0004/model.safetensors (sha256 [sha]))
      help: with the same settings it resumes; `vlp run [dir]/experiments/toy/coco.toml --fresh` starts another run beside it
    "##);
}

#[test]
fn unreadable_runs_are_passed_over_with_a_note() {
    let world = World::new();
    let candidate = &world.chain()[0];
    let lock = stage::decide(candidate, None, &Request::default()).unwrap().lock;
    let run = world.run(&lock, 4, State::Finished);
    fs::write(run.lock_file(), "nonsense").unwrap();
    let decided = stage::decide(candidate, None, &Request::default()).unwrap();
    assert_eq!(decided.decision, Decision::Start);
    let note = world.clean(&decided.notes[0]);
    let head = format!("passed over: `[dir]/runs/cc_pretrain/{}/run.lock.toml` is not a run lock", run.id());
    assert!(note.starts_with(&head) && !note.contains("help:"), "{note}");
}

#[test]
fn several_targets_share_what_they_start_from() {
    let world = World::new();
    world.file("toy/flickr.toml", "flickr_ce", "cc_pretrain", "epochs = 2");
    let load = |name: &str| world.load(name);
    let targets = vec![load("toy/flickr.toml"), load("toy/coco.toml"), load("toy/coco.toml")];
    let stages = lineage::resolve_all(targets, &Overrides::default()).unwrap();
    let names: Vec<&str> = stages.iter().map(|e| e.settings.experiment.name.as_str()).collect();
    assert_eq!(names, ["cc_pretrain", "flickr_ce", "coco_ce"]);

    let mut upstream = load("toy/cc.toml");
    upstream.settings.train.epochs = 9;
    let stages = lineage::resolve_all(vec![load("toy/coco.toml"), upstream], &Overrides::default()).unwrap();
    assert_eq!(stages[0].settings.train.epochs, 9, "a target is taken as it was loaded");

    world.file("other/coco.toml", "coco_ce", "", "epochs = 2");
    let both = vec![load("toy/coco.toml"), load("other/coco.toml")];
    let message = world.clean(lineage::resolve_all(both, &Overrides::default()).unwrap_err());
    insta::assert_snapshot!(message, @r##"
    [dir]/experiments/toy/coco.toml and [dir]/experiments/other/coco.toml are both named `coco_ce`, and their runs would go to one folder
      help: rename one of them, or run them one after the other
    "##);
}

#[test]
fn a_checkpoint_of_another_program_or_other_data_are_used_only_when_asked_for() {
    let world = World::new();
    let chain = world.chain();
    let drift = Request { allow_drift: true, ..Request::default() };
    let mut lock = stage::decide_all(&chain, &Request::default()).unwrap()[0].lock.clone();
    (lock.code.commit, lock.code.diff, lock.code.source) = ("1".into(), "clean".into(), "2".into());
    let up = world.run(&lock, 4, State::Finished);
    let message = world.clean(stage::decide_all(&chain, &Request::default()).unwrap_err());
    let lines: Vec<&str> = message.lines().collect();
    let first = "`coco_ce` would start from a run of `cc_pretrain` that another state of the program trained: ";
    assert_eq!(lines[0], format!("{first}[dir]/runs/cc_pretrain/{}", up.id()));
    assert!(
        lines[1].starts_with("    recorded by vlp ") && lines[1].contains("(commit 1, changes clean)"),
        "{message}"
    );
    assert_eq!(
        lines[2],
        "  help: `--allow-drift` starts from it; `vlp run [dir]/experiments/toy/cc.toml --fresh` trains it again"
    );
    let allowed = stage::decide_all(&chain, &drift).unwrap();
    assert_eq!((&allowed[0].decision, &allowed[1].decision), (&Decision::Reuse(up.clone()), &Decision::Start));

    let mut moved = chain[0].clone();
    moved.facts.data_fingerprint = "data-2".into();
    assert_eq!(stage::decide(&moved, None, &Request::default()).unwrap().decision, Decision::Start);
    let reused = stage::decide(&moved, None, &drift).unwrap();
    assert_eq!(
        (reused.decision, reused.reason.as_str()),
        (Decision::Reuse(up), "finished with the same settings and other data")
    );
    moved.experiment.settings.train.epochs = 5;
    assert_eq!(stage::decide(&moved, None, &drift).unwrap().decision, Decision::Start, "settings never drift");
}

#[test]
fn a_checkpoint_path_must_exist() {
    let world = World::new();
    world.file("toy/from_file.toml", "from_file", "weights/model.safetensors", "epochs = 1");
    let candidate = Candidate { experiment: world.load("toy/from_file.toml"), facts: facts() };
    let message = stage::decide(&candidate, None, &Request::default()).unwrap_err().to_string();
    insta::assert_snapshot!(message, @r##"
    `init.from` names the checkpoint `weights/model.safetensors`, but there is no such file
      help: correct the path (it is relative to the current folder), or give the name of an experiment
    "##);
}
