//! The one place where an errno is chosen.

use fuser::Errno;

use crate::fetch::FetchError;
use crate::tree::TreeError;

/// What a program sees of `error`. Not found is said only where the directory was read and has no such name: a block
/// that cannot be had is an I/O error, for the file is there.
pub(super) fn errno(error: &TreeError) -> Errno {
    match error {
        TreeError::NotACid { .. } | TreeError::NoEntry { .. } => Errno::ENOENT,
        TreeError::NotADirectory { .. } => Errno::ENOTDIR,
        TreeError::IsADirectory { .. } => Errno::EISDIR,
        TreeError::NotASymlink { .. } | TreeError::NotAFile { .. } => Errno::EINVAL,
        TreeError::TooDeep { .. } => Errno::ELOOP,
        TreeError::Fetch(FetchError::NotFound { .. } | FetchError::Store { .. })
        | TreeError::Store(_)
        | TreeError::Dag { .. }
        | TreeError::Lies { .. }
        | TreeError::Limit { .. }
        | TreeError::Deadline { .. } => Errno::EIO,
        // As the kernel itself says it a moment later.
        TreeError::Stopping => Errno::ENOTCONN,
    }
}

/// Whether an error is the plain answer to a question (no such name, the mount is ending), and nothing that an operator should see.
pub(super) fn is_ordinary(error: &TreeError) -> bool {
    matches!(
        error,
        TreeError::NotACid { .. }
            | TreeError::NoEntry { .. }
            | TreeError::NotADirectory { .. }
            | TreeError::IsADirectory { .. }
            | TreeError::NotASymlink { .. }
            | TreeError::NotAFile { .. }
            | TreeError::Stopping
    )
}
