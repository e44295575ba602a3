//! What `block/put` and `dag/put` have in common: each file of the request becomes one block.

use axum::extract::Multipart;
use axum::extract::multipart::{Field, MultipartRejection};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use serde::Serialize;
use tokio::runtime::Handle;

use super::reply::{ApiError, Caller, Stream, stream};
use crate::block::Block;
use crate::daemon::Daemon;
use crate::fetch::pin;
use crate::limits::MAX_BLOCK_BYTES;
use crate::store::PinKind;

/// A request that puts blocks.
pub struct Put {
    /// Who keeps them.
    pub daemon: Daemon,
    /// The files.
    pub files: Result<Multipart, MultipartRejection>,
    /// What kubo calls a file of this request.
    pub argument: &'static str,
    /// Whether each block is pinned, and with it all that it links to.
    pub pin: bool,
}

impl Put {
    /// Keeps what `make` makes of each file, pins it where that was asked for, and says with `told` that it did. A pin is of
    /// a whole DAG: where something below a block cannot be had, it is an error that names what is missing, and the block is
    /// not pinned.
    pub async fn answer<T: Serialize>(
        self,
        caller: Caller,
        make: impl Fn(Bytes) -> Result<Block, ApiError> + Send + 'static,
        told: impl Fn(&Block) -> T + Send + 'static,
    ) -> Result<Response, ApiError> {
        let Put { daemon, files, argument, pin } = self;
        let no_file = move || ApiError::usage(format!("file argument '{argument}' is required"));
        let mut files = files.map_err(|_| no_file())?;
        let runtime = Handle::current();
        stream(Stream::Json, caller, move |emit| {
            let mut writer = daemon.store().writer();
            let mut any = false;
            while let Some(field) = runtime.block_on(files.next_field())? {
                any = true;
                let block = make(runtime.block_on(gather(field))?)?;
                writer.put(&block)?;
                if pin {
                    let pinned = pin::pin(daemon.fetch(), block.cid(), PinKind::Recursive, "", |_| ());
                    runtime
                        .block_on(pinned)
                        .map_err(|error| ApiError::from(error).context(format!("cannot pin {}", block.cid())))?;
                }
                emit.json(&told(&block))?;
            }
            if !any {
                return Err(no_file());
            }
            Ok(daemon.store().sync()?)
        })
        .await
    }
}

/// The bytes of a file that is to be a block.
async fn gather(mut field: Field<'_>) -> Result<Bytes, ApiError> {
    let mut data = BytesMut::new();
    while let Some(piece) = field.chunk().await? {
        if data.len() + piece.len() > MAX_BLOCK_BYTES {
            return Err(too_large());
        }
        data.extend_from_slice(&piece);
    }
    Ok(data.freeze())
}

/// What is said of a block that no peer would take.
pub fn too_large() -> ApiError {
    ApiError::new(format!(
        "produced block is over 2MiB: big blocks can't be exchanged with other peers \
         (a block has at most {MAX_BLOCK_BYTES} bytes)"
    ))
}
