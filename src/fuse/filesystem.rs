//! Requests of the kernel, and their replies.
//!
//! What is on this machine is answered on the thread that received the request: the tree's future is polled once, and is
//! ready. Only a miss goes to the async runtime, with its reply and a deadline, so that no reader waits for ever and no FUSE
//! thread waits at all. Requests that only a writable filesystem has are answered EROFS, though the kernel does not send
//! them to a read-only mount; questions that have a good answer without us are answered ENOSYS, after which the kernel
//! answers them itself.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyBmap,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock,
    ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::options::Profile;
use super::requests::RequestKind;
use super::serving::Copies;
use super::shared::{FOR_EVER, GENERATION, NOT_AT_ALL, NOTHING, Object, Shared, entry_ttl, fail, fill};
use super::xattr;
use crate::fetch::Priority;
use crate::limits::MAX_NAME_BYTES;
use crate::tree::TreeError;

/// Requests that the kernel sends ahead of readers (read-ahead) before it waits for answers.
const MAX_BACKGROUND: u16 = 64;
/// The largest READ: `fs.fuse.max_pages_limit` pages, beyond which the kernel does not go.
const MAX_REQUEST_BYTES: u32 = 1 << 20;

/// The unit of statfs.
const STATFS_BLOCK_BYTES: u64 = 4096;

/// The filesystem of one mount.
pub(super) struct CidFs {
    pub shared: Arc<Shared>,
}

/// What the reply needs, or a reply with the errno and a return.
macro_rules! or_reply {
    ($reply:ident, $result:expr) => {
        match $result {
            Ok(value) => value,
            Err(errno) => return $reply.error(errno),
        }
    };
}

