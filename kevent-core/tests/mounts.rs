//! Mounts as events, in a mount namespace that a thread has for itself.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.
#![allow(unsafe_code)] // unshare(2) and mount(2) are raw calls.

use std::ffi::CString;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use kevent_core::testing::Contract;
use kevent_core::{ChildQueue, MountEvent, Mounts, Pressure, Queue, Source, SourceId};

const PATIENCE: Duration = Duration::from_secs(10);

/// Long enough for an event that should not come.
const SILENCE: Duration = Duration::from_millis(20);

fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn mount(source: &str, point: &Path, kind: &str, flags: libc::c_ulong) -> io::Result<()> {
    let (source, kind) = (CString::new(source).unwrap(), CString::new(kind).unwrap());
    let point = c_string(point);
    let (source, kind, point) = (source.as_ptr(), kind.as_ptr(), point.as_ptr());
    // SAFETY: the strings live through the call.
    done(unsafe { libc::mount(source, point, kind, flags, std::ptr::null()) })
}

fn tmpfs(source: &str, point: &Path) {
    std::fs::create_dir_all(point).unwrap();
    mount(source, point, "tmpfs", 0).unwrap();
}

fn unmount(point: &Path) {
    let point = c_string(point);
    // SAFETY: the string lives through the call.
    done(unsafe { libc::umount2(point.as_ptr(), 0) }).unwrap();
}

/// Runs a case in a namespace of its own, where an empty folder is given to it.
fn in_private_namespace(case: impl FnOnce(&Path) + Send + 'static) {
    let enter = || -> io::Result<PathBuf> {
        // SAFETY: of this thread's things it shares only those with others that are named.
        done(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        mount("none", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE)?;
        let folder = std::env::temp_dir();
        mount("kevent", &folder, "tmpfs", 0)?;
        Ok(folder)
    };
    let on_a_thread_of_its_own = move || match enter() {
        Ok(folder) => case(&folder),
        Err(error) => println!("skipped: no mount namespace can be had here: {error}"),
    };
    thread::spawn(on_a_thread_of_its_own).join().unwrap();
}

fn queue_of(capacity: usize) -> (Queue<MountEvent>, SourceId<Mounts>) {
    let mut queue = Queue::with_capacity(NonZeroUsize::new(capacity).unwrap()).unwrap();
    let id = queue.attach(Mounts::new().unwrap(), |event| event).unwrap();
    (queue, id)
}

fn take(queue: &mut Queue<MountEvent>, count: usize) -> Vec<MountEvent> {
    let deadline = Instant::now() + PATIENCE;
    let mut events = Vec::new();
    while events.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} events came: {events:?}", events.len());
        queue.wait(deadline).unwrap();
        events.extend(std::iter::from_fn(|| queue.next()));
    }
    assert_eq!(events.len(), count, "more events came: {events:?}");
    events
}

fn assert_silent(queue: &mut Queue<MountEvent>) {
    let polls = queue.stats().polls;
    queue.wait(SILENCE).unwrap();
    assert_eq!(queue.next(), None);
    assert!(queue.stats().polls - polls < 5, "the wait did not sleep");
}

#[test]
fn mounts_keep_the_contract() {
    in_private_namespace(|folder| {
        let folder = folder.to_owned();
        let contract = Contract::new(|| (Mounts::new().unwrap(), 0)).provoke(
            move |_, mounted: &mut u32, count| {
                for _ in 0..count {
                    *mounted += 1;
                    tmpfs("contract", &folder.join(mounted.to_string()));
                }
            },
        );
        contract.check();
        contract.under_load().check();
    });
}

/// The queue is looked at from outside, twice removed, before it looks itself.
#[test]
fn change_is_seen_through_queues_around_the_queue() {
    in_private_namespace(|folder| {
        let (inner, _) = queue_of(4);
        let mut middle = Queue::new().unwrap();
        middle.attach(ChildQueue::new(inner), |event| event).unwrap();
        let mut outer = Queue::new().unwrap();
        outer.attach(ChildQueue::new(middle), |event| event).unwrap();
        assert_silent(&mut outer);
        for name in ["a", "b", "c"] {
            tmpfs(name, &folder.join(name));
            take(&mut outer, 1);
        }
        assert_silent(&mut outer);
    });
}

