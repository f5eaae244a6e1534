//! Which processors the threads of a software adapter run on.
//!
//! Mesa's llvmpipe deals the workgroups of a dispatch out to a thread for each processor, and waits for all.
//! Between dispatches its threads sleep, and where dispatches are short Linux often wakes two on one
//! processor and leaves another idle: a token of a V4-shaped model took 1.4 to 1.7 times as long on two.
//! Here each keeps a processor of its own. SwiftShader's threads take work from each other and gain
//! nothing.

/// Whether [`settle`] is of use for an adapter's threads.
pub(super) fn helps(info: &wgpu::AdapterInfo) -> bool {
    info.driver == "llvmpipe"
}

#[cfg(target_os = "linux")]
pub(super) use linux::{Threads, settle};

/// The threads of this process.
#[cfg(not(target_os = "linux"))]
pub(super) struct Threads;

#[cfg(not(target_os = "linux"))]
impl Threads {
    pub fn now() -> Self {
        Self
    }
}

/// Does nothing: only on Linux was a loss seen.
#[cfg(not(target_os = "linux"))]
pub(super) fn settle(_: &Threads) {}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeSet;

    use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

    /// The threads of this process.
    pub struct Threads(BTreeSet<i32>);

    impl Threads {
        /// Those that there are; none if the system doesn't tell.
        pub fn now() -> Self {
            let listed = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
            Self(listed.filter_map(|t| t.file_name().to_str()?.parse().ok()).collect())
        }
    }

    /// Gives the threads that compute, of the device opened since then, a processor each, as [`place`]
    /// does. The others stay free, above all the one that compiles: several programs that compile would
    /// have theirs on the same processor.
    pub fn settle(before: &Threads) {
        let new: Vec<(i32, String)> = Threads::now()
            .0
            .difference(&before.0)
            .map(|&t| {
                let name = std::fs::read_to_string(format!("/proc/self/task/{t}/comm"));
                (t, name.unwrap_or_default())
            })
            .collect();
        place(&computing(&new));
    }

    /// Of new threads, by number and name, the pool that computes. It has no name, but follows the one that
    /// draws, which has, and is as large.
    fn computing(new: &[(i32, String)]) -> Vec<Pid> {
        let draws = |(_, name): &(i32, String)| name.starts_with("llvmpipe-");
        let size = new.iter().filter(|t| draws(t)).count();
        let after = new.iter().rposition(draws).map_or(new.len(), |last| last + 1);
        new[after..].iter().take(size).filter_map(|(t, _)| Pid::from_raw(*t)).collect()
    }

    /// Gives threads a processor in turn, of those that this thread may run on, if they are at least as
    /// many. Those that follow each other, such as a pool's, have different ones then.
    fn place(threads: &[Pid]) {
        let Ok(allowed) = sched_getaffinity(None) else { return };
        let processors = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
        if threads.len() < allowed.count() as usize {
            return;
        }
        for (&thread, cpu) in threads.iter().zip(processors.cycle()) {
            let mut one = CpuSet::new();
            one.set(cpu);
            // A thread may have ended, and one that is refused runs where the system puts it.
            let _ = sched_setaffinity(Some(thread), &one);
        }
    }

    #[cfg(test)]
    mod tests {
        use std::sync::mpsc;

        use rustix::thread::gettid;

        use super::*;

        /// The processors of so many threads, after they were given some.
        fn placed(threads: usize) -> Vec<CpuSet> {
            let before = Threads::now();
            let (tell, told) = mpsc::channel();
            let worker = |_| {
                let (tell, (go, wait)) = (tell.clone(), mpsc::channel::<()>());
                let thread = std::thread::spawn(move || {
                    tell.send(gettid()).unwrap();
                    wait.recv().unwrap();
                    sched_getaffinity(None).unwrap()
                });
                (thread, go)
            };
            let workers: Vec<_> = (0..threads).map(worker).collect();
            let pids: Vec<Pid> = told.iter().take(threads).collect();
            let now = Threads::now();
            let seen = |pid: &Pid| {
                let raw = pid.as_raw_nonzero().get();
                now.0.contains(&raw) && !before.0.contains(&raw)
            };
            assert!(pids.iter().all(seen));
            place(&pids);
            let end = |(thread, go): (std::thread::JoinHandle<_>, mpsc::Sender<()>)| {
                go.send(()).unwrap();
                thread.join().unwrap()
            };
            workers.into_iter().map(end).collect()
        }

        #[test]
        fn a_pool_has_a_processor_a_thread() {
            let allowed = sched_getaffinity(None).unwrap();
            let pool = placed(allowed.count() as usize);
            assert!(pool.iter().all(|set| set.count() == 1));
            let used = |&cpu: &usize| pool.iter().any(|set| set.is_set(cpu));
            assert!((0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).all(|cpu| used(&cpu)));
            assert_eq!(sched_getaffinity(None).unwrap(), allowed);
        }

        #[test]
        fn the_pool_that_computes_follows_the_one_that_draws() {
            let named = |names: &[&str]| -> Vec<(i32, String)> {
                (7..).zip(names).map(|(t, name)| (t, format!("{name}\n"))).collect()
            };
            let raw = |new: &[(i32, String)]| -> Vec<i32> {
                computing(new).iter().map(|pid| pid.as_raw_nonzero().get()).collect()
            };
            let new = named(&["fathom", "llvmpipe-0", "llvmpipe-1", "fathom", "fathom", "disk$0"]);
            assert_eq!(raw(&new), [10, 11]);
            assert_eq!(raw(&new[..4]), [10]);
            assert!(raw(&named(&["fathom", "fathom", "disk$0"])).is_empty());
        }

        #[test]
        fn fewer_threads_go_where_they_like() {
            let allowed = sched_getaffinity(None).unwrap();
            let few = placed(allowed.count() as usize - 1);
            assert!(few.iter().all(|set| *set == allowed));
        }
    }
}