#[allow(clippy::too_many_arguments, reason = "the trait has them")]
impl Filesystem for CidFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for capability in [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_MAX_PAGES,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            // Only the root's times ever change, and with them its cached listing.
            InitFlags::FUSE_AUTO_INVAL_DATA,
        ] {
            if config.add_capabilities(capability).is_err() {
                tracing::info!(?capability, "this kernel cannot do it: the mount works, but slower");
            }
        }
        let options = &self.shared.options;
        if options.profile == Profile::Serving
            && options.copies_dir.is_some()
            && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
        {
            // Copies lie on a filesystem that is stacked on no other.
            let _ = config.set_max_stack_depth(1);
        }
        // Both refuse 0 only.
        let _ = config.set_max_background(MAX_BACKGROUND);
        let _ = config.set_max_write(MAX_REQUEST_BYTES);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.shared.counts.add(RequestKind::Lookup);
        let directory = or_reply!(reply, self.shared.object(parent));
        let (depth, is_root) = (directory.depth(), matches!(directory, Object::Root));
        let name = Bytes::copy_from_slice(name.as_bytes());
        let shared = self.shared.clone();
        let op = {
            let (shared, name) = (shared.clone(), name.clone());
            async move { shared.look_up(&directory, &name).await }
        };
        self.shared.answer(op, move |found| {
            let entry = found.and_then(|entry| {
                let number = shared.inodes.look_up(parent.0, depth, &name, &entry)?;
                Ok(shared.stat(number, &entry.attr))
            });
            match entry {
                Ok(stat) => {
                    reply.entry_with_ttls(&FOR_EVER, &entry_ttl(parent.0, &name), &stat, GENERATION);
                }
                // A directory that was read and has no such name never will; only the root changes.
                Err(TreeError::NoEntry { .. }) if !is_root => {
                    reply.entry(&FOR_EVER, &shared.stat(0, &NOTHING), GENERATION);
                }
                Err(error) => reply.error(fail(&format!("look up {}", String::from_utf8_lossy(&name)), &error)),
            }
        });
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        self.shared.counts.add(RequestKind::Forget);
        self.shared.inodes.forget(number.0, lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.shared.counts.add(RequestKind::Getattr);
        match or_reply!(reply, self.shared.object(number)) {
            Object::Root => match self.shared.root_stat() {
                Ok(stat) => reply.attr(&NOT_AT_ALL, &stat),
                Err(error) => reply.error(fail("list the pins and names", &error)),
            },
            Object::Inode(inode) => reply.attr(&FOR_EVER, &self.shared.stat(number.0, &inode.attr)),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        self.shared.counts.add(RequestKind::Readlink);
        let location = or_reply!(reply, self.shared.location(number));
        let tree = self.shared.tree.clone();
        self.shared.answer(async move { tree.read_link(&location).await }, |target| match target {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(fail("read a symbolic link", &error)),
        });
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.shared.counts.add(RequestKind::Open);
        if self.shared.options.profile == Profile::Training {
            // The kernel never asks again, and keeps every file's pages.
            return reply.error(Errno::ENOSYS);
        }
        match or_reply!(reply, self.shared.object(number)) {
            Object::Root => reply.error(Errno::EISDIR),
            Object::Inode(inode) => Copies::open(&self.shared, number.0, &inode, reply),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.shared.counts.add(RequestKind::Read);
        let Object::Inode(inode) = or_reply!(reply, self.shared.object(number)) else {
            return reply.error(Errno::EISDIR);
        };
        if let Some(data) = self.shared.prefetch.note(number.0, &inode, offset, size.into()) {
            return reply.data(&data);
        }
        let location = inode.location;
        let tree = self.shared.tree.clone();
        let cid = location.cid.clone();
        let op = async move { tree.read(&location, offset, size as usize, Priority::Demand).await };
        self.shared.answer(op, move |data| match data {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(fail(&format!("read {size} bytes at {offset} of {cid}"), &error)),
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.shared.counts.add(RequestKind::Other);
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.shared.counts.add(RequestKind::Release);
        self.shared.copies.release(number.0, handle);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.shared.counts.add(RequestKind::Other);
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.shared.counts.add(RequestKind::Opendir);
        reply.error(Errno::ENOSYS);
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, cursor: u64, mut reply: ReplyDirectory) {
        self.shared.counts.add(RequestKind::Readdir);
        let directory = or_reply!(reply, self.shared.object(number));
        let depth = directory.depth();
        let shared = self.shared.clone();
        let op = {
            let shared = shared.clone();
            async move { shared.rows(&directory, cursor).await }
        };
        self.shared.answer(op, move |rows| match rows {
            Ok(rows) => {
                fill(&mut reply, &shared, number.0, depth, cursor, &rows);
                reply.ok();
            }
            Err(error) => reply.error(fail("list a directory", &error)),
        });
    }

    fn readdirplus(&self, _: &Request, number: INodeNo, _: FileHandle, cursor: u64, mut reply: ReplyDirectoryPlus) {
        self.shared.counts.add(RequestKind::Readdirplus);
        let directory = or_reply!(reply, self.shared.object(number));
        let depth = directory.depth();
        let shared = self.shared.clone();
        let op = {
            let shared = shared.clone();
            async move { shared.rows(&directory, cursor).await }
        };
        self.shared.answer(op, move |rows| match rows {
            Ok(rows) => {
                fill(&mut reply, &shared, number.0, depth, cursor, &rows);
                reply.ok();
            }
            Err(error) => reply.error(fail("list a directory", &error)),
        });
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.shared.counts.add(RequestKind::Other);
        reply.error(Errno::ENOSYS);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.shared.counts.add(RequestKind::Statfs);
        // What the store takes, and what it may still take: that is what a mount can hold.
        let Ok(stat) = self.shared.tree.fetch().store().stat() else { return reply.error(Errno::EIO) };
        let free =
            stat.available_bytes.min(stat.disk_budget_bytes.saturating_sub(stat.disk_bytes)) / STATFS_BLOCK_BYTES;
        let used = stat.disk_bytes.div_ceil(STATFS_BLOCK_BYTES);
        let block = STATFS_BLOCK_BYTES as u32;
        reply.statfs(used + free, free, free, stat.blocks, 0, block, MAX_NAME_BYTES as u32, block);
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.shared.counts.add(RequestKind::Xattr);
        let object = or_reply!(reply, self.shared.object(number));
        let Object::Inode(inode) = object else { return reply.error(Errno::ENODATA) };
        let Some(attribute) = xattr::Attribute::from_name(name.as_bytes()) else {
            return reply.error(Errno::ENODATA);
        };
        let op = attribute.value(self.shared.clone(), inode.location);
        self.shared.answer(op, move |value| match value {
            Ok(value) => xattr::send(reply, size, value.as_bytes()),
            Err(error) => reply.error(fail("read an extended attribute", &error)),
        });
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        self.shared.counts.add(RequestKind::Xattr);
        match or_reply!(reply, self.shared.object(number)) {
            Object::Root => xattr::send(reply, size, b""),
            Object::Inode(_) => xattr::send(reply, size, &xattr::names()),
        }
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        self.shared.counts.add(RequestKind::Other);
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        self.shared.counts.add(RequestKind::Other);
        reply.error(Errno::ENOTTY);
    }

    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: ReplyLseek) {
        self.shared.counts.add(RequestKind::Other);
        reply.error(Errno::ENOSYS);
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        self.shared.counts.add(RequestKind::Other);
        reply.error(Errno::ENOSYS);
    }

    fn bmap(&self, _: &Request, _: INodeNo, _: u32, _: u64, reply: ReplyBmap) {
        self.shared.counts.add(RequestKind::Other);
        reply.error(Errno::ENOSYS);
    }

    fn getlk(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: LockOwner,
        _: u64,
        _: u64,
        _: i32,
        _: u32,
        reply: ReplyLock,
    ) {
        self.shared.counts.add(RequestKind::Other);
        reply.error(Errno::ENOSYS);
    }

    fn setlk(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: LockOwner,
        _: u64,
        _: u64,
        _: i32,
        _: u32,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.shared.counts.add(RequestKind::Other);
        reply.error(Errno::ENOSYS);
    }

    fn setattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn rename(&self, _: &Request, _: INodeNo, _: &OsStr, _: INodeNo, _: &OsStr, _: RenameFlags, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }
}
