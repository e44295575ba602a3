//! Threads that do the work of an import, and hand each result back to the one that waits for it.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use parking_lot::{Condvar, Mutex};

use super::ImportError;

type Task<'task> = Box<dyn FnOnce() + Send + 'task>;

/// A queue of tasks and the threads that take from it. Whoever fills it bounds it: see [`super::pipeline`].
pub(super) struct Pool<'task> {
    queue: Mutex<Queue<'task>>,
    wake: Condvar,
}

struct Queue<'task> {
    tasks: VecDeque<Task<'task>>,
    closed: bool,
}

/// The result of a task, some time.
pub(super) struct Promise<T>(Receiver<Result<T, ImportError>>);

impl<T> Promise<T> {
    /// Waits for the result.
    pub fn wait(self) -> Result<T, ImportError> {
        self.0.recv().map_err(|_| ImportError::Thread)?
    }
}

/// Closes a pool when the import ends, however it ends, so that its threads do.
pub(super) struct Closer<'a, 'task>(&'a Pool<'task>);

impl Drop for Closer<'_, '_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.tasks.clear();
        queue.closed = true;
        self.0.wake.notify_all();
    }
}

impl<'task> Pool<'task> {
    pub fn new() -> Pool<'task> {
        Pool { queue: Mutex::new(Queue { tasks: VecDeque::new(), closed: false }), wake: Condvar::new() }
    }

    /// Starts `threads` threads, which end when the returned guard is dropped.
    pub fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        threads: usize,
    ) -> Result<Closer<'scope, 'task>, ImportError> {
        let closer = Closer(self);
        for index in 0..threads {
            std::thread::Builder::new()
                .name(format!("import-{index}"))
                .spawn_scoped(scope, || self.work())
                .map_err(|_| ImportError::Thread)?;
        }
        Ok(closer)
    }

    /// Queues `task`.
    pub fn submit<T: Send + 'task>(&self, task: impl FnOnce() -> Result<T, ImportError> + Send + 'task) -> Promise<T> {
        let (sender, receiver): (SyncSender<_>, _) = sync_channel(1);
        let task = Box::new(move || {
            // The receiver is gone when the import has failed elsewhere.
            sender.send(task()).ok();
        });
        self.queue.lock().tasks.push_back(task);
        self.wake.notify_one();
        Promise(receiver)
    }

    fn work(&self) {
        loop {
            let mut queue = self.queue.lock();
            let task = loop {
                if let Some(task) = queue.tasks.pop_front() {
                    break task;
                }
                if queue.closed {
                    return;
                }
                self.wake.wait(&mut queue);
            };
            drop(queue);
            task();
        }
    }
}
