//! EROFS images, mounted once for all steps that use them.
//!
//! A mounted image has caches of its own for what was read through it, so all steps share one mount of each. The mounts
//! are made in a mount namespace that a thread of this process has to itself; nobody else sees them, and when the process ends,
//! however it ends, the kernel takes them away with the namespace. Where a step needs an image, the thread clones its mount,
//! and the step attaches the clone in its own namespace. (A mount that is attached nowhere cannot be cloned before Linux 6.15.)
//! A second thread in the same namespace unmounts: each time it waits for all processors, and no step should wait with it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};
use rustix::thread::UnshareFlags;

/// How many requests may wait for the thread.
const WAITING: usize = 64;

/// Mounts images, and keeps them mounted as long as somebody holds them.
#[derive(Debug)]
pub(super) struct Mounter {
    dir: PathBuf,
    next: AtomicU64,
    orders: Mutex<Option<Orders>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The ways to the two threads.
#[derive(Debug)]
struct Orders {
    requests: SyncSender<Request>,
    /// Places of mounts that nobody uses any more; never more than there are mounts.
    unused: Sender<PathBuf>,
}

/// What the first thread does, in its namespace.
enum Request {
    Attach(OwnedFd, PathBuf, SyncSender<io::Result<()>>),
    Clone(Vec<PathBuf>, SyncSender<io::Result<Vec<ImageClone>>>),
}

/// A mounted image. It is unmounted when the last one who holds it lets go.
#[derive(Debug)]
pub struct MountedImage {
    mounter: Arc<Mounter>,
    place: PathBuf,
}

impl Mounter {
    /// Starts the thread. Its mounts lie under `dir`, an existing directory, in its namespace only.
    pub(super) fn start(dir: &Path) -> io::Result<Arc<Self>> {
        let dir = fs::canonicalize(dir)?;
        let (requests, received) = sync_channel(WAITING);
        let (unused, to_detach) = channel();
        let (ready, started) = sync_channel(1);
        let place = dir.clone();
        let thread = std::thread::Builder::new()
            .name("erofs-mounts".to_owned())
            .spawn(move || {
                // A thread that it starts then is in the same namespace.
                let entered = enter(&place).and_then(|()| detaching(to_detach));
                let (entered, other) = match entered {
                    Ok(other) => (Ok(()), Some(other)),
                    Err(error) => (Err(error), None),
                };
                // Whoever started the thread waits for this.
                let _ = ready.send(entered);
                if let Some(other) = other {
                    serve(&received);
                    let _ = other.join();
                }
            })?;
        started.recv().map_err(|_| ended())??;
        Ok(Arc::new(Self {
            dir,
            next: AtomicU64::new(0),
            orders: Mutex::new(Some(Orders { requests, unused })),
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// Mounts `image`, whose files' bytes lie in `devices`, in the order of the image's table.
    pub(super) fn mount(
        self: &Arc<Self>,
        image: &File,
        devices: &[File],
    ) -> io::Result<Arc<MountedImage>> {
        let mount = make(image, devices)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let place = self.dir.join(number.to_string());
        let (done, answer) = sync_channel(1);
        self.send(Request::Attach(mount, place.clone(), done))?;
        answer.recv().map_err(|_| ended())??;
        Ok(Arc::new(MountedImage {
            mounter: self.clone(),
            place,
        }))
    }

    fn send(&self, request: Request) -> io::Result<()> {
        let requests = {
            let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
            orders.as_ref().map(|orders| orders.requests.clone())
        };
        let sent = requests.map(|requests| requests.send(request));
        sent.and_then(Result::ok).ok_or_else(ended)
    }

    fn detach(&self, place: PathBuf) {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(orders) = orders.as_ref() {
            // If the thread is gone, so is the mount.
            let _ = orders.unused.send(place);
        }
    }
}

impl Drop for Mounter {
    fn drop(&mut self) {
        // Without senders the threads end, and the kernel unmounts everything.
        self.orders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            let _ = thread.join();
        }
    }
}

/// A clone of an image's mount, attached nowhere yet.
#[derive(Debug)]
pub(crate) struct ImageClone(OwnedFd);

impl ImageClone {
    /// Attaches it at `target` in the calling thread's mount namespace.
    pub(crate) fn attach(self, target: &Path) -> io::Result<()> {
        attach(self.0, target)
    }
}

impl MountedImage {
    /// Clones of images of one snapshotter, in the same order; all in one request, since each waits for another thread.
    pub(crate) fn clones(images: &[&Self]) -> io::Result<Vec<ImageClone>> {
        let Some(first) = images.first() else {
            return Ok(Vec::new());
        };
        if !images
            .iter()
            .all(|i| Arc::ptr_eq(&i.mounter, &first.mounter))
        {
            return Err(io::Error::other(
                "images of several snapshotters in one overlay",
            ));
        }
        let places = images.iter().map(|image| image.place.clone()).collect();
        let (done, answer) = sync_channel(1);
        first.mounter.send(Request::Clone(places, done))?;
        answer.recv().map_err(|_| ended())?
    }

    /// Attaches the image at `target` in the calling thread's mount namespace.
    pub(crate) fn attach(&self, target: &Path) -> io::Result<()> {
        let mut clones = Self::clones(&[self])?;
        clones.pop().ok_or_else(ended)?.attach(target)
    }
}

/// Two are equal if they are one mount.
impl PartialEq for MountedImage {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for MountedImage {}

impl Drop for MountedImage {
    fn drop(&mut self) {
        self.mounter.detach(std::mem::take(&mut self.place));
    }
}

fn ended() -> io::Error {
    io::Error::other("the thread that holds the images' mounts has ended")
}

/// Moves the calling thread into a mount namespace of its own with memory at `dir` to make mount points in. What is unmounted
/// outside goes away in it too, so it keeps no disk busy.
fn enter(dir: &Path) -> io::Result<()> {
    #[allow(unsafe_code)]
    // SAFETY: only `UnshareFlags::FILES` endangers other threads; the mount namespace, and with it the root and current
    // directory, are this thread's alone afterwards.
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    let receiving = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", receiving)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("tmpfs", dir, "tmpfs", flags, c"mode=700")?;
    Ok(())
}

fn serve(requests: &Receiver<Request>) {
    while let Ok(request) = requests.recv() {
        match request {
            Request::Attach(mount, place, done) => {
                let attached = fs::create_dir(&place).and_then(|()| attach(mount, &place));
                let _ = done.send(attached);
            }
            Request::Clone(places, done) => {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                let clone = |place: &PathBuf| rustix::mount::open_tree(CWD, place, flags);
                let cloned = places.iter().map(|place| Ok(ImageClone(clone(place)?)));
                let _ = done.send(cloned.collect());
            }
        }
    }
}

/// Starts the thread that unmounts, in the calling one's namespace.
fn detaching(unused: Receiver<PathBuf>) -> io::Result<JoinHandle<()>> {
    let name = "erofs-unmounts".to_owned();
    std::thread::Builder::new().name(name).spawn(move || {
        for place in unused {
            let detached = rustix::mount::unmount(&place, UnmountFlags::DETACH)
                .map_err(io::Error::from)
                .and_then(|()| fs::remove_dir(&place));
            if let Err(error) = detached {
                tracing::warn!(%error, place = %place.display(), "an image stays mounted");
            }
        }
    })
}

/// A new mount of an image, attached nowhere yet. The kernel takes an option of at most 255 bytes, hence the short names of the
/// files.
pub(super) fn make(image: &File, devices: &[File]) -> io::Result<OwnedFd> {
    let name = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
    let context = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    rustix::mount::fsconfig_set_string(context, "source", name(image))?;
    for device in devices {
        rustix::mount::fsconfig_set_string(context, "device", name(device))?;
    }
    rustix::mount::fsconfig_create(context)?;
    let mount = rustix::mount::fsmount(
        context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )?;
    Ok(mount)
}

/// Attaches a mount at `target` in the calling thread's mount namespace.
pub(super) fn attach(mount: OwnedFd, target: &Path) -> io::Result<()> {
    rustix::mount::move_mount(
        mount.as_fd(),
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    Ok(())
}
