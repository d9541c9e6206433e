//! The launcher over shell scripts in place of workers: states, signals, failures and their causes, restarts.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vlp::config;
use vlp::launch::LaunchError;
use vlp::launch::local::{self, Outcome};
use vlp::launch::plan::Process;
use vlp::launch::supervise;
use vlp::launch::triage::{Cause, Ending};
use vlp::pipeline::stage::{self, Request};
use vlp::track::{RunDir, RunRecord, State, What, read};

use super::World;

/// A process of a shell script in place of the worker; `$1` is the run folder.
fn script(run: &RunDir, rank: usize, text: &str) -> Process {
    Process {
        rank,
        program: "/bin/sh".into(),
        args: vec!["-c".into(), text.into(), "worker".into(), run.path().display().to_string()],
        env: [("RANK".to_string(), rank.to_string())].into(),
        device: "flex".into(),
    }
}

/// One attempt.
fn launch(run: &RunDir, processes: &[Process]) -> Result<Outcome, LaunchError> {
    let limits = config::LaunchSettings { max_restarts: 0, ..Default::default() };
    supervise::run(run, &limits, &mut |_| Ok(processes.to_vec()))
}

fn empty_run(world: &World) -> RunDir {
    let lock = stage::decide(&world.chain()[0], None, &Request::default()).unwrap().lock;
    RunDir::create(&world.path("runs"), &lock).unwrap()
}

fn states(run: &RunDir) -> Vec<(State, String)> {
    let entries = read(&run.journal_file()).unwrap();
    let states = entries.into_iter().filter_map(|entry| match entry.what {
        What::State { state, detail } => Some((state, detail)),
        _ => None,
    });
    states.collect()
}

fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ready() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ended: gone, or not yet waited for by its parent.
fn has_ended(process: i32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat"))
        .map_or(true, |stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

#[test]
fn processes_get_their_environment_and_the_journal_their_states() {
    let world = World::new();
    let run = empty_run(&world);
    let processes: Vec<Process> =
        (0..2).map(|rank| script(&run, rank, r#"echo "rank $RANK" > "$1/out$RANK"; echo loud >&2"#)).collect();
    assert_eq!(launch(&run, &processes).unwrap(), Outcome::Finished);
    assert_eq!(fs::read_to_string(run.path().join("out1")).unwrap(), "rank 1\n");
    assert_eq!(fs::read_to_string(run.rank_log(1)).unwrap(), "loud\n", "what other ranks say on stderr is kept");
    let own = format!("process {}", std::process::id());
    assert_eq!(
        states(&run),
        [(State::Created, String::new()), (State::Running, own), (State::Finished, String::new())]
    );
    assert_eq!(RunRecord::read(&run).unwrap().condition, vlp::track::Condition::Finished);
}

#[test]
fn a_failure_names_rank_and_code_and_quotes_the_log() {
    let world = World::new();
    let run = empty_run(&world);
    let text = r#"i=1; while [ $i -le 20 ]; do echo "line $i" >> "$1/ranks/0.log"; i=$((i+1)); done; exit 4"#;
    let Outcome::Failed(failure) = launch(&run, &[script(&run, 0, text)]).unwrap() else { panic!("no failure") };
    assert_eq!((failure.rank, failure.ending), (0, Ending::Code(4)));
    let quoted: Vec<String> = (9..=20).map(|i| format!("line {i}")).collect();
    assert_eq!(failure.last_lines, quoted);
    let head = format!("rank 0 ended with exit code 4; last lines of {}:\n    line 9\n", run.rank_log(0).display());
    assert!(failure.to_string().starts_with(&head), "{failure}");
    assert_eq!(states(&run).pop().unwrap(), (State::Failed, "rank 0 ended with exit code 4".into()));
}

#[test]
fn a_killed_process_is_a_failure_that_names_the_signal_and_the_others_are_stopped() {
    let world = World::new();
    let run = empty_run(&world);
    let waiting = r#"echo $$ > "$1/pid.tmp"; mv "$1/pid.tmp" "$1/pid"; while :; do sleep 0.05; done"#;
    let dying = r#"while [ ! -e "$1/pid" ]; do sleep 0.05; done; kill -9 $$"#;
    let outcome = launch(&run, &[script(&run, 0, waiting), script(&run, 1, dying)]).unwrap();
    let Outcome::Failed(failure) = outcome else { panic!("no failure") };
    assert_eq!((failure.rank, failure.ending), (1, Ending::Signal(9)));
    assert_eq!(
        failure.to_string(),
        "rank 1 was killed by signal 9 (SIGKILL, often the kernel when memory ran out); cause: killed by signal 9"
    );
    let pid: i32 = fs::read_to_string(run.path().join("pid")).unwrap().trim().parse().unwrap();
    assert!(has_ended(pid));
}

#[test]
fn a_process_that_ends_with_75_leaves_a_resumable_run() {
    let world = World::new();
    let run = empty_run(&world);
    assert_eq!(launch(&run, &[script(&run, 0, "exit 75")]).unwrap(), Outcome::Interrupted);
    assert_eq!(states(&run).pop().unwrap().0, State::Interrupted);
}

#[test]
fn a_missing_program_and_a_held_folder_are_errors() {
    let world = World::new();
    let run = empty_run(&world);
    let missing = Process { program: "/nowhere/vlp".into(), ..script(&run, 0, "") };
    assert_eq!(
        launch(&run, &[missing]).unwrap_err().to_string(),
        "cannot start rank 0 (`/nowhere/vlp`): No such file or directory (os error 2)\n  \
         help: check that the program is there and may be executed"
    );
    assert_eq!(states(&run).pop().unwrap().0, State::Failed);
    let _held = run.hold().unwrap();
    let message = launch(&run, &[script(&run, 0, "true")]).unwrap_err().to_string();
    assert!(message.contains("is in use by another `vlp` process\n  help: "), "{message}");
}

/// Not a test of its own: the launcher in a process that the tests below can send signals to.
#[test]
#[ignore = "started by other tests"]
fn launcher_process() {
    let (Some(folder), Some(text)) = (std::env::var_os("LAUNCHER_RUN"), std::env::var("LAUNCHER_SCRIPT").ok()) else {
        return;
    };
    let run = RunDir::open(Path::new(&folder)).unwrap();
    let code = match launch(&run, &[script(&run, 0, &text)]).unwrap() {
        Outcome::Finished => 0,
        Outcome::Interrupted => local::RESUMABLE,
        Outcome::Failed(_) => 4,
    };
    std::process::exit(code);
}

/// Starts the launcher around a script and returns it with the process number of the script, once that runs.
fn launcher(run: &RunDir, handler: &str) -> (std::process::Child, i32) {
    let text = format!(
        r#"{handler}
echo $$ > "$1/pid.tmp"; mv "$1/pid.tmp" "$1/pid"; while :; do sleep 0.05; done"#
    );
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["launcher::launcher_process", "--exact", "--ignored", "--nocapture"])
        .env("LAUNCHER_RUN", run.path())
        .env("LAUNCHER_SCRIPT", text)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let file = run.path().join("pid");
    wait_for("the process", || file.exists());
    let pid = fs::read_to_string(file).unwrap().trim().parse().unwrap();
    (child, pid)
}

fn kill(process: i32, signal: i32) {
    // SAFETY: kill has no memory effects.
    assert_eq!(unsafe { libc::kill(process, signal) }, 0);
}

#[test]
fn sigterm_is_passed_on_and_leaves_a_resumable_run() {
    let world = World::new();
    let run = empty_run(&world);
    let (mut launcher, worker) = launcher(&run, r#"trap 'echo saved > "$1/saved"; exit 75' TERM"#);
    assert!(run.is_held());
    kill(launcher.id() as i32, libc::SIGTERM);
    assert_eq!(launcher.wait().unwrap().code(), Some(75));
    assert_eq!(fs::read_to_string(run.path().join("saved")).unwrap(), "saved\n");
    assert!(has_ended(worker));
    assert_eq!(states(&run).pop().unwrap().0, State::Interrupted);
}

#[test]
fn sigint_is_passed_on_as_it_is_and_a_second_one_kills() {
    let world = World::new();
    let run = empty_run(&world);
    let (mut launcher, worker) = launcher(&run, r#"trap 'echo busy > "$1/busy"' INT"#);
    kill(launcher.id() as i32, libc::SIGINT);
    wait_for("the first signal", || run.path().join("busy").exists());
    assert!(launcher.try_wait().unwrap().is_none(), "the process may take its time");
    kill(launcher.id() as i32, libc::SIGINT);
    assert_eq!(launcher.wait().unwrap().code(), Some(75));
    assert!(has_ended(worker));
}

#[test]
fn no_process_outlives_a_killed_launcher() {
    let world = World::new();
    let run = empty_run(&world);
    let (mut launcher, worker) = launcher(&run, "trap '' TERM INT HUP");
    assert!(!has_ended(worker));
    kill(launcher.id() as i32, libc::SIGKILL);
    assert_eq!(launcher.wait().unwrap().signal(), Some(libc::SIGKILL));
    wait_for("the end of the worker", || has_ended(worker));
    let record = RunRecord::read(&run).unwrap();
    assert_eq!(record.condition.to_string(), "died (resumable)");
}

// -------------------------------------------------------------------------------------------------------- supervision

#[test]
fn a_killed_process_is_started_again_as_often_as_allowed() {
    let world = World::new();
    let run = empty_run(&world);
    let limits = config::LaunchSettings { max_restarts: 2, ..Default::default() };
    let text = r#"echo "attempt $RUN_ATTEMPT" >> "$1/attempts"; [ "$RUN_ATTEMPT" = 2 ] || kill -9 $$"#;
    let mut asked = Vec::new();
    let outcome = supervise::run(&run, &limits, &mut |number| {
        asked.push(number);
        Ok(vec![script(&run, 0, text)])
    });
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    assert_eq!(asked, [0, 1, 2]);
    assert_eq!(fs::read_to_string(run.path().join("attempts")).unwrap(), "attempt 0\nattempt 1\nattempt 2\n");
    let warnings: Vec<String> = read(&run.journal_file())
        .unwrap()
        .into_iter()
        .filter_map(|entry| if let What::Warning { message } = entry.what { Some(message) } else { None })
        .collect();
    let killed =
        "rank 0 was killed by signal 9 (SIGKILL, often the kernel when memory ran out); cause: killed by signal 9";
    assert_eq!(
        warnings,
        [2, 1].map(|left| format!("{killed}; starting again from the newest checkpoint ({left} restarts left)"))
    );
    let once = config::LaunchSettings { max_restarts: 1, ..Default::default() };
    let outcome = supervise::run(&run, &once, &mut |_| Ok(vec![script(&run, 0, "kill -9 $$")])).unwrap();
    assert!(matches!(outcome, Outcome::Failed(_)));
}

#[test]
fn what_would_recur_is_not_tried_again() {
    let world = World::new();
    let run = empty_run(&world);
    let limits = config::LaunchSettings { max_restarts: 5, ..Default::default() };
    for (text, cause) in [
        ("exit 2", Cause::Configuration),
        ("exit 3", Cause::Data),
        (r#"echo "the loss is NaN at epoch 1, step 1" >> "$1/ranks/0.log"; exit 4"#, Cause::NotFinite),
    ] {
        let mut attempts = 0;
        let outcome = supervise::run(&run, &limits, &mut |_| {
            attempts += 1;
            Ok(vec![script(&run, 0, text)])
        });
        let Outcome::Failed(failure) = outcome.unwrap() else { panic!("no failure") };
        assert_eq!((failure.cause, attempts), (cause, 1));
    }
}

#[test]
fn the_report_names_the_rank_that_failed_first() {
    let world = World::new();
    let run = empty_run(&world);
    // Rank 0 notices the death of rank 1 and is seen first, because its number is lower.
    let noticing = r#"while [ ! -e "$1/dead" ]; do sleep 0.01; done
echo "rank 0 lost its group during all-reduce: rank 1: it ended" >> "$1/ranks/0.log"; exit 4"#;
    let dying = r#"touch "$1/dead"; kill -11 $$"#;
    let Outcome::Failed(failure) = launch(&run, &[script(&run, 0, noticing), script(&run, 1, dying)]).unwrap() else {
        panic!("no failure")
    };
    assert_eq!((failure.rank, failure.ending, failure.cause), (1, Ending::Signal(11), Cause::Killed(11)));
}

#[test]
fn processes_without_progress_are_stopped() {
    let world = World::new();
    let run = empty_run(&world);
    let limits = config::LaunchSettings { max_restarts: 0, hang_timeout_s: 1, ..Default::default() };
    // Rank 0 works for two seconds and then waits; rank 1 never does anything.
    let working = r#"for i in 1 2 3 4 5 6 7 8; do touch "$1/ranks/.0.alive"; sleep 0.25; done; sleep 60"#;
    let started = Instant::now();
    let processes = vec![script(&run, 0, working), script(&run, 1, "exec sleep 60")];
    let Outcome::Failed(failure) = supervise::run(&run, &limits, &mut |_| Ok(processes.clone())).unwrap() else {
        panic!("no failure")
    };
    assert_eq!((failure.rank, failure.cause), (1, Cause::Hung));
    assert!(started.elapsed() >= Duration::from_secs(2), "rank 0 was at work");
    assert!(failure.to_string().starts_with("rank 1 made no progress for "), "{failure}");
}