#[test]
fn mount_and_unmount_are_told_with_what_and_where() {
    in_private_namespace(|folder| {
        let (mut queue, id) = queue_of(4);
        let point = folder.join("with space\tand \\ and #");
        tmpfs("any thing", &point);
        let Some(MountEvent::Mounted(mounted)) = take(&mut queue, 1).pop() else {
            panic!("no mount");
        };
        assert_eq!(mounted.mount_point, point);
        assert_eq!((&mounted.fs_type, &mounted.source), (&"tmpfs".into(), &"any thing".into()));
        assert_eq!(mounted.root, Path::new("/"));
        let parent = queue[id].iter().find(|mount| mount.id == mounted.parent).unwrap();
        assert_eq!(parent.mount_point, folder);
        unmount(&point);
        assert_eq!(take(&mut queue, 1), [MountEvent::Unmounted(mounted)]);
        assert!(queue[id].iter().all(|mount| mount.mount_point != point));
        assert_silent(&mut queue);
    });
}

#[test]
fn move_and_new_options_are_changes() {
    in_private_namespace(|folder| {
        let (mut queue, _) = queue_of(4);
        let (here, there) = (folder.join("here"), folder.join("there"));
        tmpfs("it", &here);
        take(&mut queue, 1);
        std::fs::create_dir(&there).unwrap();
        mount(here.to_str().unwrap(), &there, "", libc::MS_MOVE).unwrap();
        let Some(MountEvent::Changed { before, now }) = take(&mut queue, 1).pop() else {
            panic!("no change");
        };
        assert_eq!((&before.mount_point, &now.mount_point), (&here, &there));
        assert_eq!(before.id, now.id);
        mount("it", &there, "", libc::MS_REMOUNT | libc::MS_BIND | libc::MS_NOEXEC).unwrap();
        let Some(MountEvent::Changed { before, now }) = take(&mut queue, 1).pop() else {
            panic!("no change");
        };
        let noexec = |options: &std::ffi::OsStr| options.to_str().unwrap().contains("noexec");
        assert!(!noexec(&before.options) && noexec(&now.options), "{now:?}");
        assert_silent(&mut queue);
    });
}

#[test]
fn only_the_outcome_between_two_looks_is_told() {
    in_private_namespace(|folder| {
        let (mut queue, _) = queue_of(4);
        tmpfs("a", &folder.join("a"));
        tmpfs("b", &folder.join("b"));
        unmount(&folder.join("a"));
        let events = take(&mut queue, 1);
        assert!(
            matches!(&events[0], MountEvent::Mounted(mount) if mount.source == "b"),
            "{events:?}"
        );
        assert_silent(&mut queue);
    });
}

#[test]
fn change_before_the_source_is_attached_is_told() {
    in_private_namespace(|folder| {
        let source = Mounts::new().unwrap();
        tmpfs("early", &folder.join("early"));
        let mut queue = Queue::new().unwrap();
        let id = queue.attach(source, |event| event).unwrap();
        take(&mut queue, 1);
        let source = queue.detach(id).unwrap();
        unmount(&folder.join("early"));
        assert_silent(&mut queue);
        queue.attach(source, |event| event).unwrap();
        assert!(matches!(take(&mut queue, 1)[0], MountEvent::Unmounted(_)));
    });
}

#[test]
fn deep_tree_through_a_ring_of_one_is_told_in_order() {
    in_private_namespace(|folder| {
        let (mut queue, _) = queue_of(1);
        let mut point = folder.to_owned();
        for n in 0..30 {
            point.push("d");
            tmpfs(&n.to_string(), &point);
        }
        let order = |events: Vec<MountEvent>| -> Vec<u32> {
            let number = |event| match event {
                MountEvent::Mounted(mount) | MountEvent::Unmounted(mount) => {
                    mount.source.to_str().unwrap().parse().unwrap()
                }
                MountEvent::Changed { .. } => panic!("nothing was changed"),
            };
            events.into_iter().map(number).collect()
        };
        assert_eq!(order(take(&mut queue, 30)), (0..30).collect::<Vec<_>>());
        let top = c_string(&folder.join("d"));
        // SAFETY: the string lives through the call.
        done(unsafe { libc::umount2(top.as_ptr(), libc::MNT_DETACH) }).unwrap();
        assert_eq!(order(take(&mut queue, 30)), (0..30).rev().collect::<Vec<_>>());
    });
}

#[test]
fn without_proc_mounts_and_pressure_are_unsupported() {
    Mounts::probe().unwrap();
    in_private_namespace(|_| {
        tmpfs("nothing", Path::new("/proc"));
        for error in [Mounts::probe().unwrap_err(), Pressure::probe().unwrap_err()] {
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            assert!(error.to_string().contains("/proc"), "{error}");
        }
    });
}
